"""Convex-Concave Loss (Liu et al., ICML 2024): members keep losses that differ among them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from diffence_jax.checks import check_choice, check_range
from diffence_jax.training.recipe import Recipe, TrainSettings, with_loss

# What is concave in p, the probability of the label.
_CONCAVE = {
  "exponential": lambda p: -jnp.exp(p),
  "quadratic": lambda p: -(p + p**2 / 2.0),
}


def ccl(
  module: nn.Module,
  settings: TrainSettings,
  *,
  alpha: float = 0.5,
  concave: str = "exponential",
) -> Recipe:
  """Cross-entropy with a part that is concave in the label's probability.

  The mean of alpha CE + (1 - alpha) c(p), where p = exp(-CE). A convex loss pulls hardest at
  those that are worst, so that the losses of members draw together; a concave one pulls
  hardest at those that are best, and lets them differ.

  The published code multiplies the whole by a further factor, 0.05 for SGD. Adam does not see
  such a factor, but for the weight decay's share, so there is none here.

  Args:
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`.
    settings: how it is trained.
    alpha: weight of the cross-entropy, 0 to 1; 1 is undefended training. The publication's
      example has 0.5.
    concave: "exponential", c(p) = -exp(p), or "quadratic", -(p + p^2 / 2).

  Returns:
    The recipe.

  Raises:
    ValueError: a setting is out of its range.
  """
  check_range("alpha", alpha, 0.0, 1.0)
  check_choice("concave", concave, _CONCAVE)

  def loss(logits: jax.Array, examples: Mapping[str, jax.Array]) -> jax.Array:
    return convex_concave(logits, examples["labels"], alpha, concave)

  return with_loss(module, settings, loss)


def convex_concave(
  logits: jax.Array, labels: jax.Array, alpha: float, concave: str
) -> jax.Array:
  """The mean f32[] of alpha CE + (1 - alpha) c(p).

  Args:
    logits: f32[B,K].
    labels: i[B].
    alpha: as in `ccl`.
    concave: as in `ccl`.
  """
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return jnp.mean(alpha * losses + (1.0 - alpha) * _CONCAVE[concave](jnp.exp(-losses)))
