"""The ROC of an attack, with error bars, down to low false-positive rates."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.checks import check_numbers, check_range
from diffence_jax.metrics.intervals import (
  Estimate,
  auc_interval,
  balanced_accuracy,
)
from diffence_jax.metrics.rates import rate_interval

# Below this many expected errors a rate hangs on single samples.
_ENOUGH_ERRORS = 10


class Rate(NamedTuple):
  """How often an attack is right while it is wrong at most so often.

  Attributes:
    value: the rate, TPR (or TNR), of a threshold chosen on the very sample, as everybody
      reports it. It is a little high: a new non-member lies above the threshold with chance
      (count + 1) / (num + 1), not `limit`.
    low: lower end of its 95% interval, which allows for the threshold's own sampling and so
      for that (`rates.rate_interval`).
    high: upper end.
    limit: the FPR (FNR) asked for.
    realised: the largest FPR (FNR) up to the limit that a threshold on this sample gives.
    count: the false positives (negatives) behind it.
    num: the non-members (members) they are out of.
    enough: False where fewer than 10 errors are expected at the limit: the sample is too
      small for this rate.
  """

  value: float
  low: float
  high: float
  limit: float
  realised: float
  count: int
  num: int
  enough: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Roc:
  """All trade-offs of an attack that calls a sample a member from a threshold upwards.

  Attributes:
    thresholds: f64[T], falling from +inf; a sample is called a member at score >= threshold.
    true_positives: i64[T], members called members.
    false_positives: i64[T], non-members called members.
    auc: area under the curve: the chance that a member scores above a non-member, ties half.
    auc_interval: its 95% interval (DeLong).
    num_members: members scored.
    num_nonmembers: non-members scored.
  """

  thresholds: np.ndarray
  true_positives: np.ndarray
  false_positives: np.ndarray
  auc: float
  auc_interval: tuple[float, float]
  num_members: int
  num_nonmembers: int

  @property
  def tpr(self) -> np.ndarray:
    """f64[T], true-positive rates, rising from 0 to 1."""
    return self.true_positives / self.num_members

  @property
  def fpr(self) -> np.ndarray:
    """f64[T], false-positive rates, rising from 0 to 1."""
    return self.false_positives / self.num_nonmembers

  @property
  def accuracy(self) -> float:
    """The best balanced accuracy over all thresholds."""
    return self.best_accuracy.value

  @property
  def best_accuracy(self) -> Estimate:
    """The best balanced accuracy; its interval takes the threshold as given."""
    best = np.argmax(self.tpr - self.fpr)
    return balanced_accuracy(
      int(self.true_positives[best]),
      self.num_members,
      int(self.false_positives[best]),
      self.num_nonmembers,
    )

  @property
  def best_threshold(self) -> float:
    """A finite threshold of the best balanced accuracy, midway to the next lower score."""
    best = 1 + np.argmax((self.tpr - self.fpr)[1:])
    score, lower = np.append(self.thresholds, -np.inf)[best : best + 2]
    with np.errstate(invalid="ignore"):
      middle = (score + lower) / 2.0
    # Between neighbouring floats the middle rounds to one of them, perhaps to the lower.
    return float(np.nan_to_num(middle if lower < middle < np.inf else score))

  def tpr_at_fpr(self, limit: float, *, strict: bool = False) -> Rate:
    """The highest TPR of a threshold whose FPR is at most `limit`, in [0, 1].

    Args:
      limit: the FPR.
      strict: takes only an FPR below the limit, as the published code does.

    Returns:
      The rate.

    Raises:
      ValueError: the limit is outside [0, 1], or 0 where it is strict.
    """
    errors, hits = self.false_positives, self.true_positives
    return _rate(limit, strict, errors, self.num_nonmembers, hits, self.num_members)

  def tnr_at_fnr(self, limit: float, *, strict: bool = False) -> Rate:
    """The highest TNR of a threshold whose FNR is at most `limit`; see `tpr_at_fpr`."""
    errors = (self.num_members - self.true_positives)[::-1]
    hits = (self.num_nonmembers - self.false_positives)[::-1]
    return _rate(limit, strict, errors, self.num_members, hits, self.num_nonmembers)


def roc(member_scores: ArrayLike, nonmember_scores: ArrayLike) -> Roc:
  """The ROC of scores where higher means more likely a member.

  Args:
    member_scores: f[m], m at least 1; infinite scores are fine.
    nonmember_scores: f[n], n at least 1.

  Returns:
    The curve, in float64.

  Raises:
    ValueError: a side is empty, not of rank 1 or has NaN in it.

  Example:
    >>> import diffence_jax as dj
    >>> curve = dj.metrics.roc([3.0, 2.0, 1.0], [2.5, 0.5, 0.0, -1.0])
    >>> round(curve.auc, 3)  # 10 of 12 pairs are in order
    0.833
    >>> round(float(curve.tpr_at_fpr(0.25).value), 3)
    1.0
  """
  members = _check_scores(member_scores, "member_scores")
  nonmembers = _check_scores(nonmember_scores, "nonmember_scores")
  values = np.unique(np.concatenate([members, nonmembers]))[::-1]

  def at_least(scores):
    return np.append(0, len(scores) - np.searchsorted(np.sort(scores), values, "left"))

  true_positives, false_positives = at_least(members), at_least(nonmembers)
  tpr, fpr = true_positives / len(members), false_positives / len(nonmembers)
  auc = float(np.trapezoid(tpr, fpr))
  return Roc(
    thresholds=np.append(np.inf, values),
    true_positives=true_positives,
    false_positives=false_positives,
    auc=auc,
    auc_interval=auc_interval(members, nonmembers, auc),
    num_members=len(members),
    num_nonmembers=len(nonmembers),
  )


def _rate(limit, strict, errors, num, hits, num_hits):
  """`errors` and `hits` rise together; takes the last point within the limit."""
  rate = _rate_alone(limit, strict, errors, num, hits, num_hits)
  low, high = rate_interval(hits, errors, limit)
  return rate._replace(low=min(low, rate.value), high=max(high, rate.value))


def rate_without_interval(curve: Roc, limit: float) -> Rate:
  """`curve.tpr_at_fpr(limit)` for who finds an interval of his own: its ends are the value."""
  errors, hits = curve.false_positives, curve.true_positives
  return _rate_alone(limit, False, errors, curve.num_nonmembers, hits, curve.num_members)


def _rate_alone(limit, strict, errors, num, hits, num_hits):
  check_range("limit", limit, 0.0, 1.0)
  if strict and limit == 0.0:
    raise ValueError("No rate is below 0; expected a limit above 0, or strict=False.")
  # A limit such as 0.29 of 100 must allow 29 errors, or 28 if strict, in spite of rounding.
  last = np.flatnonzero(errors <= limit * num + (-1e-9 if strict else 1e-9))[-1]
  value = float(hits[last] / num_hits)
  return Rate(
    value=value,
    low=value,
    high=value,
    limit=limit,
    realised=float(errors[last] / num),
    count=int(errors[last]),
    num=num,
    enough=bool(limit * num >= _ENOUGH_ERRORS),
  )


def _check_scores(scores, name):
  scores = check_numbers(name, scores).astype(np.float64)
  if scores.ndim != 1 or not scores.size:
    raise ValueError(f"{name} have shape {scores.shape}; expected one axis, not empty.")
  if np.isnan(scores).any():
    raise ValueError(f"{name} have {np.isnan(scores).sum()} NaN; expected scores only.")
  return scores
