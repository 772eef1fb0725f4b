"""Variables and inputs of no particular value, for tests of the noise-prediction networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax.models import init


def drawn_variables(module, seed=0):
  """Variables of no particular value, without compiling the initialisers."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(
    functools.partial(init, module, image_shape=(8, 8, module.out_channels)), jax.random.key(0)
  )
  return jax.tree.map(
    lambda leaf: jnp.asarray(
      rng.normal(size=leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1]))), jnp.float32
    ),
    shapes,
  )


def noised(n, size, channels=1, seed=0):
  """Images f32[n, *size, channels] and steps i32[n]."""
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.normal(size=(n, *size, channels)), jnp.float32)
  return x, jnp.asarray(rng.integers(0, 1000, n), jnp.int32)
