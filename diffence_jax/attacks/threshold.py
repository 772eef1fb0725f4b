"""Attacks that put a threshold on one number of the returned prediction.

All scores are higher for likelier members, float64, and computed from logits so that very
confident predictions, whose probabilities all round to 1, are still told apart.
"""

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.attacks import published
from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.signals import phi_and_log_p
from diffence_jax.metrics.predictions import (
  check_predictions,
  log_probabilities,
  true_label_phi,
)


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
  log_p, _, rows = log_probabilities(logits, labels)
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
  logits, labels = check_predictions(logits, labels)
  return true_label_phi(logits, labels)


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
  log_p, _, _ = log_probabilities(logits, labels)
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
  log_p, log_not_p, rows = log_probabilities(logits, labels)
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


def _threshold(title, of_published, **declared):
  """Declares an attack on one number of the answer; the published code has its own."""
  mean = lambda view: view.mean_over_queries(of_published)
  return attack(title, family="thresholds", published=mean, per_class=True, **declared)


@attack("correctness", family="label only", in_turn=False)
def attack_correctness(view: View) -> np.ndarray:
  """The share of right answers."""
  return view.mean_over_queries(correctness)


@_threshold("loss", published.loss, in_turn=False)
def attack_loss(view: View) -> np.ndarray:
  """The mean log-probability."""
  return view.mean_over_queries(loss)


# Of the thresholds the one that stands for all in turn: they see much the same.
@_threshold("confidence", published.confidence)
def attack_confidence(view: View) -> np.ndarray:
  """The mean phi."""
  return view.statistic(phi_and_log_p)[..., 0].mean(axis=-1)


@_threshold("entropy", published.entropy, in_turn=False)
def attack_entropy(view: View) -> np.ndarray:
  """Minus the mean entropy."""
  return view.mean_over_queries(entropy)


@_threshold("modified entropy", published.modified_entropy, in_turn=False)
def attack_modified_entropy(view: View) -> np.ndarray:
  """Minus the mean modified entropy."""
  return view.mean_over_queries(modified_entropy)
