"""A likelihood ratio of several signals: all classes of all answers, not the label's phi alone.

LiRA reads one number off a model. How sure it is of the other classes, and how far its answers
to repeated queries lie apart, may tell of members as well. (Carlini et al. 2022 fit Gaussians
of several dimensions to the phi of several versions of an image.)
"""

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.shadow_phi import check_membership, variance_prior
from diffence_jax.attacks.threshold import entropy
from diffence_jax.checks import check_numbers, check_range
from diffence_jax.metrics.predictions import bounded, hinge, true_label_phi

# Least variances, as shares of a signal's variance on both sides, or of the typical one.
_LEAST_VARIANCE = 1e-6
# Squares of larger ones are infinite in float64.
_LARGEST = 1e150


def signals(logits: np.ndarray, labels: np.ndarray, versions: int) -> np.ndarray:
  """What is read off a model's answers; infinities count as `predictions.BOUND`.

  Args:
    logits: f[N,Q,K], to Q queries, versions among them.
    labels: i[N].
    versions: A; all answers are taken alike.

  Returns:
    f64[N,5]: the mean phi; log(1 + the standard deviation of phi over queries); the mean lead
    of the label's logit over the largest other; the mean logarithm of the entropy; the mean
    lead of the largest logit over the second.

  Raises:
    ValueError: as `true_label_phi`.
  """
  del versions
  num, queries, num_classes = logits.shape
  phi = bounded(true_label_phi(logits, labels))
  flat, each = logits.reshape(-1, num_classes), np.repeat(labels, queries)
  with np.errstate(divide="ignore"):
    log_entropy = np.log(np.maximum(-entropy(flat, each), 0.0))
  second, first = np.moveaxis(np.partition(flat.astype(np.float64), -2, axis=-1)[:, -2:], -1, 0)
  means = [
    bounded(values).reshape(num, queries).mean(axis=1)
    for values in (hinge(flat, each), log_entropy, first - second)
  ]
  return np.stack([phi.mean(axis=1), np.log1p(phi.std(axis=1)), *means], axis=-1)


def multi_signal(
  target_signals: ArrayLike,
  shadow_signals: ArrayLike,
  membership: ArrayLike,
  *,
  shrinkage: float = 0.1,
) -> np.ndarray:
  """The log ratio of two multivariate t densities, IN and OUT, of F signals.

  On each side the signals of example i are Gaussian over models, with a mean of its own and the
  covariance tau_i C. C is pooled over examples, from residuals by their degrees of freedom;
  its correlations are multiplied by 1 - `shrinkage`. The factor tau_i has the prior that
  `lira` gives its "shrunk" variance, fitted to the mean squares t_i of C's inverse root times
  the residuals, with F (n - 1) degrees of freedom for n models. So, given mean x_i, the
  target's signals have the t distribution with nu + F (n - 1) degrees of freedom, centre x_i
  and shape

    (nu s^2 + F (n - 1) t_i) / (nu + F (n - 1)) * (1 + 1 / n) * C

  (Gelman et al., "Bayesian Data Analysis", section 3.6, with C known), a Gaussian where nu is
  infinite. A signal's variance is at least 1e-6 of that on both sides, which 1 stands for where
  that is 0.

  Every signal has two means an example to be estimated: where the others tell nothing that phi
  does not, few models make this worse than `lira` (docs/results.md has it on digits).

  Args:
    target_signals: f[N,F], of the model under attack.
    shadow_signals: f[S,N,F], of the shadow models; an `np.memmap` is read model by model.
    membership: bool[S,N], True where a shadow model was trained with the example.
    shrinkage: in [0, 1]; 1 takes signals as uncorrelated.

  Returns:
    f64[N], finite, higher for likelier members.

  Raises:
    ValueError: the shapes do not fit, membership is not boolean, signals are not finite or
      beyond 1e150, `shrinkage` is out of range, an example has no IN or no OUT model, or none
      has two of a side.
  """
  check_multi_signal(shrinkage=shrinkage)
  target = check_numbers("target_signals", target_signals)
  shadow = check_numbers("shadow_signals", shadow_signals)
  if target.ndim != 2 or shadow.shape[1:] != target.shape or 0 in shadow.shape:
    raise ValueError(
      f"Got target_signals {list(target.shape)} and shadow_signals {list(shadow.shape)}; "
      "expected [N, F] and [S, N, F], none of them 0."
    )
  target = _check_finite("target_signals", target)
  membership = check_membership(membership, shadow.shape[:2], online=True)
  sides = [_moments(shadow, members, side) for members, side in
           ((membership, "IN"), (~membership, "OUT"))]  # fmt: skip
  typical = np.mean([np.diag(covariance) for _, _, covariance in sides], axis=0)
  least = np.where(typical > 0.0, _LEAST_VARIANCE * typical, 1.0)
  inside, outside = (
    _log_density(target, shadow, members, moments, least, shrinkage)
    for members, moments in zip((membership, ~membership), sides, strict=True)
  )
  return inside - outside


def check_multi_signal(*, shrinkage: float) -> None:
  """Raises ValueError where an option of `multi_signal` is out of its range."""
  check_range("shrinkage", shrinkage, 0.0, 1.0)


@attack("multi-signal likelihood ratio", family="several signals", needs=("shadows",),
        check=check_multi_signal)  # fmt: skip
def attack_multi_signal(view: View, *, shrinkage: float = 0.1) -> np.ndarray:
  """`multi_signal` of the answers' `signals`; `shrinkage` is of their correlations."""
  target, shadow = (source.statistic(signals) for source in (view, view.shadow_logits))
  return multi_signal(target, shadow, view.membership, shrinkage=shrinkage)


def _moments(shadow, members, side):
  """Counts f64[N], means f64[N,F] and the pooled covariance f64[F,F] of one side."""
  counts = members.sum(axis=0).astype(np.float64)
  if counts.max() < 2.0:
    raise ValueError(f"No example has two {side} models; a covariance needs two.")
  means = np.zeros(shadow.shape[1:])
  for row, inside in zip(shadow, members, strict=True):
    means[inside] += _check_finite("shadow_signals", row)[inside]
  means /= counts[:, None]
  covariance = np.zeros((shadow.shape[2],) * 2)
  for residuals in _residuals(shadow, members, means):
    covariance += residuals.T @ residuals
  return counts, means, covariance / np.sum(counts - 1.0)


def _residuals(shadow, members, means):
  """Model by model, f64[N,F]; 0 where the model is not of the side."""
  for row, inside in zip(shadow, members, strict=True):
    yield np.where(inside[:, None], np.asarray(row, np.float64) - means, 0.0)


def _log_density(target, shadow, members, moments, least, shrinkage):
  """The log density f64[N] of the target's signals on one side, up to a constant of both."""
  counts, means, covariance = moments
  num_signals = len(covariance)
  widths = np.sqrt(np.maximum(np.diag(covariance), least))
  correlation = (1.0 - shrinkage) * covariance / np.outer(widths, widths)
  np.fill_diagonal(correlation, 1.0)
  # Even without shrinkage, signals that say the same must not divide by 0.
  values, vectors = np.linalg.eigh(correlation)
  values = np.maximum(values, _LEAST_VARIANCE)
  white = vectors / np.sqrt(values) / widths[:, None]
  log_root = np.sum(np.log(widths)) + 0.5 * np.sum(np.log(values))

  squares = np.zeros(len(target))
  for residuals in _residuals(shadow, members, means):
    squares += np.sum((residuals @ white) ** 2, axis=-1)
  freedom = num_signals * (counts - 1.0)
  factors, total = squares / np.maximum(freedom, 1.0), freedom.sum()
  pooled = squares.sum() / total
  prior, prior_freedom = variance_prior(factors, freedom, pooled)
  share = freedom / (prior_freedom + freedom)
  shape = share * factors + (1.0 - share) * prior
  shape = np.maximum(shape, _LEAST_VARIANCE * (pooled or 1.0)) * (1.0 + 1.0 / counts)
  distances = np.sum(((target - means) @ white) ** 2, axis=-1) / shape
  start = -log_root - 0.5 * num_signals * np.log(2.0 * np.pi * shape)
  freedom = prior_freedom + freedom
  if np.isinf(prior_freedom):
    return start - 0.5 * distances
  return (
    start
    + 0.5 * num_signals * np.log(2.0 / freedom)
    + scipy.special.gammaln(num_signals / 2.0)
    - scipy.special.betaln(freedom / 2.0, num_signals / 2.0)
    - 0.5 * (freedom + num_signals) * np.log1p(distances / freedom)
  )


def _check_finite(name, values):
  """Returns f64; raises ValueError unless the squares are numbers."""
  values = np.asarray(values, np.float64)
  if not np.all(np.abs(values) <= _LARGEST):
    raise ValueError(
      f"{name} has NaN, infinite values or such beyond {_LARGEST:.0e}; expected numbers whose "
      "squares are numbers."
    )
  return values
