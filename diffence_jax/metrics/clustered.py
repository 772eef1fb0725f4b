"""One ROC over several target models, with intervals about other models and other samples.

The scores of one model share its training run, those of one sample its shadow models and what
is special about it. So intervals that count scores (DeLong, Clopper-Pearson) are too narrow
for scores pooled over models, and so are those that resample models alone. Here the variance
is two-way (`two_way.py`): about other models and other samples of the same kind.

What it does not see: models that are attacked in turn are each other's shadow models, so all
targets go together through them, much if they are few. Who has run attacks anew without each
model passes what came of it as `jackknife`. In simulations of LiRA with models in pairs, 8 and
12 of them with `jackknife`, 16 and 64 without, 95% intervals of an AUC held the truth in 93 to
100% of the runs; where models' levels differ as much as the answers of one sample do, in 92 to
95% with 8, 12 and 64 models, 90% with 16, and 78 to 79% with 8 without `jackknife`
(docs/statistics.md).

Where no variance is seen, or the estimate is as low or as high as it can be, that says nothing
about the uncertainty. A kind of model none of which is among T may still make up a share
u = 1 - 0.025^(1/T) of all models (Clopper & Pearson, 0 of T), so the interval is widened by
what such a share of models at the worst value could change.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.checks import check_numbers, check_type
from diffence_jax.metrics.intervals import Estimate, clopper_pearson, placements
from diffence_jax.metrics.rates import rate_interval
from diffence_jax.metrics.roc import Rate, Roc, rate_without_interval, roc
from diffence_jax.metrics.two_way import Spread, design, spread

_BAND_FPR = np.geomspace(1e-5, 1.0, 101)
# A threshold with fewer errors says too little about how scores go together.
_FEW_ERRORS = 10
# Variances below it are rounding.
_NO_VARIANCE = 1e-20


class Band(NamedTuple):
  """A pointwise 95% band around a ROC.

  Attributes:
    fpr: f64[P], false-positive rates, P = 101 at equal ratios from 1e-5 to 1.
    tpr: f64[P], the highest TPR of a threshold with at most that FPR.
    low: f64[P], lower end of its interval.
    high: f64[P], upper end.
  """

  fpr: np.ndarray
  tpr: np.ndarray
  low: np.ndarray
  high: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ClusteredRoc:
  """A ROC pooled over target models.

  Attributes:
    roc: the pooled curve. Its own intervals take all scores as independent and are too
      narrow.
    auc: the pooled area: the chance that a member of any model scores above a non-member of
      any model, ties half; and its interval.
    rates: TPR at the limits that were asked for; `low` and `high` allow for shared models and
      samples, all else is of the pooled scores, `enough` too.
    num_models: the target models T.
  """

  roc: Roc
  auc: Estimate
  rates: tuple[Rate, ...]
  num_models: int

  def tpr_at_fpr(self, limit: float) -> Rate:
    """The highest pooled TPR of a threshold whose pooled FPR is at most `limit`.

    Args:
      limit: one of the limits that `clustered_roc` was given.

    Returns:
      The rate.

    Raises:
      ValueError: the limit is another one.
    """
    for rate in self.rates:
      if rate.limit == limit:
        return rate
    raise ValueError(
      f"No rate was asked for at the limit {limit}; expected one of "
      f"{[rate.limit for rate in self.rates]}. Pass it to clustered_roc in `limits`."
    )


def clustered_roc(
  scores: ArrayLike,
  membership: ArrayLike,
  *,
  models: ArrayLike | None = None,
  limits: Sequence[float] = (0.001, 0.01),
  jackknife: ArrayLike | None = None,
) -> ClusteredRoc:
  """The ROC of an attack on T target models about the same N samples.

  Args:
    scores: f[T,N], higher means more likely a member of target t; infinite scores are fine.
    membership: bool[T,N], whether sample n is a member of target t.
    models: i[T], rows of the same number are not independent (a model and the one that was
      trained on the complement of its members); None if all are.
    limits: false-positive rates in [0, 1] for `ClusteredRoc.tpr_at_fpr`.
    jackknife: f[G], the pooled AUC where all is done anew without each of the G independent
      models, in rising order of their numbers, attacks among it: to be given where fewer than
      16 models are attacked by each other, of which the AUC's interval is too narrow otherwise.

  Returns:
    The pooled curve and its intervals, in float64.

  Raises:
    ValueError: the shapes do not fit, there are fewer than 2 independent models, a score is
      NaN, there is no member or no non-member, or a limit is not a rate.
  """
  scores, membership, models = check_scores(scores, membership, models)
  jackknife = check_jackknife("jackknife", jackknife, models)
  limits = check_type("limits", limits, Sequence[float])
  pooled = roc(scores[membership], scores[~membership])
  shares = auc_shares(scores, membership, pooled.auc)
  rates = []
  for limit in limits:
    rate = rate_without_interval(pooled, limit)
    interval = _rate_estimate(pooled, rate, scores, membership, models)
    rates.append(rate._replace(low=interval.low, high=interval.high))
  return ClusteredRoc(
    roc=pooled,
    auc=auc_estimate(pooled.auc, spread(shares, models, jackknife), models),
    rates=tuple(rates),
    num_models=len(scores),
  )


def clustered_band(
  scores: ArrayLike, membership: ArrayLike, *, models: ArrayLike | None = None
) -> Band:
  """The band around the curve of `clustered_roc`, of the same arguments and errors."""
  scores, membership, models = check_scores(scores, membership, models)
  pooled = roc(scores[membership], scores[~membership])
  points = [
    _rate_estimate(pooled, rate_without_interval(pooled, fpr), scores, membership, models)
    for fpr in _BAND_FPR
  ]
  return Band(_BAND_FPR.copy(), *(np.array(column) for column in zip(*points, strict=True)))


def clustered_difference(
  scores_a: ArrayLike,
  scores_b: ArrayLike,
  membership: ArrayLike,
  *,
  models: ArrayLike | None = None,
  jackknife_a: ArrayLike | None = None,
  jackknife_b: ArrayLike | None = None,
) -> Estimate:
  """The pooled AUC of A minus that of B, on the same targets and samples.

  What A and B share cancels: the interval says whether a defense changes the AUC.

  Args:
    scores_a: f[T,N], higher means more likely a member of target t.
    scores_b: f[T,N], of the other attack or predictor.
    membership: bool[T,N], whether sample n is a member of target t.
    models: as for `clustered_roc`.
    jackknife_a: as `jackknife` there, of A; with `jackknife_b` or not at all.
    jackknife_b: of B.

  Returns:
    The difference, in [-1, 1].

  Raises:
    ValueError: as by `clustered_roc`.
  """
  scores_a, members, models = check_scores(scores_a, membership, models, "scores_a")
  scores_b, _, _ = check_scores(scores_b, membership, models, "scores_b")
  pair = (scores_a, scores_b)
  a, b = (roc(scores[members], scores[~members]).auc for scores in pair)
  shares = np.subtract(
    *(auc_shares(scores, members, auc) for scores, auc in zip(pair, (a, b), strict=True))
  )
  a_anew = check_jackknife("jackknife_a", jackknife_a, models)
  b_anew = check_jackknife("jackknife_b", jackknife_b, models)
  if (a_anew is None) != (b_anew is None):
    raise ValueError("Got jackknife of one attack; expected jackknife_a and jackknife_b.")
  jackknife = None if a_anew is None else a_anew - b_anew
  difference_spread = spread(shares, models, jackknife)
  margin = difference_spread.quantile * np.sqrt(difference_spread.variance)
  value = a - b
  estimate = Estimate(value, max(value - margin, -1.0), min(value + margin, 1.0))
  nothing_seen = difference_spread.variance <= _NO_VARIANCE
  return _widened(estimate, models, nothing_seen=nothing_seen, lowest=-1.0)


def clustered_mean(
  values: np.ndarray, chosen: np.ndarray, *, models: np.ndarray, is_share: bool = False
) -> Estimate:
  """The mean over models of each one's mean over some samples.

  Args:
    values: f[T,N].
    chosen: bool[T,N], the samples of each model; at least one of every model.
    models: i[T], as for `clustered_roc`, numbered from 0.
    is_share: whether the values are in [0, 1]; then the interval is, and has a width where
      all are the same.
  """
  counts = chosen.sum(axis=1, keepdims=True)
  each = np.where(chosen, values, 0.0).sum(axis=1, keepdims=True) / counts
  mean = float(each.mean())
  mean_spread = spread(np.where(chosen, (values - mean) / (len(values) * counts), 0.0), models)
  margin = mean_spread.quantile * np.sqrt(mean_spread.variance)
  estimate = Estimate(mean, float(mean - margin), float(mean + margin))
  if not is_share:
    return estimate
  estimate = Estimate(mean, max(estimate.low, 0.0), min(estimate.high, 1.0))
  return _widened(estimate, models, nothing_seen=mean_spread.variance <= _NO_VARIANCE)


def check_scores(
  scores: ArrayLike, membership: ArrayLike, models: ArrayLike | None, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The arguments of `clustered_roc` as arrays, models numbered from 0; its errors."""
  scores = check_numbers(name, scores).astype(np.float64)
  membership = check_numbers("membership", membership)
  if scores.ndim != 2 or scores.shape != membership.shape:
    raise ValueError(
      f"Got {name} {list(scores.shape)} and membership {list(membership.shape)}; "
      "expected both [T, N]."
    )
  models = np.arange(len(scores)) if models is None else check_numbers("models", models)
  if models.shape != scores.shape[:1]:
    raise ValueError(f"Got models {list(models.shape)}; expected [{len(scores)}].")
  if np.isnan(scores).any():
    raise ValueError(f"{name} have {np.isnan(scores).sum()} NaN; expected scores only.")
  distinct, models = np.unique(models, return_inverse=True)
  if len(distinct) < 2:
    raise ValueError(
      f"Got {len(distinct)} independent model; the intervals are about other models, so "
      "expected at least 2. For one model use metrics.roc."
    )
  if membership.dtype != bool:
    raise ValueError(f"membership has dtype {membership.dtype}; expected bool.")
  if membership.all() or not membership.any():
    raise ValueError(
      f"{membership.sum()} of {membership.size} entries of membership are True; expected "
      "members and non-members."
    )
  return scores, membership, models


def check_jackknife(name: str, aucs: ArrayLike | None, models: np.ndarray) -> np.ndarray | None:
  """The AUCs f64[G] without each of the G independent models of i[T], or None; its errors."""
  if aucs is None:
    return None
  aucs, num = check_numbers(name, aucs).astype(np.float64), int(models.max()) + 1
  if aucs.shape != (num,) or not np.all((aucs >= 0.0) & (aucs <= 1.0)):
    raise ValueError(
      f"Got {name} {list(aucs.shape)}; expected an AUC in [0, 1] without each of the {num} "
      "independent models."
    )
  return aucs


def _rate_estimate(pooled, rate, scores, membership, models):
  """The TPR at a limit, with what models and samples share in its interval."""
  errors = pooled.false_positives
  at = np.searchsorted(errors, max(rate.limit * errors[-1] + 1e-9, _FEW_ERRORS), "right")
  threshold = pooled.thresholds[min(at, len(errors) - 1)]
  shared = design(scores > threshold, membership, models)
  low, high = rate_interval(pooled.true_positives, errors, rate.limit, shared)
  return _widened(Estimate(rate.value, low, high), models, nothing_seen=False)


def auc_shares(scores: np.ndarray, membership: np.ndarray, auc: float) -> np.ndarray:
  """What every score adds to the AUC's deviation, f64[T,N] (its influence function)."""
  members, nonmembers = scores[membership], scores[~membership]
  shares = np.empty(scores.shape)
  shares[membership] = (placements(members, nonmembers) - auc) / len(members)
  shares[~membership] = (1.0 - placements(nonmembers, members) - auc) / len(nonmembers)
  return shares


def auc_estimate(auc: float, auc_spread: Spread, models: np.ndarray) -> Estimate:
  """On the logit scale, as for one model."""
  if not 0.0 < auc < 1.0 or auc_spread.variance <= _NO_VARIANCE:
    return _widened(Estimate(auc, auc, auc), models, nothing_seen=True)
  margin = auc_spread.quantile * np.sqrt(auc_spread.variance) / (auc * (1.0 - auc))
  logit = scipy.special.logit(auc)
  low, high = scipy.special.expit([logit - margin, logit + margin])
  return Estimate(auc, float(low), float(high))


def _widened(estimate, models, *, nothing_seen, lowest=0.0):
  """Holds the estimate, and what unseen models may do; see the module."""
  value, low, high = estimate
  if nothing_seen or not lowest < value < 1.0:
    _, unseen = clopper_pearson(0, int(models.max()) + 1)
    low = min(low, (1.0 - unseen) * value + unseen * lowest)
    high = max(high, (1.0 - unseen) * value + unseen)
  return Estimate(value, float(min(low, value)), float(max(high, value)))
