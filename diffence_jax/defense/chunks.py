"""How many re-generations go through the networks at a time, chosen from the memory at hand."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

# On CPU a chunk is fastest while what it holds at a time stays in the caches.
_CPU_BYTES = 64 * 2**20
# On an accelerator that does not tell what it has.
_UNKNOWN_BYTES = 2**30
# Larger ones are hardly faster, and leave early exit, which fills them, less to save.
_MOST = 1024


def default_chunk_size(regenerate: Callable[..., Any], image_shape: tuple[int, ...]) -> int:
  """Chooses a chunk size.

  Half of the memory that is free on a device; on CPU what stays in its caches. What a
  re-generation needs is read off the traced function, without compiling it.

  Args:
    regenerate: `(images f32[n,H,W,C], ids i32[n], candidates i32[n]) -> logits`, traceable.
    image_shape: (H,W,C).

  Returns:
    1 to 1,024, for every device; a power of two.
  """
  device = jax.local_devices()[0]
  memory = device.memory_stats() or {}
  if device.platform == "cpu":
    at_hand = _CPU_BYTES
  elif "bytes_limit" in memory:
    at_hand = (memory["bytes_limit"] - memory["bytes_in_use"]) // 2
  else:
    at_hand = _UNKNOWN_BYTES
  fitting = max(1, at_hand // max(1, live_bytes(regenerate, image_shape)))
  return min(_MOST, 1 << (fitting.bit_length() - 1))


def live_bytes(regenerate: Callable[..., Any], image_shape: tuple[int, ...]) -> int:
  """Bytes that an image takes while `regenerate` runs.

  Args:
    regenerate: as `default_chunk_size` takes it.
    image_shape: (H,W,C).

  Returns:
    The most that is needed at the same time, were every operation of the traced function
    carried out by itself, in order. A compiler fuses some, and so needs less.
  """
  # Of several images, so that a conversion of the weights hardly counts.
  num = 8
  images = jax.ShapeDtypeStruct((num, *image_shape), jnp.float32)
  numbers = jax.ShapeDtypeStruct((num,), jnp.int32)
  return _peak_bytes(jax.make_jaxpr(regenerate)(images, numbers, numbers).jaxpr) // num


def _peak_bytes(jaxpr: core.Jaxpr) -> int:
  """The most bytes that results of the operations take at a time, if each is freed when due."""
  last_use = {}
  for i, eqn in enumerate(jaxpr.eqns):
    last_use |= {v: i for v in eqn.invars if isinstance(v, core.Var)}
  last_use |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if isinstance(v, core.Var)}
  live, peak = {}, 0
  for i, eqn in enumerate(jaxpr.eqns):
    inner = max(map(_peak_bytes, core.jaxprs_in_params(eqn.params)), default=0)
    made = {v: v.aval.size * v.aval.dtype.itemsize for v in eqn.outvars}
    peak = max(peak, sum(live.values()) + max(inner, sum(made.values())))
    live |= made
    live = {v: size for v, size in live.items() if last_use.get(v, i) > i}
  return peak
