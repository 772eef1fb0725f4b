"""The residual classifiers: statistics, normalisation, precision, and that they learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffence_jax.models import ResNet18, ResNet50, SmallResNet, init, num_parameters

TINY = functools.partial(SmallResNet, num_classes=3, width=8, stages=(1, 1))


def images(n, size=8, channels=1, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.uniform(size=(n, size, size, channels)), jnp.float32)


@pytest.fixture(scope="module")
def tiny_variables():
  # "rbg" draws compile in a third of the time.
  return init(TINY(), jax.random.key(0, impl="rbg"), (8, 8, 1))


def test_numbers_of_parameters():
  count = lambda module: num_parameters(
    jax.eval_shape(functools.partial(init, module, image_shape=(32, 32, 3)), jax.random.key(0))
  )
  assert count(ResNet18(num_classes=10)) == 11_173_962
  assert count(SmallResNet(num_classes=10)) == 308_650
  # As torchvision's documentation gives them for 1,000 classes.
  assert count(ResNet18(num_classes=1000, stem="large")) == 11_689_512
  assert count(ResNet50(num_classes=1000, stem="large")) == 25_557_032


@pytest.mark.parametrize("size", [8, 7, 28])
def test_logits_have_one_row_an_image(tiny_variables, size):
  out = TINY().apply(tiny_variables, images(4, size))
  assert out.shape == (4, 3) and out.dtype == jnp.float32
  assert np.isfinite(out).all()


def test_evaluation_looks_at_each_image_alone(tiny_variables):
  batch = images(5)
  apply = functools.partial(TINY().apply, tiny_variables)
  alone = jnp.concatenate([apply(batch[i : i + 1]) for i in range(5)])
  np.testing.assert_allclose(apply(batch), alone, atol=1e-5)


def test_training_uses_the_batch_and_moves_the_running_statistics(tiny_variables):
  batch = 0.3 * images(16)
  train = functools.partial(TINY().apply, tiny_variables, train=True, mutable=["batch_stats"])
  logits, updated = train(batch)
  assert np.abs(logits - TINY().apply(tiny_variables, batch)).max() > 1e-3
  kernel = np.asarray(tiny_variables["params"]["stem_conv"]["kernel"])
  padded = np.pad((np.asarray(batch) - 0.5) / 0.5, ((0, 0), (1, 1), (1, 1), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
  stem = np.einsum("nhwcij,ijcf->nhwf", windows, kernel)
  stats = updated["batch_stats"]["stem_norm"]
  np.testing.assert_allclose(stats["mean"], 0.1 * stem.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * stem.var((0, 1, 2)), atol=1e-4)


def test_group_normalisation_has_the_same_parameters_and_no_statistics(tiny_variables):
  variables = init(TINY(norm="group"), jax.random.key(0, impl="rbg"), (8, 8, 1))
  assert set(variables) == {"params"}
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  assert shapes(variables["params"]) == shapes(tiny_variables["params"])


def test_group_normalisation_takes_each_image_and_group_for_itself():
  module, batch = TINY(norm="group"), images(5)
  variables = init(module, jax.random.key(0, impl="rbg"), (8, 8, 1))
  logits, seen = module.apply(variables, batch, train=True, capture_intermediates=True)
  np.testing.assert_array_equal(logits, module.apply(variables, batch, train=False))
  alone = jnp.concatenate([module.apply(variables, batch[i : i + 1]) for i in range(5)])
  np.testing.assert_allclose(logits, alone, atol=1e-5)
  seen = seen["intermediates"]
  raw, normed = (np.asarray(seen[name]["__call__"][0]) for name in ("stem_conv", "stem_norm"))
  groups = raw.reshape(5, -1, 2, 4)  # 8 channels are 2 groups of 4
  expected = groups - groups.mean((1, 3), keepdims=True)
  expected /= np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)
  np.testing.assert_allclose(normed, expected.reshape(raw.shape), atol=1e-4)


def test_another_normalisation_is_refused():
  with pytest.raises(ValueError, match="norm is 'layer'; expected 'batch' or 'group'"):
    jax.eval_shape(TINY(norm="layer").init, jax.random.key(0), images(1))


def test_normalisation_is_part_of_the_classifier(tiny_variables):
  raw = images(2)
  np.testing.assert_allclose(
    TINY(mean=(0.4,), std=(0.2,)).apply(tiny_variables, raw),
    TINY(mean=(0.0,), std=(1.0,)).apply(tiny_variables, (raw - 0.4) / 0.2),
    atol=1e-5,
  )


def test_bfloat16_is_close_to_float32(tiny_variables):
  full = TINY().apply(tiny_variables, images(4))
  half = TINY(dtype=jnp.bfloat16).apply(tiny_variables, images(4))
  assert half.dtype == jnp.float32
  assert 0 < np.abs(half - full).max() < 0.05 * np.abs(full).max()


def test_small_data_is_learnt_by_heart(tiny_variables):
  rng = np.random.default_rng(0)
  x, y = images(48), jnp.asarray(rng.integers(0, 3, 48))  # random labels: only memory helps
  module, optimizer, variables = TINY(), optax.sgd(0.1, momentum=0.9), tiny_variables
  state = optimizer.init(variables["params"])

  @jax.jit
  def step(variables, state):
    def loss(params):
      logits, updated = module.apply(
        {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
      )
      return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), updated

    gradient, updated = jax.grad(loss, has_aux=True)(variables["params"])
    change, state = optimizer.update(gradient, state)
    return {"params": optax.apply_updates(variables["params"], change), **updated}, state

  for _ in range(60):
    variables, state = step(variables, state)
  assert (module.apply(tiny_variables, x).argmax(-1) != y).any()
  assert (module.apply(variables, x).argmax(-1) == y).all()


@pytest.mark.parametrize("shape", [(8, 8, 1), (2, 8, 8)])
def test_what_is_no_batch_of_images_is_refused(shape):
  with pytest.raises(ValueError, match="images has shape"):
    jax.eval_shape(TINY().init, jax.random.key(0), jnp.zeros(shape))


def test_a_mean_for_another_number_of_channels_is_refused():
  with pytest.raises(ValueError, match="mean has 3 values for images of 1 channels"):
    jax.eval_shape(TINY(mean=(0.1, 0.2, 0.3)).init, jax.random.key(0), images(1))
