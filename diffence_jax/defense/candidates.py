"""Candidates: predictions for re-generated versions of every input."""

from typing import Any

import jax
import jax.numpy as jnp

from diffence_jax import rng
from diffence_jax.checks import check_whole
from diffence_jax.defense.on_host import make_host_candidates
from diffence_jax.defense.pairs import check_finite, chunk_size_for, pair_logits
from diffence_jax.diffusion.sampler import check_sampler
from diffence_jax.diffusion.schedule import Schedule
from diffence_jax.named import nearest, options_of
from diffence_jax.predictor import (
  Denoise,
  Predict,
  are_finite,
  check_function,
  check_ids,
  check_images,
  runs_on_host,
)


def candidate_logits(
  key: jax.Array,
  predict: Predict,
  denoise: Denoise,
  schedule: Schedule,
  images: jax.Array,
  *,
  num_candidates: int = 30,
  step: int = 160,
  ids: jax.Array | None = None,
  chunk_size: int | None = None,
  num_images: jax.Array | None = None,
  **sampler: Any,
) -> jax.Array:
  """Logits of `num_candidates` re-generations of every image, all drawn in one call.

  The N*M re-generations go through both networks in chunks, so memory does not grow with
  either. The noise of candidate j of sample i depends on `key`, `ids[i]` and j alone: batch
  size, order, chunks and sharding change nothing but rounding. (A predictor that is random
  itself gets a key for each chunk, and so depends on them.)

  Args:
    key: a JAX random key.
    predict: a predictor, `(key, images f32[n,H,W,C] in [0,1]) -> logits f[n,K]`.
    denoise: `(x_t f32[n,H,W,C] in model units, t i32[n]) -> predicted noise f32[n,H,W,C]`.
    schedule: the noise schedule of `denoise`.
    images: f[N,H,W,C] in [0, 1].
    num_candidates: M, at least 1.
    step: diffusion steps of noise, 1 to `schedule.num_steps - 1`.
    ids: i32[N], stable ids of the samples; None for their positions in the batch.
    chunk_size: re-generations that go through the networks at a time; None for as many as
      `chunks.default_chunk_size` chooses from the memory at hand.
    num_images: i32[], at least 1: the images after so many only fill the batch up to a size
      that is compiled already; chunks of nothing else are left out, and what is returned for
      them is not defined. None for no such images.
    **sampler: how else each is re-generated, as `reconstruct` takes it: `num_ddim_steps`,
      `clip`, `to_clean`, `model_shape`.

  Returns:
    f[N,M,K], the predictor's logits; NaN where a re-generation is not finite.

  Raises:
    FloatingPointError: some candidates have no finite largest logit. Under a caller's `jit`
      nothing is raised: look with `predictor.are_finite`.
    TypeError: the images are not floating point, there is no such setting, or an argument is
      of another type.
    ValueError: images of a wrong shape, out of range or not finite, or a setting out of range.
  """
  images = check_images(images)
  ids = check_ids(ids, images.shape[0])
  sampler = {"step": step, **sampler}
  check_function("predict", predict, "key, images")
  check_function("denoise", denoise, "x, t")
  rng.own_key(key)
  check_settings(schedule, images.shape[1:], num_candidates, chunk_size, **sampler)
  if runs_on_host(predict):
    settings = {"num_candidates": num_candidates, "chunk_size": chunk_size, **sampler}
    draw = make_host_candidates(predict, denoise, schedule, **settings)
    return jnp.asarray(draw(key, images, ids))
  total = images.shape[0] * num_candidates
  networks = predict, denoise, schedule
  chunk_size = chunk_size_for(chunk_size, *networks, **sampler)(images.shape[1:])
  # Not min: in an exported program N is a symbol.
  chunk_size = jax.core.min_dim(chunk_size, total)
  num_chunks = -(-total // chunk_size)
  if isinstance(total, int):
    # No larger than needed, so that little of the last one is only filled up.
    chunk_size = -(-total // num_chunks)
  num_pairs = total if num_images is None else num_images * num_candidates

  def one_chunk(positions):
    # The last chunk is filled up with repetitions of the last candidate, cut off again below.
    positions = jnp.minimum(positions, num_pairs - 1)
    sample, candidate = positions // num_candidates, positions % num_candidates
    pairs = images[sample], ids[sample], candidate
    return pair_logits(key, *networks, *pairs, **sampler)

  def one_chunk_or_none(positions):
    shape = jax.eval_shape(one_chunk, positions)
    none = lambda _: jnp.zeros(shape.shape, shape.dtype)
    return jax.lax.cond(positions[0] < num_pairs, one_chunk, none, positions)

  chunks = jnp.arange(num_chunks * chunk_size).reshape(num_chunks, chunk_size)
  logits = jax.lax.map(one_chunk if num_images is None else one_chunk_or_none, chunks)
  num_classes = logits.shape[-1]
  logits = logits.reshape(num_chunks * chunk_size, num_classes)[:total]
  logits = logits.reshape(images.shape[0], num_candidates, num_classes)
  check_finite(are_finite(logits))
  return logits


def check_settings(
  schedule: Schedule,
  image_shape: tuple[int, ...] | None,
  num_candidates: int,
  chunk_size: int | None,
  **sampler: Any,
) -> None:
  """Raises unless the purification settings are there (TypeError) and right (ValueError)."""
  known = options_of(check_sampler, 2)
  for name in sampler:
    if name not in known:
      others = (*known, "num_candidates", "chunk_size")
      raise TypeError(f"There is no setting {name!r}{nearest(name, others)}")
  check_whole("num_candidates", num_candidates, 1)
  if chunk_size is not None:
    check_whole("chunk_size", chunk_size, 1)
  check_sampler(schedule, image_shape, **sampler)
