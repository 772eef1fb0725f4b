"""How well an attack tells single examples: each one's AUC over models, and its quantiles.

One example has as many scores as there are models. Leave a pair of models out in turn, and each
score is by another fit, which goes against its own model: a member with a high answer is
missing from the mean over members that it is judged by. Comparing such scores with each other
gives an AUC that is too low on average (0.458 with 64 models, where nothing leaks). So models
are attacked fold by fold, each by the models of all other folds, and scores are compared within
folds only: both of a comparison are then by one fit, which knows neither of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from diffence_jax.metrics.intervals import LEVEL

# An interval from fewer folds would be a guess.
LEAST_FOLDS = 4
# Pairs of models in a fold, where there are enough of them: larger folds compare more scores,
# and leave fewer shadow models.
_PAIRS_IN_FOLD = ((16, 4), (4, 2), (0, 1))
_TAIL = (1.0 - LEVEL) / 2.0


class ExampleAucs(NamedTuple):
  """Every example's own AUC over models, with its 95% interval.

  Attributes:
    auc: f64[N], NaN for an example of which no fold has a member and a non-member.
    low: f64[N], lower ends, 0 where there is no AUC.
    high: f64[N], upper ends, 1 where there is none.
  """

  auc: np.ndarray
  low: np.ndarray
  high: np.ndarray


class Quantile(NamedTuple):
  """A quantile over examples of their AUCs.

  Attributes:
    value: the quantile.
    low: lower end of its 95% interval, about other models and other examples; None where it
      cannot be had.
    high: upper end.
    by_chance: the same quantile where memberships are drawn at random, and the attack is run
      anew with them.
  """

  value: float
  low: float | None
  high: float | None
  by_chance: float


def model_folds(groups: np.ndarray, membership: np.ndarray) -> np.ndarray:
  """The fold i[S] of every model.

  Models that are not independent stay in one fold: four pairs of models with 32 models or more,
  two with 8 or more, else one. Fewer where some example would otherwise have no model with it,
  or none without it, outside of a fold.

  Args:
    groups: i[S], rising from 0: which pair a model is of.
    membership: bool[S,N].
  """
  num = int(groups.max()) + 1
  sizes = [size for least, size in _PAIRS_IN_FOLD if num >= least]
  for size in sizes:
    folds = groups * max(num // size, 1) // num
    inside = np.stack([membership[folds != k].sum(axis=0) for k in range(folds.max() + 1)])
    outside = np.bincount(folds).sum() - np.bincount(folds)[:, None] - inside
    if (inside > 0).all() and (outside > 0).all():
      break
  return folds


def permuted_in_folds(
  membership: np.ndarray, folds: np.ndarray, draw: np.random.Generator
) -> np.ndarray:
  """Memberships bool[S,N] drawn anew, with as many members of every example in every fold."""
  drawn = np.empty_like(membership)
  for fold in range(folds.max() + 1):
    drawn[folds == fold] = draw.permuted(membership[folds == fold], axis=0)
  return drawn


def example_aucs(scores: np.ndarray, membership: np.ndarray, folds: np.ndarray) -> ExampleAucs:
  """For every example the AUC of its scores by models with it against those without.

  The interval is that of a proportion of as many trials as the smaller side has models, which
  the largest possible variance of an AUC allows (Birnbaum & Klose 1957).

  Args:
    scores: f[S,N], higher for likelier members, of each fold by the models of the others.
    membership: bool[S,N].
    folds: i[S], as of `model_folds`.
  """
  wins, pairs, trials = _compared(scores, membership, folds)
  with np.errstate(invalid="ignore"):
    auc = wins.sum(axis=0) / pairs.sum(axis=0)
  num = trials.sum(axis=0)
  low = scipy.stats.beta.ppf(_TAIL, auc * num, (1.0 - auc) * num + 1.0)
  high = scipy.stats.beta.ppf(1.0 - _TAIL, auc * num + 1.0, (1.0 - auc) * num)
  # A beta distribution without one of its ends is all at it.
  return ExampleAucs(auc, np.nan_to_num(low, nan=0.0), np.nan_to_num(high, nan=1.0))


def auc_quantiles(
  scores: np.ndarray,
  membership: np.ndarray,
  folds: np.ndarray,
  by_chance: np.ndarray,
  quantiles: Sequence[float],
) -> list[Quantile]:
  """Quantiles over examples of `example_aucs`, with intervals and beside those by chance.

  The interval is about the same quantile of an audit with as many other models, of other
  examples. It is made of ranks (Woodruff 1952): the share F of examples up to the quantile has
  the variance that leaving out fold by fold shows, and that of counting examples, added up; the
  examples are taken for as many independent ones as would have that variance (Korn & Graubard
  1998). It cannot be had of the highest, which no sample bounds, nor with fewer than 4 folds.

  Args:
    scores: f[S,N], as of `example_aucs`.
    membership: bool[S,N].
    folds: i[S].
    by_chance: f64[N], the examples' AUCs with memberships drawn at random, NaN as there.
    quantiles: in [0, 1].

  Returns:
    As many.
  """
  wins, pairs, _ = _compared(scores, membership, folds)
  compared = pairs.sum(axis=0) > 0
  wins, pairs = wins[:, compared], pairs[:, compared]
  aucs = wins.sum(axis=0) / pairs.sum(axis=0)
  values = np.quantile(aucs, quantiles)
  chance = np.quantile(by_chance[~np.isnan(by_chance)], quantiles)
  with np.errstate(invalid="ignore"):
    without = (wins.sum(axis=0) - wins) / (pairs.sum(axis=0) - pairs)
  found = []
  for at, (value, drawn) in enumerate(zip(values.tolist(), chance.tolist(), strict=True)):
    ends = (None, None)
    if len(wins) >= LEAST_FOLDS and quantiles[at] < 1.0:
      ends = _ends(aucs, without, value, quantiles[at])
    found.append(Quantile(value, *ends, drawn))
  return found


def _ends(aucs, without, value, quantile):
  """The ends of a quantile's interval, from the AUCs f64[K,N] without each fold."""
  num_folds, num = without.shape
  # Of examples that are compared in that fold alone nothing is left without it.
  shares = np.nanmean(np.where(np.isnan(without), np.nan, without <= value), axis=1)
  of_folds = (num_folds - 1) / num_folds * np.sum((shares - shares.mean()) ** 2)
  of_examples = quantile * (1.0 - quantile) / num
  variance = of_folds + of_examples
  freedom = variance**2 / (of_folds**2 / (num_folds - 1) + of_examples**2 / max(num - 1, 1))
  wider = scipy.stats.t.ppf(1.0 - _TAIL, freedom) / scipy.stats.norm.ppf(1.0 - _TAIL)
  independent = quantile * (1.0 - quantile) / (variance * wider**2)
  below, above = quantile * independent, (1.0 - quantile) * independent
  low, high = np.quantile(
    aucs,
    [
      scipy.stats.beta.ppf(_TAIL, below, above + 1.0),
      scipy.stats.beta.ppf(1.0 - _TAIL, below + 1.0, above),
    ],
  )
  return min(float(low), value), max(float(high), value)


def _compared(scores, membership, folds):
  """In every fold how often a member is above a non-member, of how many pairs, and the smaller
  side's number: f64[K,N] each.
  """
  shape = folds.max() + 1, scores.shape[1]
  wins, pairs, trials = (np.zeros(shape) for _ in range(3))
  for fold in range(len(wins)):
    inside = membership[folds == fold]
    ranks = scipy.stats.rankdata(scores[folds == fold], axis=0)
    count = inside.sum(axis=0)
    wins[fold] = np.sum(ranks * inside, axis=0) - count * (count + 1) / 2.0
    pairs[fold] = count * (len(inside) - count)
    trials[fold] = np.minimum(count, len(inside) - count)
  return wins, pairs, trials
