"""Images for a diffusion model of another size, and back."""

import jax
import jax.numpy as jnp


def fit_images(images: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
  """Scales images to another size, antialiased, and repeats or averages their channels.

  Args:
    images: f32[N,H,W,C].
    shape: (H', W', C') to give them, C' equal to C, or one of the two 1.

  Returns:
    f32[N,H',W',C'], in the same range; the images themselves where nothing is to be done.

  Raises:
    ValueError: there is no way from C to C' channels.
  """
  channels = images.shape[-1]
  if channels != shape[-1]:
    if 1 not in (channels, shape[-1]):
      raise ValueError(
        f"The images have {channels} channels and {shape[-1]} are asked for; only gray images, "
        "of one channel, can be repeated, and only all channels averaged."
      )
    if channels > shape[-1]:
      images = jnp.mean(images, axis=-1, keepdims=True)
  if images.shape[1:3] != tuple(shape[:2]):
    size = (images.shape[0], *shape[:2], images.shape[-1])
    images = jax.image.resize(images, size, "linear", antialias=True)
  # Repeated last: there is less to scale.
  return jnp.broadcast_to(images, (images.shape[0], *shape))
