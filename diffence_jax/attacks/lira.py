"""The likelihood ratio attack: every example against models with and without it.

Carlini et al. 2022, "Membership Inference Attacks From First Principles". The test statistic
phi of a prediction is fitted by a Gaussian over the shadow models that were trained with the
example (IN) and by another over those that were not (OUT); the target model's phi is then
judged by the two. Nothing of the size of all shadow predictions is made in memory.
"""

from collections.abc import Iterator

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.signals import phi_and_log_p
from diffence_jax.checks import check_choice, check_numbers, check_type

VARIANCES = ("per_example", "global", "shrunk")

# Of the float64 temporaries of one block of examples: the values and two more of their size.
_BLOCK_BYTES = 2**26
_NUM_TEMPORARIES = 3

# The least variance, as a share of the global one: only a guard against division by 0.
_LEAST_VARIANCE = 1e-12
# Sums of squares of larger ones are infinite in float64.
_LARGEST_PHI = 1e150


def lira(
  target_phi: ArrayLike,
  shadow_phi: ArrayLike,
  membership: ArrayLike,
  *,
  online: bool = True,
  variance: str = "per_example",
) -> np.ndarray:
  """The likelihood ratio attack (Carlini et al. 2022, algorithm 1).

  Online, the score of one query is log N(phi; mu_in, var_in) - log N(phi; mu_out, var_out).
  Offline it is log((1 - p) / p) of the one-sided p-value p = Pr[Z > phi], Z ~ N(mu_out,
  var_out): in the order of the paper's 1 - p, but telling apart what lies far out on either
  side, where 1 - p and the logarithm of p or of 1 - p round to a constant.

  Several queries count as independent given the model, and their scores are averaged. Online
  this is the log-likelihood ratio of Gaussians with diagonal covariances divided by Q, in the
  order of their sum; offline it is the logit method of combining p-values (Mudholkar & George
  1979). With one query it changes nothing.

  The variance of phi over models is, on each side and for each query:

  * "per_example": unbiased, every example's own. Wants many models.
  * "global": one for all examples, of residuals from every example's own mean, divided by
    their degrees of freedom. The paper's choice for few models.
  * "shrunk": the mean of the example's own variance and a prior one, weighted by their degrees
    of freedom; the prior's are estimated from the spread of the log variances over examples
    (Smyth 2004, "Linear models and empirical Bayes methods", section 6.2). It is the global
    variance where that spread is no more than sampling makes it.

  A variance is at least 1e-12 of the global one (1e-12 where that is 0). An infinite phi, of a
  probability that is 0 or 1, is taken for the largest finite |phi| of all models and examples,
  with its sign.

  Args:
    target_phi: f[N] or f[N,Q], of the model under attack.
    shadow_phi: f[S,N] or f[S,N,Q], of the shadow models; an `np.memmap` is read in blocks of
      examples.
    membership: bool[S,N], True where a shadow model was trained with the example.
    online: compares IN with OUT models; False uses OUT models only.
    variance: one of `VARIANCES`.

  Returns:
    f64[N], finite, higher for likelier members.

  Raises:
    ValueError: the shapes do not fit, membership is not boolean, a phi is NaN, none is finite
      or a finite one is beyond 1e150, `online` is no bool,
      the variance is unknown, or a side in use has too few models: it needs one for each
      example, "per_example" two, and the others two for some example.
  """
  check_variance(variance)
  check_type("online", online, bool)
  target, shadow = _check_phi(target_phi, shadow_phi)
  least = 2 if variance == "per_example" else 1
  membership = check_membership(membership, shadow.shape[:2], online=online, least=least)
  limit = _largest_finite(target, shadow)
  target = np.clip(target, -limit, limit)

  mean_out, variance_out = _fit(shadow, ~membership, limit, variance, "OUT")
  deviations_out = (target - mean_out) / np.sqrt(variance_out)
  if not online:
    log_ndtr = scipy.special.log_ndtr
    return np.mean(log_ndtr(deviations_out) - log_ndtr(-deviations_out), axis=-1)
  mean_in, variance_in = _fit(shadow, membership, limit, variance, "IN")
  deviations_in = (target - mean_in) / np.sqrt(variance_in)
  log_ratios = np.log(variance_out / variance_in) + deviations_out**2 - deviations_in**2
  return np.mean(log_ratios / 2.0, axis=-1)


def _on(view: View, **settings) -> np.ndarray:
  """The scores of a view, of all versions of an image jointly."""
  target = view.statistic(phi_and_log_p)[..., 0]
  return lira(target, view.shadow_logits.statistic(phi_and_log_p)[..., 0], view.membership,
              **settings)  # fmt: skip


def check_variance(variance: str) -> None:
  """Raises ValueError unless this is a way to estimate the variance."""
  check_choice("variance", variance, VARIANCES)


@attack("LiRA online", family="LiRA", needs=("shadows",), check=check_variance)
def lira_online(view: View, *, variance: str = "global") -> np.ndarray:
  """`lira` with IN and OUT models; `variance` is one of `VARIANCES`."""
  return _on(view, online=True, variance=variance)


@attack("LiRA online, variance per example", family="LiRA", needs=("shadows",), in_turn=False)
def lira_online_per_example(view: View) -> np.ndarray:
  """`lira` with IN and OUT models, each example with a variance of its own."""
  return _on(view, online=True, variance="per_example")


@attack("LiRA online, variance shrunk", family="LiRA", needs=("shadows",), in_turn=False)
def lira_online_shrunk(view: View) -> np.ndarray:
  """`lira` with IN and OUT models, the examples' variances drawn to a common one."""
  return _on(view, online=True, variance="shrunk")


@attack("LiRA offline", family="LiRA", needs=("shadows",), check=check_variance)
def lira_offline(view: View, *, variance: str = "global") -> np.ndarray:
  """`lira` with OUT models only; `variance` is one of `VARIANCES`."""
  return _on(view, online=False, variance=variance)


@attack("LiRA offline, variance per example", family="LiRA", needs=("shadows",), in_turn=False)
def lira_offline_per_example(view: View) -> np.ndarray:
  """`lira` with OUT models only, each example with a variance of its own."""
  return _on(view, online=False, variance="per_example")


@attack("LiRA offline, variance shrunk", family="LiRA", needs=("shadows",), in_turn=False)
def lira_offline_shrunk(view: View) -> np.ndarray:
  """`lira` with OUT models only, the examples' variances drawn to a common one."""
  return _on(view, online=False, variance="shrunk")


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


def _largest_finite(target, shadow):
  """The largest finite |phi|."""
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


def _fit(shadow, members, limit, variance, side):
  """The Gaussian of one side: mean and variance f64[N,Q] over the models in `members`."""
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
  pooled = squares.sum(axis=0) / freedom.sum()
  if variance == "global":
    variances = np.broadcast_to(pooled, squares.shape)
  else:
    variances = squares / np.maximum(freedom, 1.0)
  if variance == "shrunk":
    columns = zip(variances.T, pooled, strict=True)
    variances = np.stack([_shrink(own, freedom[:, 0], one) for own, one in columns], axis=-1)
  return means, np.maximum(variances, _LEAST_VARIANCE * np.where(pooled > 0.0, pooled, 1.0))


def _shrink(variances, freedom, pooled):
  """Variances f64[N] drawn to their prior; those without degrees of freedom are the prior."""
  prior, prior_freedom = _prior(variances[freedom > 0.0], freedom[freedom > 0.0], pooled)
  weights = freedom / (freedom + prior_freedom)
  return weights * variances + (1.0 - weights) * prior


def _prior(variances, freedom, pooled):
  """The prior variance and its degrees of freedom, by moments of the log variances.

  Smyth 2004, section 6.2. As its program (limma) does, takes the pooled variance where the
  degrees of freedom are infinite, and moves variances of 0 up to 1e-5 of the median.
  """
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
