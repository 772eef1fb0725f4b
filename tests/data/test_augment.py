"""Augmented versions against a loop over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax.data.augment import KINDS, augment

COUNTS = {"none": 1, "flip": 2, "shifts": 9, "flip_shifts": 18}


def images_of(dtype, shape=(3, 4, 5, 2), seed=0):
  values = np.random.default_rng(seed).integers(0, 256, shape)
  return values.astype(dtype) if dtype == np.uint8 else (values / 255.0).astype(dtype)


def slow(image, mirrored, down, right):
  """One version, pixel by pixel; a pixel from outside is the nearest one inside."""
  height, width, _ = image.shape
  version = np.empty_like(image)
  for row in range(height):
    for column in range(width):
      source_row = min(max(row - down, 0), height - 1)
      source_column = min(max(column - right, 0), width - 1)
      if mirrored:
        source_column = width - 1 - source_column
      version[row, column] = image[source_row, source_column]
  return version


def expected_versions(image, kind):
  mirrors = (False, True) if "flip" in kind else (False,)
  offsets = (-1, 0, 1) if "shifts" in kind else (0,)
  return [slow(image, m, i, j) for m in mirrors for i in offsets for j in offsets]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_versions_are_the_slow_reference(kind, dtype):
  images = images_of(dtype)
  versions = augment(images, kind)
  assert isinstance(versions, np.ndarray) and versions.dtype == dtype
  assert versions.shape == (3, COUNTS[kind], 4, 5, 2)
  np.testing.assert_array_equal(versions[:, 0], images)
  for image, its_versions in zip(images, versions, strict=True):
    found = sorted(version.tobytes() for version in its_versions)
    assert found == sorted(version.tobytes() for version in expected_versions(image, kind))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_jax_arrays_give_the_same_also_when_compiled(kind, dtype):
  images = images_of(dtype)
  for function in (augment, jax.jit(augment, static_argnames="kind")):
    versions = function(jnp.asarray(images), kind=kind)
    assert isinstance(versions, jax.Array) and versions.dtype == dtype
    np.testing.assert_array_equal(versions, augment(images, kind))


@settings(max_examples=20, deadline=None)
@given(
  kind=st.sampled_from(KINDS),
  shape=st.tuples(*[st.integers(1, 4)] * 4),
  seed=st.integers(0, 1000),
)
def test_versions_follow_the_images_whatever_their_size(kind, shape, seed):
  images = images_of(np.uint8, shape, seed)
  versions = augment(images, kind)
  assert versions.shape == (shape[0], COUNTS[kind], *shape[1:])
  np.testing.assert_array_equal(augment(images[::-1], kind), versions[::-1])
  # No version has a pixel that its image has not.
  for image, its_versions in zip(images, versions, strict=True):
    assert np.isin(its_versions, image).all()


def test_the_second_half_belongs_to_the_mirror_image():
  images = images_of(np.uint8)
  versions = augment(images, "flip_shifts")
  np.testing.assert_array_equal(versions[:, :9], augment(images, "shifts"))
  np.testing.assert_array_equal(versions[:, 9:], augment(images[:, :, ::-1], "shifts"))


def test_what_is_not_right_is_refused():
  with pytest.raises(ValueError, match="kind is 'crop'; expected one of 'none', 'flip'"):
    augment(images_of(np.uint8), "crop")
  with pytest.raises(ValueError, match=r"expected \[N, H, W, C\]"):
    augment(images_of(np.uint8)[0], "flip")
