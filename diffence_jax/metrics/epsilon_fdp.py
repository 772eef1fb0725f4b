"""A lower bound on epsilon from one training run, by the trade-off curve of what is claimed.

Mahloujifar, Melis & Chaudhuri 2025, "Auditing f-Differential Privacy in One Run": as Steinke et
al.'s bound (`epsilon.py`) it counts how many of the highest scores are members, but it uses the
whole curve f of the claim, where theirs uses one point of it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.checks import check_choice
from diffence_jax.metrics.epsilon import NUM_SPLITS, balanced_ranks

CURVES = ("any", "gaussian")
# Shares of the scores that are guessed to be members; one is chosen on the first half.
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
_LARGEST = 128.0
# Halvings of an interval of that length: to choose by, and for the bound.
_FEW_STEPS, _STEPS = 12, 40


class _Guesses(NamedTuple):
  """How many guesses "member" were made i64[B], how many were right, of how many scores."""

  num: np.ndarray
  right: np.ndarray
  total: int


def epsilon_lower_bound_fdp(
  member_scores: ArrayLike,
  nonmember_scores: ArrayLike,
  *,
  curve: str = "any",
  delta: float = 1e-5,
  confidence: float = 0.95,
  seed: int = 0,
) -> float:
  """The epsilon that an attack on one model shows its training to exceed, by f-DP.

  What is tested is a trade-off curve between false negatives and false positives:

  * "any": that of all (epsilon, delta)-differentially private training. The result exceeds
    epsilon with a chance of at most 1 - `confidence`, whatever the mechanism.
  * "gaussian": that of the Gaussian mechanism which is just (epsilon, delta)-private. It is a
    bound *only if* the training's curve is Gaussian, as that of DP-SGD nearly is. Of another
    mechanism it may lie above epsilon: of randomised response at epsilon 1 it is 1.2 with
    1,000 canaries. It is what jax-privacy's `epsilon_one_run_fdp` computes.

  Else it is used, and fails, as `epsilon_lower_bound`: the same coins, the median over the same
  number of splits, each at half the significance. The number of guesses is chosen among eight
  on the first half of a split. Nothing but NumPy and SciPy is needed.

  Args:
    member_scores: f[m], higher means more likely a member; m at least 2, infinite scores are
      fine.
    nonmember_scores: f[n], n at least 2.
    curve: one of `CURVES`.
    delta: in (0, 1); not to be chosen after seeing the scores.
    confidence: in (0.5, 1).
    seed: of the splits, and of the part of the larger side that is used.

  Returns:
    The bound, at least 0 and at most 128.

  Raises:
    ValueError: as by `epsilon_lower_bound`, or there is no such curve.
  """
  check_choice("curve", curve, CURVES)
  ranks = balanced_ranks(
    member_scores, nonmember_scores, delta=delta, confidence=confidence, seed=seed
  )
  significance = (1.0 - confidence) / 2.0
  back = _back_gaussian if curve == "gaussian" else functools.partial(_back_any, delta)
  first, second = [], []
  draw = np.random.default_rng([1, seed])
  for _ in range(NUM_SPLITS):
    halves = _halves(ranks, draw)
    thresholds = np.quantile(halves[0], 1.0 - np.array(_SHARES), method="higher")
    counted = [[(half >= t).sum(axis=1) for t in thresholds] for half in halves]
    first.append(counted[0])
    second.append(counted[1])
  tried = _largest(_guesses(first, halves[0].size), significance, back, _FEW_STEPS)
  best = tried.reshape(NUM_SPLITS, -1).argmax(axis=1)
  second = np.array(second)[np.arange(NUM_SPLITS), best]
  bounds = _largest(_guesses(second, halves[1].size), significance, back, _STEPS)
  median = float(np.median(bounds))
  return gaussian_epsilon(median, delta) if curve == "gaussian" else median


def gaussian_epsilon(mu: float, delta: float) -> float:
  """The epsilon for which a Gaussian mechanism is just (epsilon, delta)-private.

  Dong, Roth & Su 2022, "Gaussian Differential Privacy", corollary 1.

  Args:
    mu: the sensitivity in standard deviations of the noise, at least 0.
    delta: in (0, 1).

  Returns:
    Epsilon, at least 0.
  """

  def excess(epsilon):
    first = scipy.special.ndtr(mu / 2.0 - epsilon / mu)
    # e^epsilon alone is infinite long before the product is.
    return first - np.exp(epsilon + scipy.special.log_ndtr(-mu / 2.0 - epsilon / mu)) - delta

  if mu <= 0.0 or excess(0.0) <= 0.0:
    return 0.0
  high = mu * (mu / 2.0 - scipy.special.ndtri(delta))
  return float(scipy.optimize.brentq(excess, 0.0, high + 1.0))


def _halves(ranks, draw):
  """Two halves i64[2,n] of the ranks of members and of non-members i64[2,num]."""
  order = np.stack([draw.permutation(side) for side in ranks])
  middle = order.shape[1] // 2
  return order[:, :middle], order[:, middle:]


def _guesses(counts, total):
  """Of the members and the non-members i64[...,2] that are called members."""
  members, others = np.reshape(counts, (-1, 2)).T
  return _Guesses(members + others, members, total)


def _back_any(delta, epsilon, chance):
  """The least chance of an event without the sample that has this chance with it."""
  shrunk = (chance - delta) * np.exp(-epsilon)
  return np.maximum(np.maximum(shrunk, 1.0 - delta - np.exp(epsilon) * (1.0 - chance)), 0.0)


def _back_gaussian(mu, chance):
  """The same, by a Gaussian trade-off."""
  return scipy.special.ndtr(scipy.special.ndtri(chance) - mu)


def _largest(guesses: _Guesses, significance: float, back: Callable, steps: int) -> np.ndarray:
  """The largest parameter f64[B] of a curve that so many right guesses refute; 0 for none."""
  low, high = np.zeros(len(guesses.num)), np.full(len(guesses.num), _LARGEST)
  refuted = lambda value: _gap(guesses, significance, functools.partial(back, value)) > 0.0
  possible = refuted(low)
  for _ in range(steps):
    middle = (low + high) / 2.0
    above = refuted(middle)
    low, high = np.where(above, middle, low), np.where(above, high, middle)
  return np.where(possible, low, 0.0)


def _gap(guesses, significance, back):
  """Above 0 where the curve is refuted: the recursion of the paper's audit, with its cap."""
  num, right, total = guesses
  r, h = significance * right / total, significance * (num - right) / total
  for step in range(int(right.max())):
    i = right - 1 - step
    higher = np.where(i < 0, h, np.maximum(h, back(r)))
    if np.array_equal(higher, h):
      break
    r = np.where(i < 0, r, np.minimum(r + i / np.maximum(num - i, 1) * (higher - h), 1.0))
    h = higher
  return np.where(num > 0, r + h - num / total, -1.0)
