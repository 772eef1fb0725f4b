"""Noise that follows from the image: who sends it again gets the same answer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffence_jax import rng
from diffence_jax.batching import to_bytes

# Above rng.MAX_ID and not what `candidate_logits` uses: a stream of its own.
_HASH = 2**32 - 2


def per_input(answer: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """Numbers samples by a hash of their images, so that equal images share their noise.

  Args:
    answer: `(key, images f32[N,H,W,C] in [0,1], ids i32[N]) -> answers`.

  Returns:
    The same function for `ids=None`; it raises ValueError where ids are given.
  """

  def answer_alike(key, images, ids=None):
    if ids is not None:
      raise ValueError("ids were given, and randomness is 'per_input'; expected ids=None.")
    return answer(key, images, image_ids(key, images))

  return answer_alike


@jax.jit
def image_ids(key: jax.Array, images: jax.Array) -> jax.Array:
  """A hash of every image that cannot be foretold without the key.

  Multilinear hashing (Carter & Wegman 1979) of the 8-bit values by random multipliers: two
  images collide with a chance of about 2**-31, and then merely share their noise.

  Args:
    key: a JAX random key.
    images: f32[N,H,W,C] in [0, 1].

  Returns:
    i32[N], 0 to 2**31 - 1.
  """
  pixels = to_bytes(images).astype(jnp.uint32).reshape(images.shape[0], -1)
  hash_key = jax.random.fold_in(rng.own_key(key), _HASH)
  multipliers = jax.random.bits(hash_key, pixels.shape[1:], jnp.uint32)
  # Sums are modulo 2**32; the lowest bit, the least random one, is dropped.
  sums = jnp.sum(pixels * multipliers[None], axis=1, dtype=jnp.uint32)
  return (sums >> 1).astype(jnp.int32)
