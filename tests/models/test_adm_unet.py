"""The ADM U-Net: attention, conditioning, resampling, precision, training and bad fields."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from drawn import drawn_variables, noised

from diffence_jax.diffusion import ddpm_loss, linear_schedule
from diffence_jax.models import ADMUNet, denoiser, init, num_parameters
from diffence_jax.models.adm_blocks import Attention
from diffence_jax.models.adm_unet import time_embedding
from diffence_jax.models.unet_layers import halve

SMALL = functools.partial(
  ADMUNet,
  out_channels=1,
  channels=8,
  multipliers=(1, 2),
  attention_levels=(1,),
  num_res_blocks=1,
  num_head_channels=4,
)


def shapes_of(module, size=32):
  shape = (size, size, module.out_channels)
  return jax.eval_shape(functools.partial(init, module, image_shape=shape), jax.random.key(0))


@pytest.mark.parametrize(
  ("fields", "millions"), [({}, 552.81), ({"num_classes": 1000}, 553.84)]
)
def test_default_network_has_the_published_number_of_parameters(fields, millions):
  shapes = shapes_of(ADMUNet(out_channels=3, **fields))
  assert round(num_parameters(shapes) / 1e6, 2) == millions


def test_time_embedding_has_cosines_before_sines():
  embedded = time_embedding(jnp.array([0, 160, 999]), 12)
  for row, t in enumerate((0, 160, 999)):
    for i in range(6):
      angle = t * 10000 ** (-2 * i / 12)
      np.testing.assert_allclose(embedded[row, i], np.cos(angle), atol=2e-4)
      np.testing.assert_allclose(embedded[row, 6 + i], np.sin(angle), atol=2e-4)


def slow_attention(x, params, heads, order):
  """Attention [L,C] of one image, head by head and query by query, without the residual."""
  length, features = x.shape
  size = features // heads
  qkv = x @ params["qkv"]["kernel"][0] + params["qkv"]["bias"]
  out = np.empty_like(x)
  for head in range(heads):
    if order == "legacy":
      starts = [(3 * head + i) * size for i in range(3)]
    else:
      starts = [i * features + head * size for i in range(3)]
    query, key, value = (qkv[:, start : start + size] for start in starts)
    for position in range(length):
      scores = np.exp(key @ query[position] / np.sqrt(size))
      out[position, head * size : (head + 1) * size] = scores / scores.sum() @ value
  return out @ params["out"]["kernel"][0] + params["out"]["bias"]


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize(("head_channels", "heads"), [(4, None), (None, 2)])
def test_attention_is_that_of_a_slow_loop(order, head_channels, heads):
  module = Attention(
    groups=4, num_head_channels=head_channels, num_heads=heads, order=order, dtype=jnp.float32
  )
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 5, 12))
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(x.shape))
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.5, shapes)["params"]
  out = module.apply(
    {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)},
    jnp.asarray(x, jnp.float32),
  )
  grouped = x.reshape(2, 15, 4, 3)
  mean = grouped.mean(axis=(1, 3), keepdims=True)
  variance = grouped.var(axis=(1, 3), keepdims=True)
  normed = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(2, 15, 12)
  normed = normed * params["norm"]["scale"] + params["norm"]["bias"]
  expected = [slow_attention(image, params, heads or 3, order) for image in normed]
  np.testing.assert_allclose(out, x + np.reshape(expected, x.shape), atol=2e-5)


def test_the_class_is_needed_matters_and_can_be_bound():
  module = SMALL(num_classes=3, multipliers=(1,), attention_levels=())
  variables = drawn_variables(module)
  denoise = jax.jit(denoiser(module, variables))
  x, t = noised(2, (4, 4))
  out = denoise(x, t, jnp.array([0, 2]))
  other = denoise(x, t, jnp.array([1, 2]))
  assert np.abs(out[0] - other[0]).max() > 1e-3
  np.testing.assert_array_equal(out[1], other[1])
  bound = lambda x, t: denoise(x, t, jnp.full(t.shape, 2))
  np.testing.assert_allclose(bound(x, t)[1], out[1], atol=1e-6)
  with pytest.raises(ValueError, match=r"conditional on 3 classes.*got none.*bind them"):
    module.apply(variables, x, t)
  with pytest.raises(ValueError, match=r"labels i32\[2\]; got labels of shape \(\)"):
    module.apply(variables, x, t, jnp.array(1))
  with pytest.raises(ValueError, match=r"unconditional.*Leave them out"):
    jax.eval_shape(SMALL().init, jax.random.key(0), x, t, jnp.array([0, 2]))


def test_halving_averages_squares_and_what_is_left_at_the_edge():
  x = jnp.arange(15.0).reshape(1, 3, 5, 1)
  expected = [[(0 + 1 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4, (4 + 9) / 2], [10.5, 12.5, 14.0]]
  np.testing.assert_array_equal(halve(x)[0, :, :, 0], expected)


@pytest.mark.parametrize("resblock_updown", [True, False])
def test_any_size_gives_noise_and_variance_of_that_size(resblock_updown):
  module = SMALL(resblock_updown=resblock_updown, scale_shift_norm=resblock_updown)
  x, t = noised(2, (5, 3))
  out = jax.jit(module.apply)(drawn_variables(module), x, t)
  assert out.shape == (2, 5, 3, 2) and out.dtype == jnp.float32
  assert np.isfinite(out).all() and np.std(out) > 1e-3


def test_resampling_by_convolutions_has_the_published_parameters():
  params = shapes_of(SMALL(resblock_updown=False, scale_shift_norm=False))["params"]
  assert params["down_2_0"]["kernel"].shape == (3, 3, 8, 8)
  assert params["up_1_2"]["kernel"].shape == (3, 3, 16, 16)
  assert params["down_1_0"]["time"]["kernel"].shape == (32, 8)


def test_dropout_is_for_training():
  module = SMALL(dropout=0.5, multipliers=(1,), attention_levels=())
  variables = drawn_variables(module)
  x, t = noised(2, (4, 4))
  apply = functools.partial(module.apply, variables, x, t, train=True)
  drop = jax.jit(lambda key: apply(rngs={"dropout": key}))
  train = lambda seed: drop(jax.random.key(seed))
  np.testing.assert_array_equal(train(0), train(0))
  assert np.abs(train(0) - train(1)).max() > 1e-3
  assert np.abs(train(0) - jax.jit(module.apply)(variables, x, t)).max() > 1e-3


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.05), ("float16", 0.005)])
def test_half_precision_is_close_and_keeps_float32_parameters(dtype, tolerance):
  module = SMALL(multipliers=(1,), attention_levels=())
  half = module.clone(dtype=jnp.dtype(dtype))
  variables = drawn_variables(half)
  x, t = noised(4, (8, 8))
  expected = jax.jit(module.apply)(variables, x, t)
  out = jax.jit(half.apply)(variables, x, t)
  assert out.dtype == jnp.float32
  assert 0 < np.abs(out - expected).max() / np.abs(expected).max() < tolerance
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes_of(half))} == {jnp.dtype("float32")}


def test_a_fresh_network_predicts_nothing_and_learns():
  module = SMALL(learned_variance=False, multipliers=(1,), attention_levels=())
  params = init(module, jax.random.key(0, impl="rbg"), (4, 4, 1))
  x, t = noised(2, (4, 4))
  assert not np.any(jax.jit(module.apply)(params, x, t))
  schedule = linear_schedule()
  images = jnp.full((16, 4, 4, 1), 0.5)
  optimizer = optax.sgd(0.1, momentum=0.9)

  @jax.jit
  def step(params, state, key):
    loss = lambda params: ddpm_loss(key, denoiser(module, params), schedule, images)
    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value

  state, losses = optimizer.init(params), []
  for key in jax.random.split(jax.random.key(1), 30):
    params, state, loss = step(params, state, key)
    losses.append(loss)
  assert 0.75 < losses[0] < 1.25  # zeros: the variance of the noise
  assert np.mean(losses[-10:]) < 0.5 * losses[0]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"channels": 7}, "channels is 7"),
    ({"channels": 36}, r"levels of \[36, 72\] features.*multiples of 32"),
    ({"multipliers": (1, 1.5)}, r"levels of \[8, 12\] features.*multiples of 8"),
    ({"multipliers": (), "attention_levels": ()}, "at least one level"),
    ({"attention_levels": (16,)}, r"attention_levels has \[16\].*log2"),
    ({"num_head_channels": 64}, "num_head_channels is 64; attention is over 16 features"),
    ({"num_heads": 4}, "num_heads is 4 and num_head_channels is 4"),
    ({"num_heads": 3, "num_head_channels": None}, "num_heads is 3; attention is over 16"),
    ({"attention_order": "old"}, "attention_order is 'old'; expected 'legacy' or 'new'"),
    ({"out_channels": 2}, r"x has shape \(1, 8, 8, 1\); expected \[N, H, W, 2\]"),
  ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(SMALL(**fields).init, jax.random.key(0), *noised(1, (8, 8)))


def test_one_step_for_many_images_is_refused():
  x, _ = noised(2, (8, 8))
  with pytest.raises(ValueError, match="t has shape"):
    jax.eval_shape(SMALL().init, jax.random.key(0), x, jnp.array(3))
