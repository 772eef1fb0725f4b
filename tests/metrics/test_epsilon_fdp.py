"""The bound by f-DP where epsilon is known, where nothing leaks, and against jax-privacy."""

import numpy as np
import pytest
import scipy.stats

from diffence_jax.metrics.epsilon_fdp import (
  _STEPS,
  _back_any,
  _back_gaussian,
  _gap,
  _Guesses,
  _largest,
  epsilon_lower_bound_fdp,
  gaussian_epsilon,
)

RUNS = 12


def randomised_response(rng, num, epsilon):
  """Each canary's membership, told truly with a chance of e^epsilon / (1 + e^epsilon)."""
  is_member = rng.random(num) < 0.5
  truly = rng.random(num) < 1 / (1 + np.exp(-epsilon))
  scores = np.where(truly, is_member, ~is_member).astype(float)
  return scores[is_member], scores[~is_member]


def most(runs, chance):
  """A count that is exceeded in less than 1 of 1000 tests, errors having this chance."""
  return scipy.stats.binom.isf(0.001, runs, chance)


def test_randomised_response_is_bounded_from_below():
  rng, epsilon = np.random.default_rng(0), 1.0
  medians = []
  for num in (300, 1500):
    bounds = np.array(
      [epsilon_lower_bound_fdp(*randomised_response(rng, num, epsilon)) for _ in range(RUNS)]
    )
    assert np.sum(bounds > epsilon) <= most(RUNS, 0.05)
    medians.append(np.median(bounds))
  assert 0.0 < medians[0] < medians[1] and medians[1] > 0.7 * epsilon


def test_no_leak_gives_no_bound():
  rng, exceeded = np.random.default_rng(1), {"any": 0, "gaussian": 0}
  for _ in range(RUNS):
    scores = rng.normal(0, 1, 180), rng.normal(0, 1, 60)
    for curve in exceeded:
      exceeded[curve] += epsilon_lower_bound_fdp(*scores, curve=curve) > 0.0
  assert max(exceeded.values()) <= most(RUNS, 0.05)


def test_a_gaussian_mechanism_is_bounded_by_its_own_curve_and_better():
  rng, mu = np.random.default_rng(2), 1.0
  truth, bounds = gaussian_epsilon(mu, 1e-5), {"any": [], "gaussian": []}
  for _ in range(5):
    scores = rng.normal(mu, 1, 400), rng.normal(0, 1, 400)
    for curve, of_curve in bounds.items():
      of_curve.append(epsilon_lower_bound_fdp(*scores, curve=curve))
  assert np.sum(np.array(bounds["gaussian"]) > truth) <= most(5, 0.05)
  assert np.median(bounds["gaussian"]) > np.median(bounds["any"]) > 0.0


def test_the_gaussian_curve_is_wrong_for_another_mechanism():
  """What its docstring warns of: of randomised response it says too much."""
  scores = randomised_response(np.random.default_rng(3), 3000, 1.0)
  assert epsilon_lower_bound_fdp(*scores, curve="gaussian") > 1.0
  # The Gaussian through its point of FPR and TPR.
  mu = 2 * scipy.stats.norm.ppf(1 / (1 + np.exp(-1.0)))
  assert gaussian_epsilon(mu, 1e-5) == pytest.approx(5.6, abs=0.1)


def test_the_gaussian_bound_is_that_of_jax_privacy():
  auditing = pytest.importorskip("jax_privacy.auditing")
  for num, right, total in ((50, 45, 200), (20, 20, 100), (60, 30, 80)):
    called = np.arange(total // 2)
    canaries = auditing.CanaryScoreAuditor(called < right, called < num - right)
    expected = canaries.epsilon_one_run_fdp(
      0.05, 1e-5, threshold_strategy=auditing.Explicit(1.0)
    )
    guesses = _Guesses(np.array([num]), np.array([right]), total)
    (mu,) = _largest(guesses, 0.05, _back_gaussian, _STEPS)
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(expected, abs=1e-4)


def slow_gap(num, right, total, significance, back):
  r, h = significance * right / total, significance * (num - right) / total
  for i in range(right - 1, -1, -1):
    higher = max(h, float(back(r)))
    r, h = min(r + i / (num - i) * (higher - h), 1.0), higher
  return r + h - num / total


def test_the_recursion_against_a_loop_for_each():
  num, right = np.array([30, 9, 40, 1]), np.array([28, 9, 21, 0])
  for back in (lambda r: _back_any(1e-5, 0.7, r), lambda r: _back_gaussian(0.7, r)):
    expected = [slow_gap(*each, 100, 0.05, back) for each in zip(num, right, strict=True)]
    np.testing.assert_allclose(_gap(_Guesses(num, right, 100), 0.05, back), expected)


def test_the_epsilon_of_a_gaussian_against_its_delta():
  for mu in (0.1, 1.0, 5.0):
    epsilon = gaussian_epsilon(mu, 1e-5)
    cdf = scipy.stats.norm.cdf
    delta = cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * cdf(-mu / 2 - epsilon / mu)
    assert delta == pytest.approx(1e-5, rel=1e-3)
  assert gaussian_epsilon(0.0, 1e-5) == 0.0 and gaussian_epsilon(1e-9, 0.1) == 0.0


def test_arguments_that_are_not_right_are_refused():
  with pytest.raises(ValueError, match="curve is"):
    epsilon_lower_bound_fdp([1.0, 2.0], [1.0, 2.0], curve="normal")
  with pytest.raises(ValueError, match=r"^nonmember_scores"):
    epsilon_lower_bound_fdp([1.0, 2.0], [1.0])
