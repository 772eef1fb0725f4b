"""The perceptrons of attack networks (Nasr et al. 2018)."""

import flax.linen as nn
import jax


def dense(size: int) -> nn.Dense:
  """A layer whose weights are drawn from N(0, 0.01^2) and whose biases are 0."""
  return nn.Dense(size, kernel_init=nn.initializers.normal(0.01))


def relu_layers(x: jax.Array, *sizes: int) -> jax.Array:
  """Maps f32[N,F] through one such layer after another to f32[N,sizes[-1]]."""
  for size in sizes:
    x = nn.relu(dense(size)(x))
  return x
