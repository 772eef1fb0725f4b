"""What the defense asks of its inputs."""

import jax
import jax.numpy as jnp


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


@jax.jit
def _extremes(images):
  return jnp.min(images), jnp.max(images)
