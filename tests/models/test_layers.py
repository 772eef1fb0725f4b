"""What the classifiers share: groups that divide channels, normalised images."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffence_jax.models.layers import normalise, num_groups


@pytest.mark.parametrize(
  ("channels", "groups"),
  [(1, 1), (4, 1), (8, 2), (12, 3), (17, 1), (22, 2), (64, 16), (96, 16), (512, 16)],
)
def test_groups_divide_the_channels(channels, groups):
  assert num_groups(channels) == groups


def test_images_are_normalised_channel_by_channel():
  mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
  raw = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 8, 8, 3)), jnp.float32)
  expected = (np.asarray(raw) - np.array(mean)) / np.array(std)
  np.testing.assert_allclose(normalise(raw, mean, std), expected, atol=1e-5)
  expected = (np.asarray(raw) - 0.5) / 0.25
  np.testing.assert_allclose(normalise(raw, (0.5,), (0.25,)), expected, atol=1e-5)
