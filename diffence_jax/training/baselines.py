"""Training without a defense, and with what merely keeps a classifier from overfitting."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from diffence_jax.checks import check_range, check_whole
from diffence_jax.training.recipe import Recipe, TrainSettings, cross_entropy, with_loss


def undefended(module: nn.Module, settings: TrainSettings) -> Recipe:
  """Cross-entropy with Adam (AMSGrad) and L2, no augmentation.

  Args:
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`.
    settings: how it is trained.

  Returns:
    The recipe.
  """
  return with_loss(module, settings, cross_entropy)


def early_stopping(
  module: nn.Module, settings: TrainSettings, *, stop_after: int = 10
) -> Recipe:
  """Undefended training that ends early: a point on the curve of privacy over epochs.

  Song & Mittal (USENIX Security 2021), section 4.2.4, compare defenses with it.

  Args:
    module: as in `undefended`.
    settings: as above.
    stop_after: epochs, 1 to `settings.epochs`.

  Returns:
    The recipe.

  Raises:
    ValueError: `stop_after` is out of its range.
  """
  check_whole("stop_after", stop_after, 1, settings.epochs)
  return undefended(module, dataclasses.replace(settings, epochs=stop_after))


def label_smoothing(
  module: nn.Module, settings: TrainSettings, *, smoothing: float = 0.1
) -> Recipe:
  """Cross-entropy to labels that leave something to all classes (Szegedy et al. 2016).

  Args:
    module: as in `undefended`.
    settings: as above.
    smoothing: what is taken from the label and spread over all classes, from 0 to below 1.

  Returns:
    The recipe.

  Raises:
    ValueError: `smoothing` is out of its range.
  """
  check_range("smoothing", smoothing, 0.0, 1.0)
  if smoothing == 1.0:
    raise ValueError(
      f"smoothing is {smoothing!r}; expected less than 1: else no label is left."
    )

  def loss(logits: jax.Array, examples: Mapping[str, jax.Array]) -> jax.Array:
    one_hot = jax.nn.one_hot(examples["labels"], logits.shape[-1])
    return jnp.mean(
      optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, smoothing))
    )

  return with_loss(module, settings, loss)


def confidence_penalty(
  module: nn.Module, settings: TrainSettings, *, weight: float = 0.1
) -> Recipe:
  """Cross-entropy less the prediction's entropy (Pereyra et al. 2017).

  Args:
    module: as in `undefended`.
    settings: as above.
    weight: of the entropy, at least 0.

  Returns:
    The recipe.

  Raises:
    ValueError: `weight` is negative.
  """
  check_range("weight", weight, 0.0, None)

  def loss(logits: jax.Array, examples: Mapping[str, jax.Array]) -> jax.Array:
    return cross_entropy(logits, examples) - weight * jnp.mean(entropy(logits))

  return with_loss(module, settings, loss)


def entropy(logits: jax.Array) -> jax.Array:
  """The entropy f32[...] of the predictions of logits f32[...,K], in nats."""
  log_p = jax.nn.log_softmax(logits, axis=-1)
  return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
