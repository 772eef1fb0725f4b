"""Chunk sizes: from what a re-generation needs, and from the memory at hand."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax import models
from diffence_jax.defense import chunks

SHAPE = (8, 8, 1)
IMAGE = 8 * 8 * 4  # bytes


def double_and_add(images, ids, candidates):
  """Needs the images (not its own), their double and the sum at the same time."""
  doubled = images * 2.0
  return images + doubled


def widened_inside(images, ids, candidates):
  """Ten times the image, in a function of its own that is left before the result is made."""
  wide = jax.jit(lambda x: jnp.sum(jnp.repeat(x, 10, axis=3), axis=3, keepdims=True))
  return jnp.exp(wide(images))


def test_what_is_needed_at_a_time_is_counted():
  assert chunks.live_bytes(double_and_add, SHAPE) == 2 * IMAGE
  assert chunks.live_bytes(lambda x, *_: jnp.sin(jnp.sin(jnp.sin(x))), SHAPE) == 2 * IMAGE
  assert 11 * IMAGE <= chunks.live_bytes(widened_inside, SHAPE) <= 21 * IMAGE


@pytest.mark.parametrize("channels", [16, 32])
def test_it_is_near_what_xla_needs_for_a_network(channels):
  module = models.make_denoiser(
    "ddpm_unet", out_channels=1, channels=channels, multipliers=(1, 2), num_res_blocks=1
  )
  variables = models.init(module, jax.random.key(0), SHAPE)
  apply = lambda images, ids, candidates: models.denoiser(module, variables)(images, ids)
  needed = []
  for num in (4, 20):
    images, ids = jnp.zeros((num, *SHAPE)), jnp.zeros(num, jnp.int32)
    compiled = jax.jit(apply).lower(images, ids, ids).compile()
    needed.append(compiled.memory_analysis().temp_size_in_bytes)
  by_xla = (needed[1] - needed[0]) / 16
  assert 1.0 <= chunks.live_bytes(apply, SHAPE) / by_xla <= 2.5


@pytest.mark.parametrize(
  ("limit", "in_use", "expected"),
  [
    (100 * 2 * IMAGE, 0, 32),  # half of it, 50 of them, and down to a power of two
    (100 * 2 * IMAGE, 50 * 2 * IMAGE, 16),
    (10 * 2 * IMAGE, 10 * 2 * IMAGE, 1),
    (2**40, 0, 1024),
  ],
)
def test_half_of_the_free_memory_of_an_accelerator_is_taken(
  limit, in_use, expected, monkeypatch
):
  stats = {"bytes_limit": limit, "bytes_in_use": in_use}
  device = types.SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
  monkeypatch.setattr(jax, "local_devices", lambda: [device])
  assert chunks.default_chunk_size(double_and_add, SHAPE) == expected


def test_on_cpu_a_larger_network_has_smaller_chunks():
  class Wide(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
      return nn.Dense(1)(nn.relu(nn.Dense(self.features)(x)))

  def size_of(features):
    module = Wide(features)
    variables = module.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    return chunks.default_chunk_size(lambda x, *_: module.apply(variables, x), SHAPE)

  sizes = [size_of(features) for features in (1, 1000, 30_000)]
  assert sizes == sorted(sizes, reverse=True) and sizes[0] == 1024 and sizes[-1] < 10


@pytest.mark.parametrize("constant_time", [True, False])
def test_by_default_it_is_chosen_once_for_a_shape_of_images(constant_time, monkeypatch):
  chosen = []

  def choosing(regenerate, image_shape):
    chosen.append(image_shape)
    return 5

  monkeypatch.setattr("diffence_jax.defense.pairs.default_chunk_size", choosing)
  predict = jax.jit(lambda key, x: jnp.stack([x.mean((1, 2, 3)), x.max((1, 2, 3))], axis=1))
  networks = predict, lambda x, t: 0.1 * x, dj.linear_schedule()
  options = {"num_candidates": 3, "step": 50, "constant_time": constant_time}
  images = np.random.default_rng(0).random((4, *SHAPE)).astype(np.float32)
  key = jax.random.key(1)
  protected = dj.protect(*networks, **options)
  answers = [protected(key, images), protected(key, images)]
  protected(key, images[:, :4])
  assert chosen == [SHAPE, (4, 8, 1)]
  expected = dj.protect(*networks, chunk_size=7, **options)(key, images)
  np.testing.assert_allclose(answers, [expected, expected], atol=1e-5)
