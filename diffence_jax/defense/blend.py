"""Between the answer that the label alone gives and the calibrated mean of the candidates.

What is fitted, is fitted to known non-members: to fit it to members would show them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.tree_util import Partial
from jax.typing import ArrayLike

from diffence_jax.checks import check_range
from diffence_jax.defense.mean_kept import mean_kept, with_label
from diffence_jax.defense.policy import AggregatePolicy, Record
from diffence_jax.metrics import negative_log_likelihood
from diffence_jax.metrics.predictions import check_predictions
from diffence_jax.predictor import check_logits

# The least and the largest temperature that is looked for.
_TEMPERATURES = (0.05, 20.0)
# A class's accuracy counts as if so many more samples of it had the accuracy of all.
_PRIOR = 10.0
# An accuracy is kept so far from 1, and from 1/K, where the label would be lost.
_MARGIN = 1e-3


def fit_blend(
  candidate_logits: ArrayLike,
  raw_logits: ArrayLike,
  labels: ArrayLike,
  *,
  weight: float = 1.0,
) -> AggregatePolicy:
  """A weighted mean of `mean_kept`, with a temperature, and of what the label alone gives.

  The answer's probabilities are `weight` times those of the mean of the candidates that keep
  the label, at the temperature of the lowest negative log-likelihood (Guo et al. 2017), plus
  `1 - weight` times those of `constant`. Both have the label's arg-max, and so has the answer.
  A weight of 1 is the calibrated mean, one of 0 the constant.

  Whoever knows the weight, the constants and the temperature computes the mean from an answer,
  so that a weight between 0 and 1 protects only from attackers who do not.

  Args:
    candidate_logits: f[N,M,K], of known non-members.
    raw_logits: f[N,K].
    labels: i[N], true labels.
    weight: of the mean, 0 to 1: the higher, the more useful and the less private.

  Returns:
    The policy; for `protect(policy=...)`.

  Raises:
    ValueError: the weight is out of its range, or the shapes do not fit.
  """
  check_weight(weight=weight)
  means = mean_kept(jnp.asarray(candidate_logits), jnp.asarray(raw_logits))
  temperature = fit_temperature(np.asarray(means), labels)
  table = fit_constants(raw_logits, labels)
  numbers = (jnp.float32(temperature), jnp.float32(weight), jnp.asarray(table))
  return AggregatePolicy(Partial(_blend, *numbers), keeps_labels=True)


def blend(members: Record, nonmembers: Record, *, weight: float = 1.0) -> AggregatePolicy:
  """The policy of `fit_blend`, fitted to known non-members."""
  del members
  return fit_blend(nonmembers.candidates, nonmembers.raw, nonmembers.labels, weight=weight)


def constant(members: Record, nonmembers: Record) -> AggregatePolicy:
  """What the label alone gives: its accuracy among known non-members, whatever the image.

  No policy that keeps labels can tell an attacker less: what is found behind it is the floor
  of all of them.
  """
  del members
  table = fit_constants(nonmembers.raw, nonmembers.labels)
  return of_raw(Partial(of_label, jnp.asarray(table)))


def check_weight(*, weight: float) -> None:
  """Raises ValueError where an option of `blend` is out of its range."""
  check_range("weight", weight, 0.0, 1.0)


blend.check_options = check_weight


def _undone(*, weight: float) -> tuple[str, dict[str, float]] | None:
  """The label tells the constant, known samples the temperature: what is left is the mean."""
  return ("mean_kept", {}) if weight else None


blend.undone = _undone


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
  """The temperature, 0.05 to 20, of the lowest negative log-likelihood (Guo et al. 2017).

  Args:
    logits: f[N,K].
    labels: i[N].
  """
  logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
  nll: Callable[[float], float] = lambda log_t: negative_log_likelihood(
    logits / np.exp(log_t), labels
  )
  ends = tuple(np.log(_TEMPERATURES))
  return float(np.exp(scipy.optimize.minimize_scalar(nll, bounds=ends, method="bounded").x))


def fit_constants(raw_logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """Log-probabilities f32[K,K] for every label: its accuracy, the rest shared by the others.

  Args:
    raw_logits: f[N,K], of known non-members.
    labels: i[N], true labels.

  Raises:
    ValueError: the shapes do not fit, a label is no class, or logits are not finite or look
      like probabilities.
  """
  raw_logits, labels = check_predictions(raw_logits, labels, are_logits=False)
  check_logits(raw_logits, "raw_logits")
  num_classes = raw_logits.shape[-1]
  predicted = np.argmax(raw_logits, axis=-1)
  accuracy = class_accuracy(predicted, predicted == labels, num_classes)
  return constants(accuracy, num_classes)


def class_accuracy(groups: np.ndarray, is_right: np.ndarray, num_groups: int) -> np.ndarray:
  """The accuracy f64[G] in every group i[N], drawn to that of all where there are few."""
  overall = (np.sum(is_right) + 1.0) / (len(is_right) + 2.0)
  right = np.bincount(groups, weights=is_right, minlength=num_groups)
  return (right + _PRIOR * overall) / (np.bincount(groups, minlength=num_groups) + _PRIOR)


def constants(accuracy: np.ndarray, num_classes: int) -> np.ndarray:
  """Log-probabilities f32[...,K,K] for every label, of its accuracies f64[...,1 or K]."""
  accuracy = np.clip(accuracy, 1.0 / num_classes + _MARGIN, 1.0 - _MARGIN)[..., None]
  others = (1.0 - accuracy) / (num_classes - 1)
  return np.log(np.where(np.eye(num_classes, dtype=bool), accuracy, others)).astype(np.float32)


def of_label(table: jax.Array, raw_logits: jax.Array) -> jax.Array:
  """The rows of a table f32[...,K,K] f32[N,...,K] of the labels of logits f[N,K]."""
  if table.shape[-1] != raw_logits.shape[-1]:
    raise ValueError(
      f"The policy was fitted to answers of {table.shape[-1]} classes, and asked about logits "
      f"of {raw_logits.shape[-1]}."
    )
  return jnp.moveaxis(table, -2, 0)[jnp.argmax(raw_logits, axis=-1)]


def of_raw(function: Partial) -> AggregatePolicy:
  """The policy that answers with a function of the raw prediction, its label kept.

  Args:
    function: `logits f32[N,K] -> logits f32[N,K]`, with the same arg-max up to rounding.
  """
  return AggregatePolicy(Partial(_labelled, function), keeps_labels=True, draws=False)


def _labelled(function, candidate_logits, raw_logits):
  del candidate_logits
  answer = function(raw_logits.astype(jnp.float32)).astype(raw_logits.dtype)
  return with_label(answer, raw_logits)


def _blend(temperature, weight, table, candidate_logits, raw_logits):
  means = mean_kept(candidate_logits, raw_logits).astype(jnp.float32)
  # Compiled, a quotient may be found in two ways, which far from 0 lie far apart.
  means = (means - jnp.max(means, axis=-1, keepdims=True)) / temperature
  of_means = jax.nn.log_softmax(means, axis=-1) + jnp.log(weight)
  alone = of_label(table, raw_logits) + jnp.log1p(-weight)
  answer = jnp.logaddexp(of_means, alone).astype(raw_logits.dtype)
  return with_label(answer, raw_logits)
