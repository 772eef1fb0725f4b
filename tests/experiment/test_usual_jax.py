"""Figures do not hang on what the process has set JAX to."""

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import rng
from diffence_jax.experiment.run import usual_jax


def figures():
  """Numbers that each of the settings changes."""
  draws = jax.vmap(lambda key: jax.random.normal(key, (3,)))(
    jax.random.split(jax.random.key(0), 4)
  )
  own = jax.random.normal(rng.seed_key(1), (5,))
  return [np.asarray(draws), np.asarray(own), np.asarray(jnp.ones(3, jnp.int32) * 1.5)]


def test_whatever_is_set_the_figures_are_the_usual_ones():
  expected = usual_jax()(figures)()
  with (
    jax.enable_x64(True),
    jax.threefry_partitionable(False),
    jax.default_prng_impl("rbg"),
    jax.numpy_dtype_promotion("strict"),
  ):
    found = usual_jax()(figures)()
    other = jax.random.normal(jax.random.key(0), (3,))
  for one, another in zip(found, expected, strict=True):
    assert one.dtype == another.dtype == np.float32
    np.testing.assert_array_equal(one, another)
  # And what was set is set again.
  assert other.dtype == np.float64 and not np.array_equal(other, expected[0][0])
