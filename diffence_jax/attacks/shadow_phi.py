"""What shadow models tell of every example's phi: its mean and variance, IN and OUT.

Nothing of the size of all shadow predictions is made in memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.checks import check_numbers

# Of the float64 temporaries of one block of examples: the values and two more of their size.
_BLOCK_BYTES = 2**26
_NUM_TEMPORARIES = 3

# The least variance, as a share of the global one: only a guard against division by 0.
_LEAST_VARIANCE = 1e-12
# Sums of squares of larger ones are infinite in float64.
_LARGEST_PHI = 1e150


class Side(NamedTuple):
  """The phi of every example over the shadow models of one side.

  Attributes:
    counts: f64[N,1], models of the side.
    means: f64[N,Q].
    variances: f64[N,Q], unbiased; 0 where there is one model.
    pooled: f64[Q], of residuals from every example's mean, by their degrees of freedom.
  """

  counts: np.ndarray
  means: np.ndarray
  variances: np.ndarray
  pooled: np.ndarray

  @property
  def freedom(self) -> np.ndarray:
    """Degrees of freedom f64[N,1] of the variances."""
    return self.counts - 1.0

  def bounded(self, variances: np.ndarray) -> np.ndarray:
    """Variances f64[N,Q] of at least 1e-12 of the pooled one (1e-12 where that is 0)."""
    return np.maximum(
      variances, _LEAST_VARIANCE * np.where(self.pooled > 0.0, self.pooled, 1.0)
    )


def fit_sides(
  target_phi: ArrayLike,
  shadow_phi: ArrayLike,
  membership: ArrayLike,
  *,
  online: bool,
  least: int = 1,
) -> tuple[np.ndarray, Side, Side | None]:
  """Checks the arguments of an attack by phi, and fits both sides.

  An infinite phi, of a probability that is 0 or 1, is taken for the largest finite |phi| of all
  models and examples, with its sign.

  Args:
    target_phi: f[N] or f[N,Q], of the model under attack.
    shadow_phi: f[S,N] or f[S,N,Q], of the shadow models; an `np.memmap` is read in blocks of
      examples.
    membership: bool[S,N], True where a shadow model was trained with the example.
    online: IN models are needed too, not only OUT models.
    least: models that each example needs on a side.

  Returns:
    The target's phi f64[N,Q], the OUT side, and the IN side; None for that offline.

  Raises:
    ValueError: the shapes do not fit, membership is not boolean, a phi is NaN, none is finite
      or a finite one is beyond 1e150, or a side in use has too few models: `least` for each
      example, two for some example.
  """
  target, shadow = _check_phi(target_phi, shadow_phi)
  membership = check_membership(membership, shadow.shape[:2], online=online, least=least)
  limit = largest_finite(target, shadow)
  outside = _fit(shadow, ~membership, limit, "OUT")
  inside = _fit(shadow, membership, limit, "IN") if online else None
  return np.clip(target, -limit, limit), outside, inside


def check_membership(
  membership: ArrayLike,
  shape: tuple[int, int],
  *,
  online: bool,
  least: int = 1,
  name: str = "membership",
) -> np.ndarray:
  """Returns membership bool[S,N]; raises ValueError unless every example has its models.

  Args:
    membership: bool[S,N].
    shape: the expected (S, N).
    online: IN models are needed too, not only OUT models.
    least: models that each example needs on a side.
    name: of the argument, for messages.

  Returns:
    bool[S,N].
  """
  membership = check_numbers(name, membership)
  if membership.shape != shape or membership.dtype != np.bool_:
    raise ValueError(
      f"{name} is {membership.dtype}{list(membership.shape)}; expected bool{list(shape)}."
    )
  num_in = membership.sum(axis=0)
  sides = {"IN": num_in} if online else {}
  for side, count in (sides | {"OUT": len(membership) - num_in}).items():
    few = np.flatnonzero(count < least)
    if few.size:
      raise ValueError(
        f"{few.size} of {count.size} examples have {'no' if least == 1 else 'less than two'} "
        f"{side} models, the first at index {few[0]} of {name}; expected at least {least}."
      )
  return membership


def _check_phi(target, shadow):
  """Returns target f64[N,Q] and shadow f[S,N,Q], a view."""
  target = check_numbers("target_phi", target).astype(np.float64)
  shadow = check_numbers("shadow_phi", shadow)
  if target.ndim not in (1, 2) or shadow.shape[1:] != target.shape or 0 in shadow.shape:
    raise ValueError(
      f"Got target_phi {list(target.shape)} and shadow_phi {list(shadow.shape)}; expected [N] "
      "and [S, N], or [N, Q] and [S, N, Q], none of them 0."
    )
  return (target[:, None], shadow[:, :, None]) if target.ndim == 1 else (target, shadow)


def _blocks(shadow) -> Iterator[tuple[slice, np.ndarray]]:
  """Blocks of examples and their values f64[S,n,Q]."""
  num_models, num_examples, num_queries = shadow.shape
  size = max(1, _BLOCK_BYTES // (_NUM_TEMPORARIES * 8 * num_models * num_queries))
  for start in range(0, num_examples, size):
    part = slice(start, start + size)
    yield part, np.asarray(shadow[:, part], np.float64)


def largest_finite(target: np.ndarray, shadow: np.ndarray) -> float:
  """The largest finite |phi| of the target's f[N,Q] and the shadow models' f[S,N,Q].

  Raises:
    ValueError: a phi is NaN, none is finite, or a finite one is beyond 1e150.
  """
  largest = -1.0
  for name, blocks in (("target_phi", [(..., target)]), ("shadow_phi", _blocks(shadow))):
    for _, values in blocks:
      if np.isnan(values).any():
        raise ValueError(f"{name} has NaN; expected numbers. Check the logits it is made of.")
      largest = max(largest, np.max(np.abs(values), where=np.isfinite(values), initial=-1.0))
  if largest < 0.0:
    raise ValueError("No phi is finite; expected some that are.")
  if largest > _LARGEST_PHI:
    raise ValueError(
      f"The largest finite phi is {largest:.3g}; expected at most {_LARGEST_PHI:.0e}, as its "
      "square must be a number. Check the logits it is made of."
    )
  return largest


def _fit(shadow, members, limit, side):
  """One side: the models in `members`."""
  means = np.empty(shadow.shape[1:])
  squares = np.empty(shadow.shape[1:])
  counts = members.sum(axis=0)[:, None]
  for part, values in _blocks(shadow):
    weights = members[:, part].astype(np.float64)
    residuals = np.clip(values, -limit, limit)
    means[part] = np.einsum("sn,snq->nq", weights, residuals) / counts[part]
    residuals -= means[part]
    residuals *= weights[:, :, None]
    squares[part] = np.einsum("snq,snq->nq", residuals, residuals)
  freedom = counts - 1.0
  if not freedom.any():
    raise ValueError(f"No example has two {side} models; a variance needs two.")
  variances = squares / np.maximum(freedom, 1.0)
  return Side(freedom + 1.0, means, variances, squares.sum(axis=0) / freedom.sum())


def variance_prior(
  variances: np.ndarray, freedom: np.ndarray, pooled: float
) -> tuple[float, float]:
  """The variances' common prior and its degrees of freedom, by moments of the log variances.

  Smyth 2004, "Linear models and empirical Bayes methods", section 6.2: a scaled inverse
  chi-squared. As its program (limma) does, takes the pooled variance where the degrees of
  freedom are infinite, and moves variances of 0 up to 1e-5 of the median.

  Args:
    variances: f64[N], unbiased.
    freedom: f64[N], their degrees of freedom; those without any are left out.
    pooled: their mean, weighted by degrees of freedom.

  Returns:
    The prior variance, and its degrees of freedom, infinite where the variances are spread no
    more than sampling makes them.
  """
  variances, freedom = variances[freedom > 0.0], freedom[freedom > 0.0]
  if len(variances) < 2 or pooled == 0.0:
    return pooled, np.inf
  least = 1e-5 * np.median(variances[variances > 0.0])
  half = freedom / 2.0
  logs = np.log(np.maximum(variances, least)) - scipy.special.digamma(half) + np.log(half)
  excess = np.var(logs, ddof=1) - np.mean(scipy.special.polygamma(1, half))
  if excess <= 0.0:
    return pooled, np.inf
  prior_half = _inverse_trigamma(excess)
  prior = np.exp(np.mean(logs) + scipy.special.digamma(prior_half) - np.log(prior_half))
  return prior, 2.0 * prior_half


def _inverse_trigamma(value):
  """Solves trigamma(y) = value > 0 by the Newton iteration of Smyth 2004's appendix."""
  y = 0.5 + 1.0 / value
  # Converges from one side, and quadratically: 30 steps are plenty between 1e-17 and 1e8.
  for _ in range(30):
    trigamma = scipy.special.polygamma(1, y)
    y += trigamma * (1.0 - trigamma / value) / scipy.special.polygamma(2, y)
  return y
