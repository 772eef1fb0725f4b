"""Who can be called a member, with a bound on how many of those called so are none.

An attack's score is made a p-value by the scores of non-members that the attacker knows and
that nothing was fitted to; many p-values are then judged together ("Membership Inference
Attacks with False Discovery Rate Control", arXiv:2508.07066; the guarantees are those of Bates,
Candes, Lei, Romano & Sesia 2023, "Testing for outliers with conformal p-values").
"""

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.checks import check_numbers, check_open


def conformal_p_values(scores: ArrayLike, calibration: ArrayLike) -> np.ndarray:
  """For every sample the chance that a non-member scores as high.

  The p-value of a score is (1 + calibration scores at least as high) / (1 + n). That of a
  non-member is below x with a chance of at most x, if its score and the calibration scores are
  exchangeable: non-members drawn alike, to none of which the attack or the defense was fitted.

  Args:
    scores: f[N], higher means more likely a member.
    calibration: f[n], of non-members, n at least 1. No p-value is below 1 / (1 + n).

  Returns:
    f64[N], in (0, 1].

  Raises:
    ValueError: a side is of another rank or has NaN, or there is no calibration score.
  """
  scores, calibration = (
    _check_vector(name, values)
    for name, values in (("scores", scores), ("calibration", calibration))
  )
  if not len(calibration):
    raise ValueError("calibration is empty; expected scores of at least one non-member.")
  below = np.searchsorted(np.sort(calibration), scores, "left")
  return (1.0 + len(calibration) - below) / (1.0 + len(calibration))


def benjamini_hochberg(p_values: ArrayLike, level: float) -> np.ndarray:
  """Who is called a member so that the false discovery rate is at most `level`.

  With k the largest number for which k p-values are at most level * k / N, these k are called
  (Benjamini & Hochberg 1995). The *expected* share of non-members among them, 0 where nobody is
  called, is at most `level` times the share of non-members among all N; conformal p-values,
  which share their calibration scores, keep that (Bates et al. 2023, theorem 2).

  Args:
    p_values: f[N], in [0, 1].
    level: in (0, 1).

  Returns:
    bool[N].

  Raises:
    ValueError: a p-value or the level is out of its range.
  """
  p_values = _check_p_values(p_values)
  check_open("level", level, 0.0, 1.0)
  ranks = np.arange(1, len(p_values) + 1)
  passed = np.flatnonzero(np.sort(p_values) <= level * ranks / len(p_values) * (1.0 + 1e-12))
  if not len(passed):
    return np.zeros(len(p_values), bool)
  return p_values <= np.sort(p_values)[passed[-1]]


def false_discovery_bound(
  p_values: ArrayLike, called: ArrayLike, *, confidence: float = 0.95
) -> int:
  """At most how many of those called members are none, however they were chosen.

  With a chance of at least `confidence` the bound holds for all choices at once, those made
  after seeing the scores among them. It is Simes' bound (Goeman & Solari 2011; Blanchard,
  Neuvial & Roquain 2020, equation 3), the least over k of the sum of k - 1 and
  the number of those called whose p-value is above (1 - confidence) k / N. It holds for
  conformal p-values, which are positively dependent.

  Args:
    p_values: f[N], in [0, 1], of all samples that were looked at.
    called: bool[N].
    confidence: in (0, 1).

  Returns:
    0 to the number of those called.

  Raises:
    ValueError: a p-value or the confidence is out of its range, or the shapes do not fit.
  """
  p_values = _check_p_values(p_values)
  called = check_numbers("called", called)
  if called.dtype != np.bool_ or called.shape != p_values.shape:
    raise ValueError(
      f"called is {called.dtype}{list(called.shape)}; expected bool{list(p_values.shape)}."
    )
  k, within = _within(p_values, p_values[called], confidence)
  num = int(called.sum())
  return int(min(num, np.min(num - within + k - 1, initial=num)))


def most_named(p_values: ArrayLike, share: float, *, confidence: float = 0.95) -> int:
  """The most samples that can be named so that surely at most `share` of them are no members.

  "Surely" is with a chance of at least `confidence`: `false_discovery_bound` of the samples of
  the least p-values, for every number of them.

  Args:
    p_values: f[N], in [0, 1].
    share: in (0, 1).
    confidence: in (0, 1).

  Returns:
    How many; 0 where nobody can be named.

  Raises:
    ValueError: as by `false_discovery_bound`.
  """
  p_values = _check_p_values(p_values)
  check_open("share", share, 0.0, 1.0)
  k, within = _within(p_values, p_values, confidence)
  # Of the R least p-values at most max(R - within, 0) + k - 1 are false: no more than the share
  # up to this R, if that is so at R = within.
  largest = (within - k + 1.0) / (1.0 - share) * (1.0 + 1e-12)
  return int(min(np.max(np.floor(largest[largest >= within]), initial=0.0), len(p_values)))


def _within(p_values, called, confidence):
  """Every k from 1 to N, and how many of those called are within its threshold."""
  check_open("confidence", confidence, 0.0, 1.0)
  k = np.arange(1, len(p_values) + 1)
  thresholds = (1.0 - confidence) * k / max(len(k), 1) * (1.0 + 1e-12)
  return k, np.searchsorted(np.sort(called), thresholds, "right")


def _check_vector(name, values):
  values = check_numbers(name, values).astype(np.float64)
  if values.ndim != 1 or np.isnan(values).any():
    raise ValueError(
      f"{name} has shape {list(values.shape)} and {np.isnan(values).sum()} NaN; expected one "
      "axis of numbers."
    )
  return values


def _check_p_values(p_values):
  p_values = _check_vector("p_values", p_values)
  if not np.all((p_values >= 0.0) & (p_values <= 1.0)):
    raise ValueError("p_values has values outside [0, 1]; expected those of a test.")
  return p_values
