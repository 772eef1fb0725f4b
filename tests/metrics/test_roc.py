"""The ROC against slow references, closed forms and what must always hold."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import metrics
from diffence_jax.metrics.predictions import log_probability

scores = st.lists(
  st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 0.5000001, 2.0, np.inf]), min_size=1
)


def slow_auc(members, nonmembers):
  wins = [1.0 if m > n else 0.5 if m == n else 0.0 for m in members for n in nonmembers]
  return sum(wins) / len(wins)


def slow_tpr_at_fpr(members, nonmembers, limit):
  """TPR, FPR of the best of all thresholds, tried one by one."""
  best = (0.0, 0.0)
  for threshold in [np.inf, *members, *nonmembers]:
    tpr = np.mean(np.asarray(members) >= threshold)
    fpr = np.mean(np.asarray(nonmembers) >= threshold)
    if threshold == np.inf:
      tpr, fpr = 0.0, 0.0
    if fpr <= limit:
      best = max(best, (tpr, fpr))
  return best


def finite(values):
  return [v for v in values if np.isfinite(v)] or [0.0]


@settings(max_examples=200, deadline=None)
@given(members=scores, nonmembers=scores)
def test_auc_is_the_chance_of_the_right_order(members, nonmembers):
  curve = metrics.roc(members, nonmembers)
  assert curve.auc == pytest.approx(slow_auc(members, nonmembers), abs=1e-12)
  low, high = curve.auc_interval
  assert 0.0 <= low <= curve.auc <= high <= 1.0 and low < high


@settings(max_examples=200, deadline=None)
@given(members=scores, nonmembers=scores, limit=st.sampled_from([0.0, 0.1, 0.29, 0.5, 1.0]))
def test_rates_are_those_of_the_best_threshold(members, nonmembers, limit):
  members, nonmembers = finite(members), finite(nonmembers)
  curve = metrics.roc(members, nonmembers)
  rate = curve.tpr_at_fpr(limit)
  value, realised = slow_tpr_at_fpr(members, nonmembers, limit)
  assert rate.value == pytest.approx(value)
  assert rate.realised <= limit + 1e-12 and rate.count == round(rate.realised * rate.num)
  assert rate.realised >= realised - 1e-12
  # Sides and signs exchanged, TNR at FNR is TPR at FPR.
  mirrored = metrics.roc([-n for n in nonmembers], [-m for m in members])
  assert curve.tnr_at_fnr(limit).value == pytest.approx(mirrored.tpr_at_fpr(limit).value)


@settings(max_examples=100, deadline=None)
@given(members=scores, nonmembers=scores)
def test_what_always_holds(members, nonmembers):
  curve = metrics.roc(members, nonmembers)
  assert np.all(np.diff(curve.tpr) >= 0) and np.all(np.diff(curve.fpr) >= 0)
  assert (curve.tpr[0], curve.fpr[0], curve.tpr[-1], curve.fpr[-1]) == (0, 0, 1, 1)
  assert 0.5 <= curve.accuracy <= 1.0
  low, high = curve.best_accuracy[1:]
  assert low <= curve.accuracy <= high
  transformed = metrics.roc(*(np.arctan(np.float64(s)) for s in (members, nonmembers)))
  assert transformed.auc == pytest.approx(curve.auc, abs=1e-12)
  permuted = metrics.roc(members[::-1], nonmembers[::-1])
  np.testing.assert_array_equal(permuted.tpr, curve.tpr)


def test_against_scikit_learn_with_ties():
  rng = np.random.default_rng(0)
  members, nonmembers = rng.integers(0, 30, 300) / 10, rng.integers(-5, 25, 200) / 10
  truth = np.repeat([1, 0], [300, 200])
  values = np.concatenate([members, nonmembers])
  fpr, tpr, _ = sklearn.metrics.roc_curve(truth, values, drop_intermediate=False)
  curve = metrics.roc(members, nonmembers)
  np.testing.assert_allclose(curve.fpr, fpr)
  np.testing.assert_allclose(curve.tpr, tpr)
  assert curve.auc == pytest.approx(sklearn.metrics.roc_auc_score(truth, values), abs=1e-12)


def test_the_best_threshold_has_the_best_accuracy():
  rng = np.random.default_rng(1)
  members, nonmembers = rng.normal(1, 1, 100), rng.normal(0, 1, 80)
  curve = metrics.roc(members, nonmembers)
  t = curve.best_threshold
  accuracy = (np.mean(members >= t) + np.mean(nonmembers < t)) / 2
  assert accuracy == pytest.approx(curve.accuracy)


@pytest.mark.parametrize("lower", [0.1, 0.3, 1.0, -2.5, 1e-300])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_best_threshold_parts_neighbouring_floats(lower, steps):
  higher = lower
  for _ in range(steps):
    higher = np.nextafter(higher, np.inf)
  # Both parities of the last bit, as ties round to even.
  for low, high in ((lower, higher), (higher, np.nextafter(higher, np.inf))):
    assert low < metrics.roc([high], [low]).best_threshold <= high


def test_the_best_threshold_of_infinite_scores_is_finite():
  assert 0.0 < metrics.roc([np.inf], [0.0]).best_threshold < np.inf
  assert -np.inf < metrics.roc([0.0], [-np.inf]).best_threshold <= 0.0
  assert np.isfinite(metrics.roc([np.inf], [-np.inf]).best_threshold)


def test_delong_covers_the_true_auc_of_two_gaussians():
  """AUC = Phi(d / sqrt 2); 95% of the intervals should hold it."""
  rng, shift, hits, runs = np.random.default_rng(0), 1.0, 0, 400
  truth = scipy.stats.norm.cdf(shift / np.sqrt(2))
  for _ in range(runs):
    low, high = metrics.roc(rng.normal(shift, 1, 60), rng.normal(0, 1, 90)).auc_interval
    hits += low <= truth <= high
  # Three standard deviations of a binomial around 95%, on the strict side.
  assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs) <= hits / runs <= 0.99


@pytest.mark.parametrize(
  "members, nonmembers", [([2.0] * 30, [1.0] * 40), ([1.0] * 30, [1.0] * 40)]
)
def test_no_variance_is_not_certainty(members, nonmembers):
  low, high = metrics.roc(members, nonmembers).auc_interval
  assert high - low > 0.1


@pytest.mark.parametrize("count, num", [(0, 10), (3, 10), (10, 10), (1, 1000)])
def test_clopper_pearson_is_scipys(count, num):
  expected = scipy.stats.binomtest(count, num).proportion_ci(0.95, "exact")
  np.testing.assert_allclose(metrics.clopper_pearson(count, num), expected, atol=1e-12)
  assert metrics.proportion(count, num).value == count / num


def test_small_samples_are_marked():
  curve = metrics.roc(np.arange(10.0), np.arange(1000.0))
  assert curve.tpr_at_fpr(0.01).enough and not curve.tpr_at_fpr(0.009).enough
  assert not curve.tnr_at_fnr(0.5).enough and curve.tnr_at_fnr(0.5).num == 10


@pytest.mark.parametrize("bad", [[], [[1.0]], [np.nan]])
def test_scores_that_are_not_right_are_refused(bad):
  with pytest.raises(ValueError, match="member_scores"):
    metrics.roc(bad, [0.0])
  with pytest.raises(ValueError, match="nonmember_scores"):
    metrics.roc([0.0], bad)
  with pytest.raises(ValueError, match=r"limit is 1.5; expected a number, 0.0 to 1.0"):
    metrics.roc([0.0], [1.0]).tpr_at_fpr(1.5)
  with pytest.raises(ValueError, match="count is 3; expected a whole number, 0 to 2"):
    metrics.clopper_pearson(3, 2)


RAGGED = [[0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: metrics.roc(["a"], [0.0]), "member_scores are a list"),
    (lambda: metrics.roc([0.0], RAGGED), "nonmember_scores are no array"),
    (lambda: metrics.roc([1j], [0.0]), "member_scores are a list, complex128"),
    (lambda: metrics.roc([1.0], [0.0]).tpr_at_fpr("0.1"), "limit is '0.1'"),
    (lambda: metrics.roc([1.0], [0.0]).tnr_at_fnr(None), "limit is None"),
    (lambda: metrics.clopper_pearson("1", 2), "count is '1'"),
    (lambda: metrics.clopper_pearson(1.5, 2), "count is 1.5"),
    (lambda: metrics.clopper_pearson(1, 2, level=2), r"level is 2; expected .* \(0, 1\)"),
    (lambda: metrics.proportion(0, 0), "num is 0"),
    (lambda: metrics.balanced_accuracy(0, 0, 1, 2), "num_members is 0"),
    (lambda: metrics.balanced_accuracy(0, 1, 3, 2), "false_positives is 3"),
    (lambda: metrics.jensen_shannon_distance(RAGGED, [1.0]), "values are no array"),
    (lambda: metrics.jensen_shannon_distance([1.0], ["a"]), "reference are a list"),
    (lambda: metrics.jensen_shannon_distance([1.0], [1.0], 0), "num_bins is 0"),
    (lambda: metrics.expected_calibration_error([[0.5, 0.5]], [0], 2.5), "num_bins is 2.5"),
    (lambda: metrics.label_changes(RAGGED, RAGGED), "logits are no array"),
    (lambda: metrics.epsilon_lower_bound(["a", "b"], [0.0, 1.0]), "member_scores are a list"),
    (lambda: metrics.epsilon_lower_bound([0.0, 1.0], [0.0, 1.0], delta=None), "delta is None"),
    (lambda: metrics.epsilon_lower_bound([0.0, 1.0], [0.0, 1.0], seed=-1), "seed is -1"),
    (lambda: log_probability([[0.0, 1.0]], [0], temperature="1"), "temperature is '1'"),
    (lambda: log_probability(RAGGED, [0, 1]), "logits are no array"),
  ],
)
def test_what_is_no_number_or_array_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
