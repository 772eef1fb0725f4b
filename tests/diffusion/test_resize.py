"""Images for a diffusion model of another size or other channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffence_jax.diffusion import fit_images

IMAGES = jax.random.uniform(jax.random.key(0), (2, 12, 8, 1))


def test_images_of_the_right_shape_are_left_as_they_are():
  np.testing.assert_array_equal(fit_images(IMAGES, (12, 8, 1)), IMAGES)


def test_gray_is_repeated_and_channels_are_averaged():
  colour = fit_images(IMAGES, (12, 8, 3))
  np.testing.assert_array_equal(colour, np.repeat(IMAGES, 3, axis=-1))
  gray = fit_images(colour * jnp.array([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3), (12, 8, 1))
  np.testing.assert_allclose(gray, 0.5 * IMAGES, rtol=1e-6)


@pytest.mark.parametrize("size", [(24, 16), (6, 4), (5, 7)])
def test_scaling_is_the_antialiased_one_of_pillow(size):
  """Pillow's bilinear resampling widens its triangle when it scales down, independently."""
  own = fit_images(IMAGES, (*size, 1))[..., 0]
  for image, scaled in zip(np.asarray(IMAGES[..., 0]), own, strict=True):
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(scaled, np.asarray(expected), atol=1e-5)


def test_up_and_back_keeps_a_smooth_image():
  smooth = jnp.broadcast_to(jnp.linspace(0.0, 1.0, 16).reshape(1, 16, 1, 1), (1, 16, 16, 1))
  back = fit_images(fit_images(smooth, (64, 64, 3)), (16, 16, 1))
  np.testing.assert_allclose(back, smooth, atol=0.02)


def test_colours_that_do_not_match_are_refused():
  with pytest.raises(ValueError, match="2 channels and 3 are asked for"):
    fit_images(jnp.zeros((1, 4, 4, 2)), (4, 4, 3))
