"""What a prediction is worth: accuracy, calibration, likelihood, and labels changed."""

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.checks import check_numbers, check_whole
from diffence_jax.metrics.predictions import bounded, check_predictions


def accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
  """The share of samples whose arg-max is their label.

  Args:
    logits: f[N,K].
    labels: i[N].

  Returns:
    In [0, 1].

  Raises:
    ValueError: the shapes do not fit.
  """
  logits, labels = check_predictions(logits, labels, are_logits=False)
  return float(np.mean(np.argmax(logits, axis=-1) == labels))


def expected_calibration_error(
  probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 10
) -> float:
  """How far confidence is from accuracy (Guo et al. 2017, equation 3).

  Args:
    probabilities: f[N,K], rows that sum to 1.
    labels: i[N].
    num_bins: equally wide bins of confidence, (0, 1/B], ..., (1 - 1/B, 1].

  Returns:
    The mean distance between a bin's accuracy and its mean confidence, weighted by its
    share of the samples; in [0, 1].

  Raises:
    ValueError: the shapes do not fit, or a row is not a probability distribution.
  """
  check_whole("num_bins", num_bins, 1, 1_000_000)
  probabilities, labels = check_predictions(probabilities, labels, are_logits=False)
  off = np.abs(probabilities.sum(axis=-1) - 1.0).max()
  if not off < 1e-3 or probabilities.min() < 0.0:
    raise ValueError(
      "probabilities are not: expected rows of non-negative numbers that sum to 1, "
      f"got a sum that is off by {off:.3g}. Pass the softmax of logits."
    )
  confidence = probabilities.max(axis=-1)
  return calibration_gap(confidence, np.argmax(probabilities, axis=-1) == labels, num_bins)


def calibration_gap(confidence: np.ndarray, is_right: np.ndarray, num_bins: int = 10) -> float:
  """`expected_calibration_error` of the largest probabilities f[N] and who is right bool[N]."""
  bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
  # The bin's share times the distance of its means is the distance of its sums.
  gaps = np.bincount(bins, weights=is_right - confidence, minlength=num_bins)
  return float(np.abs(gaps).sum() / len(confidence))


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
  """The mean cross-entropy, in nats; `predictions.BOUND` for a label of probability 0.

  Args:
    logits: f[N,K].
    labels: i[N].

  Returns:
    At least 0.

  Raises:
    ValueError: the shapes do not fit.
  """
  logits, labels = check_predictions(logits, labels)
  log_probabilities = scipy.special.log_softmax(logits, axis=-1)
  return float(-np.mean(bounded(log_probabilities[np.arange(len(labels)), labels])))


def label_changes(logits: ArrayLike, reference_logits: ArrayLike) -> int:
  """How many samples have another arg-max than in the reference.

  Args:
    logits: f[N,K].
    reference_logits: f[N,K].

  Returns:
    0 to N.

  Raises:
    ValueError: the shapes are not the same.
  """
  logits = check_numbers("logits", logits)
  reference_logits = check_numbers("reference_logits", reference_logits)
  if np.shape(logits) != np.shape(reference_logits):
    raise ValueError(
      f"Got logits {list(np.shape(logits))} and reference_logits "
      f"{list(np.shape(reference_logits))}; expected the same shape, [N, K]."
    )
  return int(np.sum(np.argmax(logits, axis=-1) != np.argmax(reference_logits, axis=-1)))
