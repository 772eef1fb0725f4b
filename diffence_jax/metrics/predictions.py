"""What is read off a prediction, in NumPy and float64: phi, and log-probabilities.

`defense.scaled_logit` is phi in JAX and float32, where it is part of a compiled program.
"""

import warnings

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.checks import check_labels, check_numbers, check_positive
from diffence_jax.predictor import check_classes, check_largest, like_probabilities

# Stands for an infinite phi or log-probability where numbers are needed: about the logarithm of
# float32's least number, 1.4e-45, which the published LiRA adds to every probability.
BOUND = 104.0


def bounded(values: np.ndarray) -> np.ndarray:
  """The values f[...] with `BOUND` or its negative for infinities; finite ones as they are."""
  return np.where(np.isinf(values), np.copysign(np.float32(BOUND), values), values)


def check_predictions(
  outputs: ArrayLike, labels: ArrayLike, *, are_logits: bool = True
) -> tuple[np.ndarray, np.ndarray]:
  """Checks predictions against their labels, everywhere in the same way.

  Args:
    outputs: f[N,K], K at least 2. Of logits -inf stands for a probability of 0.
    labels: i[N].
    are_logits: warns (UserWarning) where all outputs look like probabilities.

  Returns:
    Outputs f64[N,K] and labels i64[N].

  Raises:
    ValueError: the shapes do not fit, a label is no class, or outputs are NaN, +inf or nothing
      but -inf.
  """
  outputs = check_numbers("outputs", outputs).astype(np.float64)
  labels = check_numbers("labels", labels)
  if outputs.ndim != 2 or labels.shape != outputs.shape[:1] or not labels.size:
    raise ValueError(
      f"Got outputs {list(outputs.shape)} and labels {list(labels.shape)}; "
      "expected [N, K] and [N], N >= 1."
    )
  check_classes(outputs.shape[1], "outputs")
  check_largest(outputs.max(axis=-1), "outputs")
  if are_logits and (told := like_probabilities(outputs, "These logits")):
    warnings.warn(told, stacklevel=3)
  if not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(f"labels have dtype {labels.dtype}; expected integers.")
  check_labels("labels", labels, outputs.shape[1])
  return outputs, labels.astype(np.int64)


def true_label_phi(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """The statistic phi = log(p / (1 - p)), p the true label's probability.

  Computed as the label's logit minus the logsumexp of the others, so that certain predictions,
  whose p rounds to 1, keep their order.

  Args:
    logits: f[...,K], K at least 2; -inf stands for a probability of 0.
    labels: i[...], true labels: all leading axes of the logits or the first of them, such as
      i[N] for f[N,Q,K].

  Returns:
    f64[...], the logits' leading axes. Infinite only where a probability is exactly 0 or 1.

  Raises:
    ValueError: the shapes do not fit, a label is out of range, or logits are NaN, +inf or
      nothing but -inf.
  """
  label_logits, others, shape = _split_logits(logits, labels)
  return (label_logits - scipy.special.logsumexp(others, axis=-1)).reshape(shape)


def hinge(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """The other statistic of the paper: the label's logit minus the largest of the others.

  Args:
    logits: f[...,K], K at least 2; -inf stands for a probability of 0.
    labels: i[...], as for `true_label_phi`.

  Returns:
    f64[...], the logits' leading axes; positive where the label is predicted.

  Raises:
    ValueError: as `true_label_phi`.
  """
  label_logits, others, shape = _split_logits(logits, labels)
  return (label_logits - others.max(axis=-1)).reshape(shape)


def log_probability(
  logits: ArrayLike, labels: ArrayLike, *, temperature: float = 1.0
) -> np.ndarray:
  """The log-probability of the true label, log softmax(logits / temperature).

  Args:
    logits: f[...,K], K at least 2; -inf stands for a probability of 0.
    labels: i[...], true labels: all leading axes of the logits or the first of them, such as
      i[N] for f[N,Q,K].
    temperature: above 0; higher ones even out the probabilities.

  Returns:
    f64[...], the logits' leading axes; at most 0, and exact next to it.

  Raises:
    ValueError: as `true_label_phi`, or the temperature is not a positive number.
  """
  check_positive("temperature", temperature)
  logits = check_numbers("logits", logits).astype(np.float64)
  phi = true_label_phi(logits / temperature, labels)
  return scipy.special.log_expit(phi)


def log_probabilities(
  logits: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
  """The log-probabilities of all classes, and of none of them.

  Args:
    logits: f[N,K].
    labels: i[N].

  Returns:
    log p and log(1 - p), f64[N,K], exact where p is near 0 or 1; and the index of the labels'
    entries.

  Raises:
    ValueError: as `check_predictions`.
  """
  logits, labels = check_predictions(logits, labels)
  rows = np.arange(len(logits))
  top = (rows, np.argmax(logits, axis=-1))
  others = logits.copy()
  others[top] = -np.inf
  others = scipy.special.logsumexp(others, axis=-1)
  total = np.logaddexp(logits[top], others)
  log_p = logits - total[:, None]
  # The largest p is 1 minus the rest: near 1 only the rest has the digits.
  log_p[top] = -np.logaddexp(0.0, others - logits[top])
  with np.errstate(divide="ignore"):
    log_not_p = np.log1p(-np.minimum(np.exp(log_p), 1.0))
  log_not_p[top] = others - total
  return log_p, log_not_p, (rows, labels)


def _flatten(
  logits: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
  """Lays leading axes into one.

  Args:
    logits: f[...,K].
    labels: i[...], all leading axes of the logits or the first of them.

  Returns:
    Logits f64[M,K], labels i64[M] and the leading axes.

  Raises:
    ValueError: the shapes do not fit, or as `check_predictions`.
  """
  logits, labels = check_numbers("logits", logits), check_numbers("labels", labels)
  shape = logits.shape[:-1]
  if logits.ndim < 1 or labels.ndim > len(shape) or labels.shape != shape[: labels.ndim]:
    raise ValueError(
      f"Got logits {list(logits.shape)} and labels {list(labels.shape)}; expected [..., K] and "
      "its leading axes, or the first of them."
    )
  missing = tuple(range(labels.ndim, len(shape)))
  labels = np.broadcast_to(np.expand_dims(labels, missing), shape)
  logits, labels = check_predictions(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
  return logits, labels, shape


def _split_logits(logits, labels):
  """The labels' logits f64[M], all others f64[M,K] with -inf for the label's, leading axes."""
  logits, labels, shape = _flatten(logits, labels)
  rows = np.arange(len(logits))
  label_logits = logits[rows, labels]
  others = logits.copy()
  others[rows, labels] = -np.inf
  return label_logits, others, shape
