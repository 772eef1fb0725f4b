"""Training a classifier, undefended."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from diffence_jax import models, rng
from diffence_jax.training.loop import Loss, fit, init_state, make_train_step


class Recipe(NamedTuple):
  """How a classifier is trained: what target and shadow models have in common.

  Attributes:
    loss: what is minimised.
    optimizer: and how.
  """

  loss: Loss
  optimizer: optax.GradientTransformation


def undefended(module: nn.Module, *, learning_rate: float, weight_decay: float) -> Recipe:
  """Cross-entropy with Adam (AMSGrad) and L2, no augmentation.

  Args:
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`.
    learning_rate: of Adam.
    weight_decay: the L2 coefficient, added to the gradient.

  Returns:
    The recipe.
  """
  optimizer = optax.chain(optax.add_decayed_weights(weight_decay), optax.amsgrad(learning_rate))
  return Recipe(cross_entropy(module), optimizer)


def classifier_steps(num_examples: int, epochs: int, batch_size: int) -> int:
  """The steps in which every one of `num_examples` has been seen `epochs` times."""
  return -(-num_examples * epochs // batch_size)


def train_classifier(
  module: nn.Module,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  epochs: int,
  batch_size: int,
  learning_rate: float,
  weight_decay: float,
  checkpoint_every: int,
  seed: int,
  mesh: Mesh,
  directory: Path,
) -> dict[str, Any]:
  """Trains by cross-entropy with Adam (AMSGrad) and L2, no augmentation.

  Args:
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`.
    images: u8[N,H,W,C], the members.
    labels: i[N].
    epochs: how often every member is seen.
    batch_size: over all devices.
    learning_rate: of Adam.
    weight_decay: the L2 coefficient, added to the gradient.
    checkpoint_every: steps between checkpoints.
    seed: of initialisation, order and dropout.
    mesh: batches are split over it.
    directory: for checkpoints and metrics; a run resumes from what is there.

  Returns:
    The variables after the last step.
  """
  recipe = undefended(module, learning_rate=learning_rate, weight_decay=weight_decay)
  variables = models.init(module, rng.stream(seed, "classifier/init"), images.shape[1:])
  state = fit(
    make_train_step(*recipe),
    init_state(variables, recipe.optimizer),
    {"images": images, "labels": labels},
    num_steps=classifier_steps(len(images), epochs, batch_size),
    batch_size=batch_size,
    seed=seed,
    key=rng.stream(seed, "classifier/steps"),
    mesh=mesh,
    directory=directory,
    checkpoint_every=checkpoint_every,
    description="classifier",
  )
  return {"params": state.params, **state.model_state}


def cross_entropy(module: nn.Module) -> Loss:
  """The mean cross-entropy of batches {images u8[N,H,W,C], labels i[N]}, and the accuracy."""

  def loss(params, model_state, batch, key):
    images = batch["images"].astype(jnp.float32) / 255.0
    logits, model_state = module.apply(
      {"params": params, **model_state},
      images,
      train=True,
      mutable=list(model_state),
      rngs={"dropout": key},
    )
    labels = batch["labels"]
    value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    accuracy = jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32))
    return value, (jax.lax.stop_gradient(model_state), {"accuracy": accuracy})

  return loss
