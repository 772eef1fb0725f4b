"""Pooled ROCs: against plain loops, coverage, and what must always hold."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import metrics
from diffence_jax.metrics.clustered import (
  clustered_band,
  clustered_difference,
  clustered_mean,
  clustered_roc,
)
from diffence_jax.metrics.two_way import spread


def example(seed, num_models=6, num=20, spread=0.5, digits=1):
  """Scores with ties and a leak of another size in every model; half are members."""
  rng = np.random.default_rng(seed)
  membership = rng.permuted(np.tile([True, False], (num_models, num // 2)), axis=1)
  leak = rng.normal(1.0, spread, (num_models, 1))
  scores = rng.normal(0, 1, membership.shape) + leak * membership
  return np.round(scores, digits), membership


def slow_shares(scores, membership):
  """Every score's chance to be in the right order with the other side's, from the mean."""
  auc = metrics.roc(scores[membership], scores[~membership]).auc
  shares = np.zeros(scores.shape)
  for place in np.ndindex(*scores.shape):
    own, is_member = scores[place], membership[place]
    others = scores[membership != is_member]
    ahead = (own > others).mean() + (own == others).mean() / 2
    shares[place] = (ahead if is_member else 1 - ahead) - auc
    shares[place] /= np.sum(membership == is_member)
  return shares


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_areas_interval_is_two_way_on_the_logit_scale(seed):
  scores, membership = example(seed, num_models=5, num=20)
  models = np.array([0, 0, 1, 2, 2])
  curve = clustered_roc(scores, membership, models=models)
  own = spread(slow_shares(scores, membership), models)
  auc = curve.auc.value
  logit, scale = np.log(auc / (1 - auc)), np.sqrt(own.variance) / (auc * (1 - auc))
  ends = logit + np.array([-1, 1]) * own.quantile * scale
  np.testing.assert_allclose(curve.auc[1:], 1 / (1 + np.exp(-ends)), atol=1e-9)


def test_figures_are_those_of_the_pooled_scores():
  scores, membership = example(0, num_models=10, num=200)
  curve = clustered_roc(scores, membership)
  pooled = metrics.roc(scores[membership], scores[~membership])
  assert curve.num_models == 10 and curve.auc.value == pooled.auc
  for limit in (0.001, 0.01):
    rate = curve.tpr_at_fpr(limit)
    assert rate._replace(low=0, high=0) == pooled.tpr_at_fpr(limit)._replace(low=0, high=0)
  band = clustered_band(scores, membership)
  expected = [pooled.tpr_at_fpr(fpr).value for fpr in band.fpr]
  np.testing.assert_array_equal(band.tpr, expected)
  assert np.all(band.low <= expected) and np.all(expected <= band.high)
  point = 20 * 4  # FPR 0.1
  rate = clustered_roc(scores, membership, limits=(band.fpr[point],)).rates[0]
  assert rate[:3] == (band.tpr[point], band.low[point], band.high[point])
  with pytest.raises(ValueError, match=r"expected one of \[0.001, 0.01\]"):
    curve.tpr_at_fpr(0.1)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_only_order_and_model_count(seed):
  scores, membership = example(seed)
  order = np.random.default_rng(seed).permutation(scores.shape[1])
  expected = clustered_roc(scores, membership)
  for same in (
    clustered_roc(scores[:, order], membership[:, order]),
    clustered_roc(np.arctan(scores), membership),
  ):
    np.testing.assert_allclose(same.auc, expected.auc, atol=1e-12)
    np.testing.assert_allclose(same.rates, expected.rates, atol=1e-12)


def test_asking_a_model_twice_adds_no_information():
  scores, membership = example(0, digits=6)
  once = clustered_roc(scores, membership)
  again = clustered_roc(
    np.tile(scores, (4, 1)), np.tile(membership, (4, 1)), models=np.tile(np.arange(6), 4)
  )
  np.testing.assert_allclose(again.auc, once.auc, atol=1e-12)
  np.testing.assert_allclose(
    [r[1:3] for r in again.rates], [r[1:3] for r in once.rates], atol=0.02
  )

  def width(interval):
    return interval[1] - interval[0]

  assert width(again.roc.auc_interval) < 0.6 * width(once.roc.auc_interval)


def test_intervals_cover_the_truth_where_independent_scores_do_not():
  """Members of model t ~ N(mu_t, 1), mu_t ~ N(1, 1): pooled, N(1, 2) against N(0, 1)."""
  rng, runs, limit = np.random.default_rng(0), 200, 0.1
  membership = np.tile([True, False], (40, 25))
  auc = scipy.stats.norm.cdf(1 / np.sqrt(3))
  tpr = scipy.stats.norm.cdf((1 - scipy.stats.norm.ppf(1 - limit)) / np.sqrt(2))
  hits = np.zeros(4)
  for _ in range(runs):
    leak = rng.normal(1, 1, (40, 1))
    scores = rng.normal(0, 1, membership.shape) + leak * membership
    curve = clustered_roc(scores, membership, limits=(limit,))
    rate, delong = curve.tpr_at_fpr(limit), curve.roc.auc_interval
    binomial = curve.roc.tpr_at_fpr(limit)
    hits += [
      curve.auc.low <= auc <= curve.auc.high,
      rate.low <= tpr <= rate.high,
      delong[0] <= auc <= delong[1],
      binomial.low <= tpr <= binomial.high,
    ]
  # A percentile interval is not exact: at least 90%, up to three standard deviations of a
  # binomial (0.064). Those of independent scores are far below.
  assert np.all(hits[:2] / runs >= 0.9 - 3 * np.sqrt(0.9 * 0.1 / runs))
  assert np.all(hits[2:] / runs < 0.7)


def test_no_leak_seen_does_not_exclude_a_rare_one():
  """One model in ten leaks all members. Often none of 20 is such a one."""
  rng, runs, share = np.random.default_rng(0), 300, 0.1
  membership = np.tile([True, False], (20, 5))
  hits = unseen = 0
  for _ in range(runs):
    leaks = rng.random((20, 1)) < share
    scores = 1.0 * (leaks & membership)
    curve = clustered_roc(scores, membership, limits=(0.0,))
    rate = curve.tpr_at_fpr(0.0)
    assert rate.value == leaks.mean()
    unseen += not leaks.any()
    hits += rate.low <= share <= rate.high
  # 12% of the runs see no leak (0.9^20); without the guard they all would miss it.
  assert unseen / runs > 0.12 - 3 * np.sqrt(0.12 * 0.88 / runs)
  assert hits / runs >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize("num_models", [2, 10, 40])
def test_no_variance_is_not_certainty(num_models):
  membership = np.tile([True, False], (num_models, 5))
  share = 1 - 0.025 ** (1 / num_models)
  for scores, auc, tpr in [
    (1.0 * membership, (1, 1 - share, 1), (1, 1 - share, 1)),
    (-1.0 * membership, (0, 0, share), (0, 0, share)),
    (0.0 * membership, (0.5, 0.5 - share / 2, 0.5 + share / 2), (0, 0, share)),
  ]:
    curve = clustered_roc(scores, membership)
    np.testing.assert_allclose(curve.auc, auc, atol=1e-12)
    value, low, high = curve.rates[1][:3]
    assert value == tpr[0] and low <= tpr[1] + 1e-12 and high >= tpr[2] - 1e-12


def test_models_of_one_side_only_are_fine():
  membership = np.array([[True] * 4, [False] * 4, [False] * 4])
  curve = clustered_roc(np.arange(12.0).reshape(3, 4)[::-1], membership)
  assert curve.auc.value == 1.0 and np.all(np.isfinite(curve.auc))
  assert np.all(np.isfinite(clustered_band(np.arange(12.0).reshape(3, 4), membership)))


def test_infinite_scores_are_fine():
  scores, membership = example(0)
  expected = clustered_roc(scores, membership)
  scores[scores == scores.max()], scores[scores == scores.min()] = np.inf, -np.inf
  assert clustered_roc(scores, membership).auc == expected.auc


def test_without_a_leak_half_lies_in_the_interval():
  rng, membership = np.random.default_rng(0), example(0, num_models=30, num=60)[1]
  runs, hits = 60, 0
  for _ in range(runs):
    offset = rng.normal(0, 2, (30, 1))  # shifts both sides of a model alike
    scores = rng.normal(0, 1, membership.shape) + offset
    low, high = clustered_roc(scores, membership).auc[1:]
    hits += low <= 0.5 <= high
  assert hits / runs >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)


def test_differences_are_paired():
  scores, membership = example(1, num_models=20, num=100, spread=1.0, digits=6)
  weaker = scores - 0.3 * membership
  difference = clustered_difference(scores, weaker, membership)
  a, b = (clustered_roc(s, membership).auc for s in (scores, weaker))
  assert difference.value == pytest.approx(a.value - b.value)
  assert difference.low > 0.0 and b.high > a.low, "only the pairs tell them apart"
  mirrored = clustered_difference(weaker, scores, membership)
  np.testing.assert_allclose(
    mirrored, (-difference.value, -difference.high, -difference.low), atol=1e-12
  )


def test_a_differences_interval_is_of_the_difference_of_the_shares():
  scores, membership = example(2)
  other, _ = example(3)
  found = clustered_difference(scores, other, membership)
  shares = slow_shares(scores, membership) - slow_shares(other, membership)
  own = spread(shares, np.arange(len(scores)))
  margin = own.quantile * np.sqrt(own.variance)
  np.testing.assert_allclose(found[1:], [found.value - margin, found.value + margin], atol=1e-9)


def test_equal_scores_differ_by_nothing_up_to_unseen_models():
  scores, membership = example(0, num_models=40)
  share = 1 - 0.025 ** (1 / 40)
  np.testing.assert_allclose(
    clustered_difference(scores, scores, membership), (0, -share, share), atol=1e-12
  )


def test_what_is_found_without_each_model_widens_an_interval_and_never_narrows_it():
  scores, membership = example(4)
  once = clustered_roc(scores, membership).auc
  apart = 0.5 + 0.1 * np.arange(6) / 5
  wide = clustered_roc(scores, membership, jackknife=apart).auc
  assert wide.value == once.value and wide.low < once.low < once.high < wide.high
  assert clustered_roc(scores, membership, jackknife=np.full(6, 0.7)).auc == once
  other, _ = example(5)
  plain = clustered_difference(scores, other, membership)
  shared = clustered_difference(
    scores, other, membership, jackknife_a=apart, jackknife_b=apart - 0.2
  )
  assert shared == plain, "what moves both moves no difference"
  lone = clustered_difference(
    scores, other, membership, jackknife_a=apart, jackknife_b=np.full(6, 0.6)
  )
  assert lone.low < plain.low < plain.high < lone.high
  for jackknife in (apart[:5], apart + 0.6, np.full(6, np.nan)):
    with pytest.raises(ValueError, match="without each of the 6 independent models"):
      clustered_roc(scores, membership, jackknife=jackknife)
  with pytest.raises(ValueError, match="expected jackknife_a and jackknife_b"):
    clustered_difference(scores, other, membership, jackknife_a=apart)


def test_arguments_that_are_not_right_are_refused():
  scores, membership = example(0)
  for bad, match in [
    ((scores[:1], membership[:1]), "expected at least 2"),
    ((scores[0], membership[0]), r"expected both \[T, N\]"),
    ((scores, membership[:, 1:]), r"expected both \[T, N\]"),
    ((scores, 1.0 * membership), "expected bool"),
    ((scores, membership | True), "expected members and non-members"),
    ((np.where(membership, np.nan, scores), membership), "scores(_a)? have 60 NaN"),
  ]:
    with pytest.raises(ValueError, match=match):
      clustered_roc(*bad)
    with pytest.raises(ValueError, match=match):
      clustered_difference(bad[0], *bad)
  with pytest.raises(ValueError, match="Got 1 independent model"):
    clustered_roc(scores, membership, models=np.zeros(len(scores)))
  with pytest.raises(ValueError, match=r"Got models \[2\]; expected \[6\]"):
    clustered_roc(scores, membership, models=[0, 1])
  with pytest.raises(ValueError, match=r"limit is 1.5; expected a number, 0.0 to 1.0"):
    clustered_roc(scores, membership, limits=(1.5,))


@pytest.mark.parametrize(
  "changed, message",
  [
    ({"scores": [[1.0], [1.0, 2.0]]}, "scores are no array"),
    ({"scores": "x"}, "scores are a str"),
    ({"membership": [[True], [True, False]]}, "membership are no array"),
    ({"models": [[0], [1, 2]]}, "models are no array"),
    ({"models": ["a", "b", None, 1, 2, 3]}, "models are a list"),
    ({"limits": 0.01}, "limits is 0.01; expected a tuple"),
    ({"limits": ("0.01",)}, "limits.0. is '0.01'"),
  ],
)
def test_arguments_that_are_no_arrays_are_named(changed, message):
  scores, membership = example(0)
  with pytest.raises(ValueError, match=message):
    clustered_roc(**{"scores": scores, "membership": membership, **changed})
  with pytest.raises(ValueError, match="scores_b have 120 NaN"):
    clustered_difference(scores, np.full_like(scores, np.nan), membership)


def test_a_mean_over_models_is_of_their_means_and_holds_the_truth():
  """In at least as many of 100 runs as a coverage of 90% would, but for 1 run in 1,000."""
  held = 0
  for seed in range(100):
    draw = np.random.default_rng(seed)
    values = 0.7 + draw.normal(0.0, 0.1, (20, 1)) + draw.normal(0.0, 0.3, (1, 80))
    values = values + draw.normal(0.0, 0.2, (20, 80))
    chosen = draw.random((20, 80)) < 0.5
    mean = clustered_mean(values, chosen, models=np.arange(20))
    each = [of_model[rows].mean() for of_model, rows in zip(values, chosen, strict=True)]
    np.testing.assert_allclose(mean.value, np.mean(each))
    held += mean.low <= 0.7 <= mean.high
  assert held >= scipy.stats.binom.ppf(0.001, 100, 0.9)


def test_shares_that_are_all_the_same_have_an_interval_with_a_width():
  everyone = np.ones((8, 10), bool)
  mean = clustered_mean(np.ones((8, 10)), everyone, models=np.arange(8) // 2, is_share=True)
  assert mean.low < mean.value == mean.high == 1.0
