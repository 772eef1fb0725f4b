"""The versions of an image that training with augmentation shows to a classifier."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax.checks import check_choice, check_numbers

KINDS = ("none", "flip", "shifts", "flip_shifts")

# Down and right, in pixels; the image as it is comes first.
_SHIFTS = sorted(itertools.product((-1, 0, 1), repeat=2), key=lambda shift: shift != (0, 0))


def augment(images: np.ndarray | jax.Array, kind: str) -> np.ndarray | jax.Array:
  """All versions of every image, the image itself first.

  Args:
    images: [N,H,W,C], NumPy or JAX, of any dtype.
    kind: "none" (1 version), "flip" (2: as it is, and mirrored left to right), "shifts" (9:
      moved by -1, 0 and 1 pixels along both axes, the edges repeated) or "flip_shifts" (18:
      the shifts of the image, then those of its mirror image).

  Returns:
    [N,A,H,W,C], as `images` NumPy or JAX, of the same dtype.

  Raises:
    ValueError: there is no such kind, or the images are not of rank 4.
  """
  check_choice("kind", kind, KINDS)
  if not hasattr(images, "ndim"):
    images = check_numbers("images", images)
  if images.ndim != 4:
    raise ValueError(f"images have shape {images.shape}; expected [N, H, W, C].")
  array = jnp if isinstance(images, jax.Array) else np
  versions = [images]
  if kind in ("flip", "flip_shifts"):
    versions.append(images[:, :, ::-1])
  if kind in ("shifts", "flip_shifts"):
    versions = [shifted for version in versions for shifted in _shifts(array, version)]
  return array.stack(versions, axis=1)


def _shifts(array, images):
  _, height, width, _ = images.shape
  padded = array.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
  return [
    padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
    for down, right in _SHIFTS
  ]
