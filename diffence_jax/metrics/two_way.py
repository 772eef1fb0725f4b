"""Variances of figures pooled over target models, whose scores share models and samples.

A figure of scores f[T,N], of T models about N samples, is nearly a sum of one small share (its
influence) for every score. Shares of one model have its training run in common, shares of one
sample what is special about it and, where models are attacked in turn, its shadow models. So
two scores may go together if either is the same, and the variance of the sum is

  V = V_models + V_samples - V_both,

each the sum of the squares of what the scores of one model, of one sample, or of both, add up
to (Cameron, Gelbach and Miller 2011, "Robust inference with multiway clustering"). It is taken
to be at least each of the first two, which it is but for sampling.

Influence is first order. Of few models that are each other's shadow models it misses much: how
far levels of whole models lie apart, and that another model changes all others' scores. What a
jackknife over models sees that attacks anew without each of them (Efron and Stein 1981: rather
too much than too little) then takes the place of V_models.
"""

from typing import NamedTuple

import numpy as np
import scipy.special

from diffence_jax.metrics.intervals import LEVEL


class Spread(NamedTuple):
  """A variance and how well it is known.

  Attributes:
    variance: of the figure.
    freedom: degrees of freedom (Satterthwaite 1946), at least those of the models alone.
  """

  variance: float
  freedom: float

  @property
  def quantile(self) -> float:
    """Student's quantile for a 95% interval: so many standard errors on each side."""
    return float(scipy.special.stdtrit(self.freedom, (1.0 + LEVEL) / 2.0))


class Design(NamedTuple):
  """What shared models and samples do to a pair of rates of errors and of hits.

  Attributes:
    errors: by how much the variance of the rate of errors is larger than that of as many
      independent scores; at least 1.
    hits: the same for the rate of hits.
    correlation: of the two rates, 0 to 0.95.
    quantile: as of `Spread`.
  """

  errors: float = 1.0
  hits: float = 1.0
  correlation: float = 0.0
  quantile: float = float(scipy.special.ndtri((1.0 + LEVEL) / 2.0))


def spread(
  shares: np.ndarray, models: np.ndarray, jackknife: np.ndarray | None = None
) -> Spread:
  """The two-way variance of a sum.

  Args:
    shares: f64[T,N], the influence of every score, summing to 0; 0 for a score that is not
      part of the figure.
    models: i[T], which model (or group of models that are not independent) a row is of, 0 to
      at least 1.
    jackknife: f64[G], the figure found anew without each of the G models; None for none.
  """
  by_model, *others = _products(shares, shares, models)
  if jackknife is not None:
    by_model = max(by_model, _jackknife_variance(jackknife))
  return _spread((by_model, *others), shares.shape[1], models)


def design(called: np.ndarray, membership: np.ndarray, models: np.ndarray) -> Design:
  """The design of the rates at one threshold.

  Args:
    called: bool[T,N], the scores above it.
    membership: bool[T,N], who is a member: of these the rate is of hits, of the others of
      errors.
    models: as for `spread`.
  """
  errors, hits = (_rate_shares(called, side) for side in (~membership, membership))
  spreads, effects = [], []
  for shares, side in ((errors, ~membership), (hits, membership)):
    rate, num = called[side].mean(), side.sum()
    spreads.append(spread(shares, models))
    independent = rate * (1.0 - rate) / num
    effects.append(max(spreads[-1].variance / independent, 1.0) if independent else 1.0)
  shared = _two_way(_products(errors, hits, models))
  scale = np.sqrt(spreads[0].variance * spreads[1].variance)
  return Design(
    *effects,
    correlation=float(np.clip(shared / scale, 0.0, 0.95)) if scale else 0.0,
    quantile=max(side_spread.quantile for side_spread in spreads),
  )


def _jackknife_variance(jackknife):
  """The variance of a figure that was found anew without each of G models."""
  num = len(jackknife)
  return float((num - 1) / num * np.sum((jackknife - np.mean(jackknife)) ** 2))


def _rate_shares(called, side):
  shares = np.where(side, called - called[side].mean(), 0.0)
  return shares / side.sum()


def _products(a, b, models):
  """The sums of products by model, by sample and by both."""
  num = models.max() + 1
  cells = [np.zeros((num, a.shape[1])) for _ in range(2)]
  for cell, shares in zip(cells, (a, b), strict=True):
    np.add.at(cell, models, shares)
  first, second = cells
  by_model = first.sum(axis=1) @ second.sum(axis=1) * num / (num - 1)
  return by_model, first.sum(axis=0) @ second.sum(axis=0), np.sum(first * second)


def _two_way(products):
  by_model, by_sample, by_both = products
  return by_model + by_sample - by_both


def _spread(products, num_samples, models):
  by_model, by_sample, by_both = products
  variance = max(by_model, by_sample, _two_way(products))
  freedom = models.max()
  if variance <= 0.0:
    return Spread(0.0, float(freedom))
  others = max(num_samples - 1, 1)
  uncertain = by_model**2 / freedom + by_sample**2 / others + by_both**2 / (freedom * others)
  return Spread(float(variance), float(max(variance**2 / uncertain, freedom)))
