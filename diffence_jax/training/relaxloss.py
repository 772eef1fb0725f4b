"""RelaxLoss (Chen, Yu & Fritz, ICLR 2022): members keep a loss that non-members have too."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from diffence_jax.checks import check_range
from diffence_jax.training.recipe import Recipe, TrainSettings, cross_entropy, with_losses


def relaxloss(
  module: nn.Module, settings: TrainSettings, *, alpha: float = 0.05, upper: float = 1.0
) -> Recipe:
  """Steers the mean loss to `alpha`; flattens the other classes' probabilities below it.

  Epochs take turns (algorithm 1). Even ones, from 0, step towards `alpha` from above or from
  below: |CE - alpha|. Odd ones descend the cross-entropy of a batch that is above `alpha`, else
  minimise mean((1 - correct) * softCE - CE), where softCE is the cross-entropy to a soft label,
  the confidence in the true class, at most `upper`, and the rest spread evenly.

  Args:
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`.
    settings: how it is trained.
    alpha: the loss that is aimed at, at least 0. The Diffence paper's: 0.05, 0.3 and 0.1 for
      CIFAR-10, CIFAR-100 and SVHN.
    upper: the most that a soft label gives the true class, 0 to 1.

  Returns:
    The recipe.

  Raises:
    ValueError: a setting is out of its range.
  """
  check_range("alpha", alpha, 0.0, None)
  check_range("upper", upper, 0.0, 1.0)

  def relax(logits: jax.Array, examples: Mapping[str, jax.Array]) -> jax.Array:
    return jnp.abs(cross_entropy(logits, examples) - alpha)

  def flatten(logits: jax.Array, examples: Mapping[str, jax.Array]) -> jax.Array:
    mean = cross_entropy(logits, examples)
    return jnp.where(
      mean > alpha, mean, posterior_flattening(logits, examples["labels"], upper)
    )

  schedule = tuple(
    "flatten" if settings.epoch_of(step) % 2 else "relax" for step in range(settings.num_steps)
  )
  losses = {"relax": relax, "flatten": flatten}
  return with_losses(
    module, settings, {name: losses[name] for name in dict.fromkeys(schedule)}, schedule
  )


def posterior_flattening(logits: jax.Array, labels: jax.Array, upper: float) -> jax.Array:
  """The loss of odd epochs below `alpha`.

  Args:
    logits: f32[B,K].
    labels: i[B].
    upper: as in `relaxloss`.

  Returns:
    f32[].
  """
  num_classes = logits.shape[-1]
  one_hot = jax.nn.one_hot(labels, num_classes)
  # As published, the gradient goes through the soft labels too.
  probabilities = jax.nn.softmax(logits, axis=-1)
  confidence = jnp.sum(probabilities * one_hot, axis=-1, keepdims=True)
  confidence = jnp.minimum(confidence, upper)
  rest = (1.0 - confidence) / (num_classes - 1)
  soft_labels = one_hot * confidence + (1.0 - one_hot) * rest
  losses = optax.softmax_cross_entropy(logits, one_hot)
  soft_losses = optax.softmax_cross_entropy(logits, soft_labels)
  correct = (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)
  return jnp.mean((1.0 - correct) * soft_losses - losses)
