"""The bound where epsilon is known, where nothing leaks, and without the package."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from diffence_jax.metrics.epsilon import epsilon_lower_bound


@pytest.fixture
def package():
  pytest.importorskip("jax_privacy")


def coins(rng, num):
  return rng.random(num) < 0.5


def randomised_response(rng, num, epsilon):
  """Each canary's membership, told truly with a chance of e^epsilon / (1 + e^epsilon)."""
  is_member = coins(rng, num)
  truly = rng.random(num) < 1 / (1 + np.exp(-epsilon))
  scores = np.where(truly, is_member, ~is_member).astype(float)
  return scores[is_member], scores[~is_member]


def most(runs, chance):
  """A count that is exceeded in less than 1 of 1000 tests, errors having this chance."""
  return scipy.stats.binom.isf(0.001, runs, chance)


def test_the_bound_is_below_the_truth_and_grows_toward_it(package):
  rng, epsilon, runs = np.random.default_rng(0), 1.0, 12
  medians = []
  for num in (300, 3000):
    bounds = np.array(
      [epsilon_lower_bound(*randomised_response(rng, num, epsilon)) for _ in range(runs)]
    )
    assert np.sum(bounds > epsilon) <= most(runs, 0.05)
    medians.append(np.median(bounds))
  assert 0.0 < medians[0] < medians[1] and medians[1] > 0.7 * epsilon


def test_no_leak_gives_no_bound(package):
  rng, runs, found = np.random.default_rng(1), 40, 0
  for _ in range(runs):
    # Of so uneven sides three in four guesses "member" would be right by chance alone.
    found += epsilon_lower_bound(rng.normal(0, 1, 180), rng.normal(0, 1, 60)) > 0.0
  assert found <= most(runs, 0.05)


def test_more_confidence_and_more_delta_give_less(package):
  scores = randomised_response(np.random.default_rng(3), 2000, 2.0)
  bound = epsilon_lower_bound(*scores)
  assert 0.0 < epsilon_lower_bound(*scores, confidence=0.999) < bound
  assert 0.0 < epsilon_lower_bound(*scores, delta=1e-3) < bound


def test_only_the_order_of_scores_counts_up_to_infinity(package):
  rng = np.random.default_rng(4)
  members, nonmembers = rng.normal(3, 1, 200), rng.normal(0, 1, 200)
  bound = epsilon_lower_bound(members, nonmembers)
  assert bound > 1.0
  assert epsilon_lower_bound(np.arctan(members), np.arctan(nonmembers)) == bound
  assert epsilon_lower_bound(np.full(200, np.inf), np.zeros(200)) == epsilon_lower_bound(
    np.ones(200), np.zeros(200)
  )


def test_perfect_scores_are_bounded_by_their_number(package):
  """All of n guesses right: epsilon is at most that of (e^eps / (1 + e^eps))^n = 0.025."""
  for num in (50, 500):
    right = 0.025 ** (1 / (num / 2))
    bound = epsilon_lower_bound(np.ones(num), np.zeros(num), delta=1e-12)
    assert bound == pytest.approx(np.log(right / (1 - right)), abs=1e-3)


def test_a_missing_package_is_named(monkeypatch):
  for name in ("jax_privacy", "jax_privacy.auditing"):
    monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[dp\]'"):
    epsilon_lower_bound(np.ones(10), np.zeros(10))


def test_the_package_is_imported_only_when_used():
  code = "import sys, diffence_jax.metrics.epsilon; sys.exit('jax_privacy' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_arguments_that_are_not_right_are_refused():
  good = np.arange(4.0)
  for bad in ([], [1.0], [[1.0, 2.0]], [1.0, np.nan]):
    with pytest.raises(ValueError, match=r"^member_scores"):
      epsilon_lower_bound(bad, good)
    with pytest.raises(ValueError, match=r"^nonmember_scores"):
      epsilon_lower_bound(good, bad)
  for delta in (0.0, 1.0):
    with pytest.raises(ValueError, match="delta is"):
      epsilon_lower_bound(good, good, delta=delta)
  for confidence in (0.05, 1.0):
    with pytest.raises(ValueError, match="confidence is"):
      epsilon_lower_bound(good, good, confidence=confidence)
