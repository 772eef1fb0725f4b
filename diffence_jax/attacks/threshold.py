"""Attacks that put a threshold on one number of the returned prediction.

All scores are higher for likelier members, float64, and computed from logits so that very
confident predictions, whose probabilities all round to 1, are still told apart.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.metrics.calibration import check_predictions

Score = Callable[[ArrayLike, ArrayLike], np.ndarray]


def loss(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """The log-probability of the true label, minus the loss (Yeom et al. 2018).

  Args:
    logits: f[N,K].
    labels: i[N], true labels.

  Returns:
    f64[N], at most 0.

  Raises:
    ValueError: the shapes do not fit.
  """
  log_p, _, rows = _log_probabilities(logits, labels)
  return log_p[rows]


def confidence(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """The probability p of the true label, as phi = log(p / (1 - p)) (Song & Mittal 2021).

  Args:
    logits: f[N,K].
    labels: i[N], true labels.

  Returns:
    f64[N]; increasing in p.

  Raises:
    ValueError: the shapes do not fit.
  """
  log_p, log_not_p, rows = _log_probabilities(logits, labels)
  return log_p[rows] - log_not_p[rows]


def entropy(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """Minus the entropy of the prediction (Salem et al. 2019); labels are not used.

  Args:
    logits: f[N,K].
    labels: i[N].

  Returns:
    f64[N], -log K to 0.

  Raises:
    ValueError: the shapes do not fit.
  """
  log_p, _, _ = _log_probabilities(logits, labels)
  # A probability of 0 adds nothing.
  return np.sum(np.exp(log_p) * np.maximum(log_p, np.finfo(np.float64).min), axis=-1)


def modified_entropy(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """Minus the modified entropy, which minds the true label (Song & Mittal 2021, eq. 8).

  Args:
    logits: f[N,K].
    labels: i[N], true labels.

  Returns:
    f64[N], `(1 - p_y) log p_y + sum over i != y of p_i log(1 - p_i)`, at most 0.

  Raises:
    ValueError: the shapes do not fit.
  """
  log_p, log_not_p, rows = _log_probabilities(logits, labels)
  others = np.exp(log_p) * log_not_p
  others[rows] = 0.0
  return np.exp(log_not_p[rows]) * log_p[rows] + others.sum(axis=-1)


def correctness(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """1 where the predicted label is right: the gap attack (Yeom et al. 2018).

  Its AUC is 1/2 + (member accuracy - non-member accuracy) / 2, the floor of every defense
  that changes no label.

  Args:
    logits: f[N,K].
    labels: i[N], true labels.

  Returns:
    f64[N], 0 or 1.

  Raises:
    ValueError: the shapes do not fit.
  """
  logits, labels = check_predictions(logits, labels)
  return (np.argmax(logits, axis=-1) == labels).astype(np.float64)


THRESHOLD_ATTACKS: Mapping[str, Score] = MappingProxyType(
  {
    "loss": loss,
    "confidence": confidence,
    "entropy": entropy,
    "modified_entropy": modified_entropy,
  }
)


def _log_probabilities(logits, labels):
  """Log-probabilities log p and log(1 - p), f64[N,K], and the index of the labels' entries."""
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
