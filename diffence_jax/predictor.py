"""Predictors and denoisers, the two kinds of function all is made of; and what they take."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.tree_util import Partial

from diffence_jax import rng

# `(key, images f32[N,H,W,C] in [0, 1]) -> logits f[N,K]`. A plain classifier ignores its key.
Predict = Callable[[jax.Array | None, jax.Array], jax.Array]

# `(x_t f32[N,H,W,C] in model units, t i32[N]) -> predicted noise f32[N,H,W,C]`.
Denoise = Callable[[jax.Array, jax.Array], jax.Array]


class Bound(NamedTuple):
  """A module, or a function `apply(variables, images)`, and its variables or their shapes."""

  module: nn.Module | Callable[..., jax.Array]
  variables: Any


def as_argument(function: Callable[..., Any]) -> Partial:
  """The function as a pytree, which can be an argument of a compiled one.

  What `models.predictor` and `models.denoiser` return has its variables as leaves. Called from
  inside a compiled function instead, they would be constants of its program: copied with every
  compilation, and another program for other weights.
  """
  return function if isinstance(function, Partial) else Partial(function)


def check_images(images: jax.Array) -> jax.Array:
  """Returns the images as float32; raises on anything that is not a batch in [0, 1].

  Values are looked at only where they are known: under a caller's `jit` shape and dtype are
  checked, and the range is the caller's to keep.

  Args:
    images: f[N,H,W,C] in [0, 1], any floating-point dtype.

  Returns:
    f32[N,H,W,C].

  Raises:
    TypeError: the dtype is not a floating-point one.
    ValueError: wrong rank, an empty batch, values not finite or outside [0, 1].
  """
  images = jnp.asarray(images)
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise TypeError(
      f"images have dtype {images.dtype}; expected floating point in [0, 1]. "
      "Divide 8-bit images by 255."
    )
  if images.ndim != 4:
    raise ValueError(f"images have shape {images.shape}; expected [N, H, W, C].")
  if 0 in images.shape:
    raise ValueError(f"images have shape {images.shape}; expected at least one image.")
  images = images.astype(jnp.float32)
  if isinstance(images, jax.core.Tracer):
    return images
  lowest, highest = _extremes(images)
  if isinstance(lowest, jax.core.Tracer):
    # Known images, and all else that the caller computes is being traced.
    return images
  lowest, highest = float(lowest), float(highest)
  if not (lowest >= 0.0 and highest <= 1.0):
    what = "contain NaN" if lowest != lowest else f"range from {lowest:.6g} to {highest:.6g}"
    raise ValueError(f"images {what}; expected finite values in [0, 1].")
  return images


def check_ids(ids: jax.Array | None, num: int) -> jax.Array:
  """Returns ids i[num], the positions for None; raises ValueError unless they fit."""
  if ids is None:
    return jnp.arange(num)
  if not isinstance(ids, jax.Array) and np.size(ids) and np.max(ids) > rng.MAX_ID:
    raise ValueError(f"The largest id is {np.max(ids)}; expected at most {rng.MAX_ID}.")
  ids = jnp.asarray(ids)
  if ids.shape != (num,) or not jnp.issubdtype(ids.dtype, jnp.integer):
    raise ValueError(f"ids are {ids.dtype}{list(ids.shape)}; expected integers, [{num}].")
  return ids


@jax.jit
def _extremes(images):
  return jnp.min(images), jnp.max(images)
