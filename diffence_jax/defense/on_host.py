"""Candidates of a predictor that runs on the host: re-generated compiled, answered in between.

Nothing calls back from inside a compiled program. There a function that uses JAX itself could
wait for the program that waits for it, and it would be asked chunk by chunk: what re-generates
best is small, what a classifier answers best is large.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffence_jax import parallel
from diffence_jax.batching import cut, even_size, filled, round_up
from diffence_jax.defense.pairs import (
  as_key,
  check_finite,
  chunk_size_for,
  pair_images,
  pair_key,
)
from diffence_jax.diffusion.schedule import Schedule
from diffence_jax.predictor import Denoise, Predict, as_argument, ask, refuse_traced

# Images f32[P,H,W,C], ids i32[P], candidate numbers i32[P].
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]

# What the predictor is asked at a time, unless the caller's batch is larger: images, and bytes.
_MOST_IMAGES = 1024
_MOST_BYTES = 64 * 2**20


def make_host_candidates(
  predict: Predict,
  denoise: Denoise,
  schedule: Schedule,
  *,
  num_candidates: int,
  chunk_size: int | None = None,
  mesh: Mesh | None = None,
  **sampler: Any,
) -> Callable[[jax.Array, jax.Array, jax.Array], np.ndarray]:
  """Builds `candidate_logits` for a predictor that runs on the host.

  It is asked about all candidates at once, or, where they are more, about as many at a time as
  there are images, which the caller has found to fit, or 1,024 of at most 64 MiB together.

  Args:
    predict: a predictor that `runs_on_host`; this and the next two as `candidate_logits` takes
      them.
    denoise: the noise-prediction network.
    schedule: its noise schedule.
    num_candidates: M, at least 1.
    chunk_size: re-generations that go through `denoise` at a time, on every device; None as in
      `candidate_logits`.
    mesh: to split them over; None for one device.
    **sampler: as `reconstruct` takes it, with `step`.

  Returns:
    `(key, images f32[N,H,W,C], ids i32[N]) -> logits f[N,M,K]`. It raises FloatingPointError
    where a re-generation is not finite, and TypeError under a caller's `jit`.
  """
  answer = make_host_answers(predict, denoise, schedule, mesh=mesh, **sampler)
  chunk_size_of = chunk_size_for(chunk_size, predict, denoise, schedule, **sampler)

  def draw(key, images, ids):
    refuse_traced(predict, key, images, ids)
    images, ids = np.asarray(images), np.asarray(ids, np.int32)
    total = len(images) * num_candidates
    most = chunk_size_of(images.shape[1:]) * (1 if mesh is None else mesh.size)
    # A few sizes, so that batches of any size share their programs.
    size = min(most, round_up(even_size(total, most), 3))
    if mesh is not None:
      size = -(-size // mesh.size) * mesh.size
    at_once = max(len(images), min(_MOST_IMAGES, _MOST_BYTES // images[0].nbytes))
    at_once = max(1, at_once // size) * size
    parts = []
    for start in range(0, total, at_once):
      positions = np.arange(start, min(start + at_once, total), dtype=np.int32)
      rows, candidates = np.divmod(positions, np.int32(num_candidates))
      parts.append(answer(key, (images[rows], ids[rows], candidates), [size]))
    return np.concatenate(parts).reshape(len(images), num_candidates, -1)

  return draw


def make_host_answers(
  predict: Predict,
  denoise: Denoise,
  schedule: Schedule,
  *,
  mesh: Mesh | None = None,
  **sampler: Any,
) -> Callable[[jax.Array, Pairs, Sequence[int]], np.ndarray]:
  """Builds the function of pairs that re-generates all of them and asks about all at once.

  Args:
    predict: as `make_host_candidates` takes it, like the rest.
    denoise: the noise-prediction network.
    schedule: its noise schedule.
    mesh: to split every batch over; None for one device.
    **sampler: as `reconstruct` takes it, with `step`.

  Returns:
    `(key, pairs, sizes) -> logits f[P,K]`; `sizes` are those of the compiled batches, falling.
    It raises FloatingPointError where a re-generation is not finite.
  """
  regenerate = _compile_regeneration(mesh, *as_key(sampler))
  place = lambda tree: tree if mesh is None else parallel.replicate(mesh, tree)
  networks = place((as_argument(denoise), schedule))

  def answer(key, pairs, sizes):
    shared = (place(key), *networks)
    purified = in_parts(functools.partial(regenerate, shared), pairs, sizes, mesh)
    # Else the function would be asked about NaN.
    check_finite(np.isfinite(purified).all(axis=(1, 2, 3)))
    return np.asarray(ask(predict, pair_key(key, *pairs[1:]), purified))

  return answer


def in_parts(
  function: Callable[..., Any],
  arrays: Sequence[np.ndarray],
  sizes: Sequence[int],
  mesh: Mesh | None = None,
) -> Any:
  """A compiled function of P rows, called on batches of a few sizes.

  Args:
    function: of the arrays; a pytree of arrays, a row for every row.
    arrays: of P rows each.
    sizes: of batches, falling; on a mesh multiples of its size.
    mesh: to split every batch over; None for one device.

  Returns:
    Its results for all rows, in NumPy.
  """
  results, total = [], len(arrays[0])
  for part, size in cut(total, sizes):
    # A part that is too short repeats its last row, cut off again below.
    rows = filled(part.start, size, part.stop)
    batch = tuple(array[rows] for array in arrays)
    results.append(function(*(batch if mesh is None else parallel.shard_batch(mesh, batch))))
  join = lambda *parts: np.concatenate(parts)[:total]
  return jax.tree.map(join, *jax.device_get(results))


# A few, so that known members, non-members and clients' images share a program.
@functools.lru_cache(maxsize=4)
def _compile_regeneration(mesh: Mesh | None, *sampler: tuple[str, Any]) -> Callable[..., Any]:
  """Compiles `((key, denoise, schedule), *pairs) -> f32[P,H,W,C]`, `pairs.pair_images`."""

  def regenerate(shared, images, ids, candidates):
    return pair_images(*shared, images, ids, candidates, **dict(sampler))

  return jax.jit(regenerate if mesh is None else parallel.map_over_batch(regenerate, mesh))
