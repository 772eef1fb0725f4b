"""Pairs of an image and a candidate's number: one re-generation each, and its logits."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import rng
from diffence_jax.defense.chunks import default_chunk_size
from diffence_jax.diffusion.sampler import reconstruct
from diffence_jax.diffusion.schedule import Schedule
from diffence_jax.predictor import Denoise, Predict, ask, runs_on_host

# Above rng.MAX_ID, so this one's stream is free for the predictor's own randomness.
_NO_ID = 2**32 - 1


def pair_logits(
  key: jax.Array,
  predict: Predict,
  denoise: Denoise,
  schedule: Schedule,
  images: jax.Array,
  ids: jax.Array,
  candidates: jax.Array,
  **sampler: Any,
) -> jax.Array:
  """Logits of one re-generation each of some images, which may be repeated.

  Args:
    key: as `candidate_logits` takes it, and the next three too.
    predict: the predictor.
    denoise: the noise-prediction network.
    schedule: its noise schedule.
    images: f32[P,H,W,C] in [0, 1].
    ids: i32[P], the samples' stable ids.
    candidates: i32[P], candidate numbers from 0: which of its re-generations is meant.
    **sampler: as `reconstruct` takes it.

  Returns:
    f[P,K], the predictor's logits; NaN where a re-generation is not finite.
  """
  purified = pair_images(key, denoise, schedule, images, ids, candidates, **sampler)
  logits = ask(predict, pair_key(key, ids, candidates), purified)
  # Some predictors give numbers for NaN all the same.
  finite = jnp.all(jnp.isfinite(purified), axis=(1, 2, 3))
  return jnp.where(finite[:, None], logits, jnp.nan)


def pair_images(
  key: jax.Array,
  denoise: Denoise,
  schedule: Schedule,
  images: jax.Array,
  ids: jax.Array,
  candidates: jax.Array,
  **sampler: Any,
) -> jax.Array:
  """The re-generations f32[P,H,W,C] themselves; arguments as in `pair_logits`."""
  shape = sampler.get("model_shape") or images.shape[1:]
  keys = rng.candidate_keys(key, ids, candidates)
  noise = jax.vmap(lambda k: jax.random.normal(k, shape, jnp.float32))(keys)
  return reconstruct(None, denoise, schedule, images, noise=noise, **sampler)


def pair_key(key: jax.Array, ids: jax.Array, candidates: jax.Array) -> jax.Array:
  """The key of a predictor that is random itself, for these pairs.

  It is neither the noise's nor that of pairs that begin with another one; of the kind that the
  caller's is.
  """
  return _first_key(key, ids[:1], candidates[:1])


@jax.jit
def _first_key(key, ids, candidates):
  predict_key = jax.random.fold_in(rng.own_key(key), _NO_ID)
  return rng.as_given(rng.candidate_keys(predict_key, ids, candidates)[0], key)


def check_finite(finite: jax.Array | np.ndarray) -> None:
  """Raises FloatingPointError unless all of `finite`, bool[...], is True, where it is known."""
  if not isinstance(finite, jax.core.Tracer) and not np.all(finite):
    raise FloatingPointError(
      f"The candidates of {np.sum(~np.asarray(finite))} of {np.size(finite)} are not finite: "
      "denoise or predict gave NaN or inf. Without them the raw prediction would be all that "
      "is answered. Check both networks' weights, and whether half precision overflows."
    )


def chunk_size_for(
  chunk_size: int | None, predict: Predict, denoise: Denoise, schedule: Schedule, **sampler: Any
) -> Callable[[tuple[int, ...]], int]:
  """Builds the function of the images' shape (H,W,C) that gives the chunk size.

  It is `chunk_size` itself, or for None what is chosen for the shape, once for each.
  """

  @functools.cache
  def of_shape(image_shape):
    if chunk_size is not None:
      return chunk_size
    if runs_on_host(predict):
      drawn = functools.partial(pair_images, rng.seed_key(0), denoise, schedule, **sampler)
    else:
      networks = predict, denoise, schedule
      drawn = functools.partial(pair_logits, rng.seed_key(0), *networks, **sampler)
    return default_chunk_size(drawn, image_shape)

  return of_shape


def as_key(settings: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
  """Settings of the sampler in an order of their own, for a cache of compiled functions."""
  return tuple(
    (name, tuple(value) if isinstance(value, list) else value)
    for name, value in sorted(settings.items())
  )
