"""Random keys: named streams of one seed, and a key for every candidate of every sample."""

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp

# The largest id of a sample: `fold_in` cuts what it is given to 32 bits, silently.
MAX_ID = 2**31 - 1


def stream(seed: int, name: str) -> jax.Array:
  """The key of a named stream of randomness.

  Streams with different names are independent, so a new one never shifts another.

  Args:
    seed: the seed of the run, 0 to 2**31 - 1.
    name: what the stream is for, for example "classifier/init".

  Returns:
    A typed JAX random key.
  """
  return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def numpy_seed(seed: int, name: str) -> list[int]:
  """The seed of a named stream of NumPy's randomness, for `numpy.random.default_rng`."""
  return [seed, zlib.crc32(name.encode())]


def candidate_keys(key: jax.Array, ids: jax.Array, candidates: jax.Array) -> jax.Array:
  """Keys of pairs (sample, candidate): `fold_in(fold_in(key, id), candidate)`.

  A key depends on nothing but its own pair, so results do not depend on batch size, order,
  chunks or sharding.

  Args:
    key: the stream.
    ids: i32[P], stable ids of the samples.
    candidates: i32[P], candidate numbers from 0.

  Returns:
    keys[P].
  """
  fold = lambda i, j: jax.random.fold_in(jax.random.fold_in(key, i), j)
  return jax.vmap(fold)(jnp.asarray(ids, jnp.int32), jnp.asarray(candidates, jnp.int32))


def balanced_epoch(key: jax.Array, num_rows: Sequence[int], batch_size: int) -> jax.Array:
  """An epoch of batches with as many of every side, however many it has.

  Goes through the largest side once, or a little more to fill the last batch, and repeats the
  others, each in an order of its own.

  Args:
    key: shuffles.
    num_rows: every side's, at least 1.
    batch_size: rows of every side in a batch.

  Returns:
    i32[steps,sides,batch_size], rows of each side.
  """
  steps = -(-max(num_rows) // batch_size)
  keys = jax.random.split(key, len(num_rows))
  shuffled = [jax.random.permutation(k, num) for k, num in zip(keys, num_rows, strict=True)]
  return jnp.stack([jnp.resize(rows, (steps, batch_size)) for rows in shuffled], axis=1)
