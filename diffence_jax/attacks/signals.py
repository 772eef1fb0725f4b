"""What most attacks read off a model's answers: the true label's phi, and its probability."""

import numpy as np

from diffence_jax.metrics.predictions import bounded, true_label_phi


def phi_and_log_p(logits: np.ndarray, labels: np.ndarray, versions: int) -> np.ndarray:
  """The true label's phi and log-probability, averaged over the queries of every version.

  A probability of exactly 0 or 1, as a defense that tells labels only gives it, has a phi of
  minus or plus `predictions.BOUND`, so that means and deviations are numbers.

  One statistic for all attacks that need either, so that a model's answers are read once.

  Args:
    logits: f[N,Q,K], of A versions, Q / A queries each.
    labels: i[N].
    versions: A.

  Returns:
    f64[N,A,2]: the mean phi, and the logarithm of the mean probability.

  Raises:
    ValueError: as `true_label_phi`.
  """
  phi = bounded(true_label_phi(logits, labels)).reshape(len(labels), versions, -1)
  return np.stack([phi.mean(axis=-1), log_mean(log_sigmoid(phi))], axis=-1)


def log_sigmoid(phi: np.ndarray) -> np.ndarray:
  """The log-probability p of phi = log(p / (1 - p)), exact next to 0."""
  return -np.logaddexp(0.0, -phi)


def log_mean(log_p: np.ndarray) -> np.ndarray:
  """The logarithm of the mean probability over the last axis, at most 0."""
  if log_p.shape[-1] == 1:
    return np.asarray(log_p[..., 0], np.float64)
  with np.errstate(divide="ignore"):
    return np.minimum(np.log(np.mean(np.exp(log_p.astype(np.float64)), axis=-1)), 0.0)
