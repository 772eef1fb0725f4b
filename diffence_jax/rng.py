"""Random keys: named streams of one seed, and a key for every candidate of every sample.

All noise is drawn by one counter-based generator, whatever JAX's default and the caller's key
are: of `rbg` and `unsafe_rbg`, numbers drawn under `vmap` depend on how many keys there are.
"""

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# The generator whose numbers depend on nothing but the key, mapped or not.
GENERATOR = "threefry2x32"

# The largest id of a sample: `fold_in` cuts what it is given to 32 bits, silently.
MAX_ID = 2**31 - 1


def seed_key(seed: int) -> jax.Array:
  """The typed key of a seed, of our generator."""
  return jax.random.key(seed, impl=GENERATOR)


def own_key(key: jax.Array, name: str = "key") -> jax.Array:
  """The key of our generator that follows from a caller's, which may be of any.

  Args:
    key: a JAX random key: typed, or raw u32[2] or longer.
    name: of the argument, for errors.

  Returns:
    A typed key. Of our own generator it is the caller's; of another one, whose keys have more
    words, all of these are folded into it.

  Raises:
    TypeError: it is no key.
    ValueError: it is several keys, or too short for one.
  """
  _check_is_key(key, name)
  words = jax.random.key_data(key) if is_typed(key) else jnp.asarray(key)
  if words.ndim != 1 or len(words) < 2:
    raise ValueError(
      f"{name} has shape {key.shape}; expected one JAX random key, such as jax.random.key(0)."
    )
  if is_typed(key) and jax.random.key_impl(key) == GENERATOR:
    return key
  ours = jax.random.wrap_key_data(words[:2], impl=GENERATOR)
  for word in words[2:]:
    ours = jax.random.fold_in(ours, word)
  return ours


def as_given(ours: jax.Array, given: jax.Array) -> jax.Array:
  """A key of ours for a caller's function: raw, and as long, where the caller's `given` is."""
  if is_typed(given):
    return ours
  return jnp.resize(jax.random.key_data(ours), given.shape)


def is_typed(key: jax.Array) -> bool:
  """Whether it is a typed key, or several."""
  return isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def _check_is_key(key, name):
  if not is_typed(key) and not (
    isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32
  ):
    what = f"{key.dtype}{list(key.shape)}" if hasattr(key, "dtype") else repr(key)
    raise TypeError(f"{name} is {what}; expected a JAX random key, such as jax.random.key(0).")


def stream(seed: int, name: str) -> jax.Array:
  """The key of a named stream of randomness.

  Streams with different names are independent, so a new one never shifts another.

  Args:
    seed: the seed of the run, 0 to 2**31 - 1.
    name: what the stream is for, for example "classifier/init".

  Returns:
    A typed JAX random key.
  """
  return jax.random.fold_in(seed_key(seed), zlib.crc32(name.encode()))


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
  key = own_key(key)
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
  keys = jax.random.split(own_key(key), len(num_rows))
  shuffled = [jax.random.permutation(k, num) for k, num in zip(keys, num_rows, strict=True)]
  return jnp.stack([jnp.resize(rows, (steps, batch_size)) for rows in shuffled], axis=1)
