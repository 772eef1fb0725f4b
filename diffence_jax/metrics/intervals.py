"""Estimates with their 95% intervals."""

from typing import NamedTuple

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.checks import check_numbers, check_open, check_whole

LEVEL = 0.95


class Estimate(NamedTuple):
  """A figure and its 95% confidence interval.

  Attributes:
    value: the estimate.
    low: lower end of the interval.
    high: upper end.
  """

  value: float
  low: float
  high: float


def clopper_pearson(count: int, num: int, level: float = LEVEL) -> tuple[float, float]:
  """The exact interval of a binomial proportion (Clopper & Pearson 1934).

  Args:
    count: successes, 0 to `num`.
    num: trials, at least 1.
    level: confidence, in (0, 1).

  Returns:
    (low, high), in [0, 1].

  Raises:
    ValueError: the counts are not possible, or the level is out of range.
  """
  check_whole("num", num, 1)
  check_whole("count", count, 0, num)
  check_open("level", level, 0.0, 1.0)
  tail = (1.0 - level) / 2.0
  low = scipy.special.betaincinv(count, num - count + 1, tail) if count else 0.0
  high = scipy.special.betaincinv(count + 1, num - count, 1.0 - tail) if count < num else 1.0
  return float(low), float(high)


def proportion(count: int, num: int) -> Estimate:
  """`count / num` with its Clopper-Pearson interval."""
  low, high = clopper_pearson(count, num)  # which checks the counts
  return Estimate(count / num, low, high)


def balanced_accuracy(
  true_positives: int, num_members: int, false_positives: int, num_nonmembers: int
) -> Estimate:
  """The mean of TPR and TNR, from the exact intervals of both.

  Each rate's interval is taken at 97.5%, so that both hold at once with at least 95%.

  Args:
    true_positives: members called members.
    num_members: members.
    false_positives: non-members called members.
    num_nonmembers: non-members.

  Returns:
    The estimate.

  Raises:
    ValueError: the counts are not possible.
  """
  check_whole("num_members", num_members, 1)
  check_whole("true_positives", true_positives, 0, num_members)
  check_whole("num_nonmembers", num_nonmembers, 1)
  check_whole("false_positives", false_positives, 0, num_nonmembers)
  level = 1.0 - (1.0 - LEVEL) / 2.0
  tpr, fpr = true_positives / num_members, false_positives / num_nonmembers
  tpr_low, tpr_high = clopper_pearson(true_positives, num_members, level)
  fpr_low, fpr_high = clopper_pearson(false_positives, num_nonmembers, level)
  return Estimate(
    (tpr + 1.0 - fpr) / 2.0, (tpr_low + 1.0 - fpr_high) / 2.0, (tpr_high + 1.0 - fpr_low) / 2.0
  )


def auc_interval(
  members: np.ndarray, nonmembers: np.ndarray, auc: float
) -> tuple[float, float]:
  """The 95% interval of an AUC (DeLong et al. 1988), on the logit scale.

  Where the estimated variance is 0 (separated or constant scores) it says nothing about the
  uncertainty; the interval is then that of a proportion among as many trials as the smaller
  side has samples, which the largest possible variance of an AUC, A(1-A)/min(m, n), allows.

  Args:
    members: f64[m], scores.
    nonmembers: f64[n], scores.
    auc: their AUC, ties counted half.

  Returns:
    (low, high), in [0, 1].
  """
  variance = sum(
    np.var(placements, ddof=1) / len(placements) if len(placements) > 1 else 0.25
    for placements in (
      placements(members, nonmembers),
      placements(nonmembers, members),
    )
  )
  if variance <= 1e-12 or not 0.0 < auc < 1.0:
    num = min(len(members), len(nonmembers))
    low, _ = clopper_pearson(int(np.floor(auc * num)), num)
    _, high = clopper_pearson(int(np.ceil(auc * num)), num)
    return low, high
  logit = np.log(auc / (1.0 - auc))
  margin = scipy.special.ndtri((1.0 + LEVEL) / 2.0) * np.sqrt(variance) / (auc * (1.0 - auc))
  return tuple(float(scipy.special.expit(end)) for end in (logit - margin, logit + margin))


def placements(scores, others):
  """For every score, the share of `others` that lie below it, ties counted half."""
  others = np.sort(others)
  below = np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")
  return below / (2.0 * len(others))


def t_interval(values: ArrayLike) -> Estimate:
  """The mean of a few independent runs and its 95% interval by Student's t.

  It takes the runs' figures for normally distributed. With two or three of them it is wide: the
  quantile is 12.7 or 4.3 where many have 1.96.

  Args:
    values: f[n], n at least 2.

  Returns:
    The estimate; its interval is not cut at the ends of a range such as [0, 1].

  Raises:
    ValueError: there are fewer than two values.
  """
  values = check_numbers("values", values).astype(np.float64)
  if values.ndim != 1 or len(values) < 2:
    raise ValueError(f"values have shape {list(values.shape)}; expected at least two numbers.")
  mean = float(values.mean())
  quantile = float(scipy.special.stdtrit(len(values) - 1, (1.0 + LEVEL) / 2.0))
  half = quantile * float(values.std(ddof=1)) / len(values) ** 0.5
  return Estimate(mean, mean - half, mean + half)
