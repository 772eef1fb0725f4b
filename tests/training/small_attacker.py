"""AdvReg's attack network in small, for tests of what does not hang on its size."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffence_jax.models.perceptron import dense, relu_layers


class SmallAttacker(nn.Module):
  """Two branches and what joins them, of a layer each: a step takes a tenth of the time."""

  @nn.compact
  def __call__(self, probabilities: jax.Array, one_hot: jax.Array) -> jax.Array:
    """Maps predictions f32[N,K] and true labels f32[N,K] to f32[N], 1 for a member."""
    branches = relu_layers(probabilities, 32), relu_layers(one_hot, 8)
    joined = relu_layers(jnp.concatenate(branches, axis=-1), 16)
    return nn.sigmoid(dense(1)(joined)[:, 0])
