"""The scores of the published code, for `protocol="paper"` only.

They come from float32 probabilities, so confident predictions tie where both round to 1; those
of `threshold` tell them apart. On an overfit classifier that changes the AUC.
"""

import functools

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.metrics.predictions import check_predictions

# The least probability that the published entropies take the logarithm of.
_LEAST = np.float32(1e-30)


def _of_logits(score):
  @functools.wraps(score)
  def attack(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
    logits, labels = check_predictions(logits, labels)
    p = scipy.special.softmax(logits.astype(np.float32), axis=-1)
    return score(p, labels).astype(np.float64)

  return attack


@_of_logits
def loss(p, labels):
  """The log-probability of the true label."""
  true = p[np.arange(len(p)), labels].astype(np.float64)
  # As published, a true class of probability 0 has no loss rather than an infinite one.
  return np.log(true, where=true > 0.0, out=np.full(len(true), -1e-50))


@_of_logits
def confidence(p, labels):
  """The probability of the true label."""
  return p[np.arange(len(p)), labels]


@_of_logits
def entropy(p, labels):
  """Minus the entropy."""
  return np.sum(p * np.log(np.maximum(p, _LEAST)), axis=-1)


@_of_logits
def modified_entropy(p, labels):
  """Minus the modified entropy."""
  rows = (np.arange(len(p)), labels)
  weights, inner = p.copy(), 1.0 - p
  weights[rows], inner[rows] = inner[rows], p[rows]
  return np.sum(weights * np.log(np.maximum(inner, _LEAST)), axis=-1)
