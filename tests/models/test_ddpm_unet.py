"""The U-Net: sizes, training mode, precision, gradients and first values."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn_variables, noised

from diffence_jax.models import DDPMUNet, init, num_parameters
from diffence_jax.models.ddpm_unet import time_embedding
from diffence_jax.models.unet_layers import GroupNorm

SMALL = functools.partial(
  DDPMUNet, out_channels=1, channels=8, multipliers=(1, 2), num_res_blocks=1
)


def test_default_network_has_the_published_number_of_parameters():
  module = DDPMUNet(out_channels=3)
  shapes = jax.eval_shape(
    functools.partial(init, module, image_shape=(32, 32, 3)), jax.random.key(0)
  )
  assert num_parameters(shapes) == 35_746_307


def test_time_embedding_interleaves_sines_and_cosines():
  embedded = time_embedding(jnp.array([0, 160, 999]), 12)
  for row, t in enumerate((0, 160, 999)):
    for i in range(6):
      angle = t * 10000 ** (-2 * i / 12)
      np.testing.assert_allclose(embedded[row, 2 * i], np.sin(angle), atol=2e-4)
      np.testing.assert_allclose(embedded[row, 2 * i + 1], np.cos(angle), atol=2e-4)


@pytest.mark.parametrize(("groups", "features"), [(8, 8), (8, 24), (32, 64)])
def test_group_norm_is_that_of_flax(groups, features):
  rng = np.random.default_rng(groups + features)
  x = jnp.asarray(rng.normal(3.0, 2.0, (2, 5, 4, features)), jnp.float32)
  params = {
    "scale": jnp.asarray(rng.normal(size=features), jnp.float32),
    "bias": jnp.asarray(rng.normal(size=features), jnp.float32),
  }
  theirs = nn.GroupNorm(groups, epsilon=1e-5, use_fast_variance=False)
  np.testing.assert_allclose(
    GroupNorm(groups).apply({"params": params}, x),
    theirs.apply({"params": params}, x),
    atol=1e-5,
  )


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (7, 9), (1, 5)])
def test_any_size_gives_noise_of_that_size(size):
  module = SMALL(multipliers=(1, 1, 1, 1), attention_levels=(3,))
  variables = drawn_variables(module)
  x, t = noised(2, size)
  out = jax.jit(module.apply)(variables, x, t)
  assert out.shape == x.shape and out.dtype == jnp.float32
  assert np.isfinite(out).all()
  assert np.std(out) > 1e-3


def test_steps_and_images_matter_one_by_one():
  module = SMALL()
  apply = jax.jit(functools.partial(module.apply, drawn_variables(module)))
  x, _ = noised(3, (8, 8))
  out = apply(x, jnp.array([5, 160, 900]))
  moved = apply(x.at[1].add(1.0), jnp.array([5, 160, 100]))
  np.testing.assert_array_equal(moved[0], out[0])
  assert np.abs(moved[1] - out[1]).max() > 1e-3
  assert np.abs(moved[2] - out[2]).max() > 1e-3


def test_a_fresh_network_predicts_almost_nothing_and_has_zero_biases():
  module = SMALL(out_channels=3, multipliers=(1,), attention_levels=(), num_res_blocks=0)
  # "rbg" draws compile in a third of the time.
  variables = init(module, jax.random.key(0, impl="rbg"), (4, 4, 3))
  x, t = noised(2, (4, 4), channels=3)
  assert np.abs(module.apply(variables, x, t)).max() < 1e-3
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    if path[-1].key == "bias":
      assert not leaf.any(), path
  head = np.asarray(variables["params"]["head"]["kernel"])
  bound = np.sqrt(6 / (9 * 3 + 9 * 8))  # Xavier: fans count the 3x3 window
  assert 0.8 * bound < np.abs(head).max() <= bound


def test_gradients_reach_every_parameter():
  module = SMALL()
  variables = drawn_variables(module)
  x, t = noised(2, (5, 5))
  loss = lambda variables: jnp.mean(jnp.square(module.apply(variables, x, t) - x))
  gradient = jax.jit(jax.grad(loss))(variables)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.isfinite(leaf).all(), path
    # Softmax ignores what is common to all keys, so the key's bias has no gradient.
    if not (path[-2].key == "key" and path[-1].key == "bias"):
      assert np.abs(leaf).max() > 0, path


def test_dropout_is_for_training_and_needs_a_key():
  module = SMALL(multipliers=(1,), attention_levels=(), dropout=0.5)
  variables = drawn_variables(module)
  x, t = noised(2, (4, 4))
  train = lambda key: module.apply(variables, x, t, train=True, rngs={"dropout": key})
  first, again, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3
  assert np.abs(first - module.apply(variables, x, t)).max() > 1e-3
  with pytest.raises(Exception, match="dropout"):
    module.apply(variables, x, t, train=True)


def test_bfloat16_is_close_to_float32_and_keeps_float32_parameters():
  variables = drawn_variables(SMALL())
  x, t = noised(4, (8, 8))
  full = jax.jit(SMALL().apply)(variables, x, t)
  half_module = SMALL(dtype=jnp.bfloat16)
  half = jax.jit(half_module.apply)(variables, x, t)
  assert half.dtype == jnp.float32
  error = np.abs(half - full).max() / np.abs(full).max()
  assert 0 < error < 0.05
  shapes = jax.eval_shape(
    functools.partial(init, half_module, image_shape=(8, 8, 1)), jax.random.key(0)
  )
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"channels": 48}, "channels is 48"),
    ({"channels": 7}, "channels is 7"),
    ({"channels": 0}, "channels is 0"),
    ({"attention_levels": (0, 2)}, r"attention_levels has \[2\]"),
    ({"out_channels": 3}, r"x has shape \(1, 8, 8, 1\)"),
  ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(SMALL(**fields).init, jax.random.key(0), *noised(1, (8, 8)))


def test_one_step_for_many_images_is_refused():
  x, _ = noised(2, (8, 8))
  with pytest.raises(ValueError, match="t has shape"):
    jax.eval_shape(SMALL().init, jax.random.key(0), x, jnp.array(3))
