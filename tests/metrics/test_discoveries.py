"""False discoveries: against slow references, and whether the guarantees hold."""

import numpy as np
import pytest

from diffence_jax.metrics.discoveries import (
  benjamini_hochberg,
  conformal_p_values,
  false_discovery_bound,
  most_named,
)

LEVELS = (0.05, 0.1)


@pytest.fixture(scope="module")
def runs():
  """500 attacks: p-values of 120 members and 180 non-members, and who is a member."""
  rng = np.random.default_rng(0)
  is_member = np.arange(300) < 120
  found = []
  for _ in range(500):
    scores = rng.normal(0.0, 1.0, 300) + 3.0 * is_member
    found.append(conformal_p_values(scores, rng.normal(0.0, 1.0, 400)))
  return np.array(found), is_member


def test_p_values_count_the_calibration_scores_that_are_as_high():
  rng = np.random.default_rng(1)
  scores, calibration = rng.integers(0, 9, 50), rng.integers(0, 9, 30)
  expected = [(1 + sum(c >= s for c in calibration)) / 31 for s in scores]
  np.testing.assert_allclose(conformal_p_values(scores, calibration), expected)
  assert conformal_p_values([np.inf, -np.inf], [0.0]).tolist() == [0.5, 1.0]


def test_a_non_member_is_below_x_with_a_chance_of_at_most_x(runs):
  p_values, is_member = runs
  for x in (0.01, 0.05, 0.2):
    assert np.mean(p_values[:, ~is_member] <= x) <= x + 0.003
    assert np.mean(p_values[:, is_member] <= x) > 3 * x


@pytest.mark.parametrize("level", LEVELS)
def test_the_false_discovery_rate_holds(runs, level):
  p_values, is_member = runs
  shares, named = [], []
  for of_run in p_values:
    called = benjamini_hochberg(of_run, level)
    named.append(called.sum())
    shares.append((called & ~is_member).sum() / max(called.sum(), 1))
  error = np.std(shares) / np.sqrt(len(shares))
  # 180 of 300 are no members, and of them alone false discoveries come.
  assert np.mean(shares) <= 0.6 * level + 3 * error
  assert np.mean(shares) >= 0.3 * level and np.mean(named) > 40


def test_nobody_is_named_where_nothing_leaks():
  rng = np.random.default_rng(2)
  named = [
    benjamini_hochberg(conformal_p_values(*rng.normal(0.0, 1.0, (2, 200))), 0.1).any()
    for _ in range(200)
  ]
  # Then whoever is called is false: that happens in at most 10% of the runs.
  assert np.mean(named) <= 0.1 + 3 * np.sqrt(0.09 / 200)


def test_the_bound_holds_for_all_numbers_of_samples_at_once(runs):
  p_values, is_member = runs
  broken, least = 0, []
  for of_run in p_values[:200]:
    order = np.argsort(of_run, kind="stable")
    masks = [np.isin(np.arange(300), order[:size]) for size in (20, 60, 120, 200)]
    bounds = [false_discovery_bound(of_run, mask) for mask in masks]
    broken += any((m & ~is_member).sum() > b for m, b in zip(masks, bounds, strict=True))
    least.append(bounds[1])
  assert broken <= 0.05 * 200 + 3 * np.sqrt(0.05 * 0.95 * 200)
  assert np.mean(least) < 25


def slow_bound(p_values, called, confidence):
  num = len(p_values)
  bounds = [
    sum(p_values[i] > (1 - confidence) * k / num for i in called) + k - 1
    for k in range(1, num + 1)
  ]
  return min([len(called), *bounds])


def test_against_slow_references():
  rng = np.random.default_rng(3)
  for num in (1, 7, 25):
    for confidence in (0.5, 0.95):
      p_values = np.round(rng.random(num) ** 4, 3)
      order = np.argsort(p_values, kind="stable")
      slow = [slow_bound(p_values, order[:size], confidence) for size in range(num + 1)]
      for size, bound in enumerate(slow):
        mask = np.isin(np.arange(num), order[:size])
        assert false_discovery_bound(p_values, mask, confidence=confidence) == bound
      for share in (0.1, 0.3):
        sizes = [size for size in range(num + 1) if slow[size] <= share * size + 1e-9]
        assert most_named(p_values, share, confidence=confidence) == max(sizes)
    for level in (0.1, 0.4):
      passed = [k for k in range(1, num + 1) if np.sort(p_values)[k - 1] <= level * k / num]
      called = benjamini_hochberg(p_values, level)
      assert called.sum() >= max(passed, default=0)
      assert not called.any() or max(p_values[called]) == np.sort(p_values)[max(passed) - 1]


def test_arguments_that_are_not_right_are_refused():
  for bad in ([[0.1]], [np.nan]):
    with pytest.raises(ValueError, match="scores has shape"):
      conformal_p_values(bad, [1.0])
    with pytest.raises(ValueError, match="p_values has shape"):
      benjamini_hochberg(bad, 0.1)
  with pytest.raises(ValueError, match="calibration is empty"):
    conformal_p_values([1.0], [])
  with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
    most_named([1.5], 0.1)
  with pytest.raises(ValueError, match="level is"):
    benjamini_hochberg([0.5], 0.0)
  with pytest.raises(ValueError, match="called is"):
    false_discovery_bound([0.5], [1])
