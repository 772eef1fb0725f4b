"""The AUC with queries without limit, against a record whose limit is known."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from diffence_jax.metrics import roc, unlimited_auc
from diffence_jax.metrics.unlimited import intercept_weights

QUERIES = np.array([1, 4, 16, 64])
GAP, NOISE = 0.6, 0.5


def simulated(seed, num_models=16, num=150):
  """Scores of means of R answers: a signal, and noise of the variance NOISE^2 / R."""
  draw = np.random.default_rng(seed)
  half = draw.random((num_models // 2, num)) < 0.5
  membership = np.stack([half, ~half], axis=1).reshape(num_models, num)
  signal = draw.normal(size=membership.shape) + GAP * membership
  noise = draw.normal(0.0, NOISE, (64, *membership.shape))
  return [signal + noise[:k].mean(axis=0) for k in QUERIES], membership


def auc_at(num_queries):
  """In closed form: two normal distributions of one variance."""
  variance = 1.0 + NOISE**2 / num_queries
  return scipy.stats.norm.cdf(GAP / np.sqrt(2.0 * variance))


def test_the_line_ends_where_the_closed_form_does():
  weights = intercept_weights(1.0 / QUERIES)
  exact = np.array([auc_at(k) for k in QUERIES])
  np.testing.assert_allclose(weights @ exact, auc_at(np.inf), atol=5e-4)
  np.testing.assert_allclose(weights @ exact, np.polyfit(1.0 / QUERIES, exact, 1)[1])
  assert auc_at(np.inf) > auc_at(1) + 0.015


def test_the_interval_holds_the_limit():
  """Of 60 runs it has to hold it in as many as a coverage of 90% would, but for 1 in 1,000."""
  models, held, errors = np.arange(16) // 2, 0, []
  for seed in range(60):
    scores, membership = simulated(seed)
    auc, misfit = unlimited_auc(scores, 1.0 / QUERIES, membership, models=models)
    held += auc.low <= auc_at(np.inf) <= auc.high
    errors.append(auc.value - auc_at(np.inf))
    aucs = [roc(s[membership], s[~membership]).auc for s in scores]
    slope, intercept = np.polyfit(1.0 / QUERIES, aucs, 1)
    np.testing.assert_allclose(auc.value, intercept)
    np.testing.assert_allclose(misfit, np.abs(aucs - intercept - slope / QUERIES).max())
  assert held >= scipy.stats.binom.ppf(0.001, 60, 0.9)
  assert abs(np.mean(errors)) < 4.0 * np.std(errors) / np.sqrt(60) + 5e-4


def test_its_variance_is_that_of_a_jackknife_over_pairs():
  scores, membership = simulated(1, num_models=40)
  pairs = np.arange(40) // 2
  auc, _ = unlimited_auc(scores, 1.0 / QUERIES, membership, models=pairs)
  weights, without = intercept_weights(1.0 / QUERIES), []
  for pair in range(20):
    kept = pairs != pair
    aucs = [roc(s[kept][membership[kept]], s[kept][~membership[kept]]).auc for s in scores]
    without.append(weights @ aucs)
  deviation = np.sqrt(19 / 20 * np.sum((without - np.mean(without)) ** 2))
  # The two-way interval is about other samples too, which here differ in nothing.
  assert 0.8 < (auc.high - auc.low) / 2.0 / (2.09 * deviation) < 2.0


def test_what_is_found_without_each_pair_takes_the_place_of_the_models_part():
  scores, membership = simulated(2, num_models=8)
  pairs = np.arange(8) // 2
  weights = intercept_weights(1.0 / QUERIES)
  plain, _ = unlimited_auc(scores, 1.0 / QUERIES, membership, models=pairs)
  # Without each of four pairs: so far apart that nothing else counts.
  without = 0.6 + np.outer([0.5, 1.0, 1.5, 2.0], [0.1, -0.1, 0.05, -0.05])
  wide, _ = unlimited_auc(scores, 1.0 / QUERIES, membership, models=pairs, jackknife=without)
  intercepts = weights @ without
  deviation = np.sqrt(3 / 4 * np.sum((intercepts - intercepts.mean()) ** 2))
  margin = scipy.special.logit(wide.high) - scipy.special.logit(wide.value)
  expected = scipy.stats.t.ppf(0.975, 3) * deviation / (wide.value * (1.0 - wide.value))
  np.testing.assert_allclose(margin, expected, rtol=0.05)
  same = np.full((4, 4), 0.6)
  assert (
    unlimited_auc(scores, 1 / QUERIES, membership, models=pairs, jackknife=same).auc == plain
  )


@pytest.mark.parametrize("jackknife", [np.full((2, 8), 0.5), np.full((4, 7), 0.5)])
def test_a_jackknife_of_another_shape_is_refused(jackknife):
  scores, membership = simulated(0)
  with pytest.raises(ValueError, match="Got jackknife"):
    unlimited_auc(
      scores, 1.0 / QUERIES, membership, models=np.arange(16) // 2, jackknife=jackknife
    )


def test_an_answer_that_never_changes_has_no_other_limit():
  scores, membership = simulated(0)
  auc, misfit = unlimited_auc(scores[:1], [1.0], membership)
  assert auc.value == roc(scores[0][membership], scores[0][~membership]).auc and misfit == 0.0
  assert auc.low < auc.value < auc.high
  twice, _ = unlimited_auc([scores[0], scores[0]], [1.0, 1.0], membership)
  np.testing.assert_allclose(twice, auc)


@pytest.mark.parametrize("inverse", [[1.0], [1.0, 0.0], [1.0, 2.0], [1.0, np.nan]])
def test_numbers_of_queries_that_do_not_fit_are_refused(inverse):
  scores, membership = simulated(0)
  with pytest.raises(ValueError, match="inverse_queries is"):
    unlimited_auc(scores[:2], inverse, membership)
