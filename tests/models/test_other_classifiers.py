"""DenseNet, VGG and ViT: sizes, modes, pooling, precision, errors, and that they learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffence_jax.models import VGG16BN, DenseNet121, ViT, init, num_parameters

TINY = {
  "densenet121": DenseNet121(3, width=8, stages=(1, 1)),
  "vgg16_bn": VGG16BN(3, width=8, stages=(1, 2)),
  "vit": ViT(3, width=16, depth=1, heads=2),
}
NORMALISED = ("densenet121", "vgg16_bn")


def images(n, size=8, channels=1, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.uniform(size=(n, size, size, channels)), jnp.float32)


@functools.cache
def variables_of(module, size=8):
  return init(module, jax.random.key(0, impl="rbg"), (size, size, 1))


@functools.partial(jax.jit, static_argnums=0)
def evaluate(module, variables, batch):
  return module.apply(variables, batch)


@functools.partial(jax.jit, static_argnums=0)
def train_mode(module, variables, batch, seed=0):
  """Logits, and the collections that training changes."""
  return module.apply(
    variables,
    batch,
    train=True,
    mutable=["batch_stats"],
    rngs={"dropout": jax.random.key(seed)},
  )


def count(module, image_shape=(32, 32, 3)):
  draw = functools.partial(init, module, image_shape=image_shape)
  return num_parameters(jax.eval_shape(draw, jax.random.key(0)))


def test_numbers_of_parameters():
  # Those of the published state dicts.
  assert count(DenseNet121(10)) == 6_956_298
  assert count(VGG16BN(10)) == 14_728_266
  assert count(ViT(10)) == 9_523_722


@pytest.mark.parametrize("model", [DenseNet121, VGG16BN, ViT])
def test_a_small_width_is_a_small_network(model):
  assert count(model(10, width=8), (28, 28, 1)) < count(model(10), (28, 28, 1)) / 50


@pytest.mark.parametrize("size", [7, 28])
@pytest.mark.parametrize("name", NORMALISED)
def test_any_size_of_image_has_its_logits(name, size):
  out = evaluate(TINY[name], variables_of(TINY[name]), images(4, size))
  assert out.shape == (4, 3) and out.dtype == jnp.float32
  assert np.isfinite(out).all()


def test_a_vit_has_a_position_for_every_patch_and_the_class_token():
  variables = variables_of(TINY["vit"], 28)
  assert variables["params"]["pos_embedding"].shape == (1, 7 * 7 + 1, 16)
  out = evaluate(TINY["vit"], variables, images(4, 28))
  assert out.shape == (4, 3) and out.dtype == jnp.float32


@pytest.mark.parametrize("name", TINY)
def test_evaluation_looks_at_each_image_alone(name):
  batch = images(5)
  apply = functools.partial(evaluate, TINY[name], variables_of(TINY[name]))
  alone = jnp.concatenate([apply(batch[i : i + 1]) for i in range(5)])
  np.testing.assert_allclose(apply(batch), alone, atol=1e-5)
  assert np.ptp(alone, axis=0).min() > 1e-4


@pytest.mark.parametrize("name", NORMALISED)
def test_batch_normalisation_takes_the_batch_and_moves_the_running_statistics(name):
  module, batch = TINY[name], images(8)
  variables = variables_of(module)
  logits, updated = train_mode(module, variables, batch)
  assert np.abs(logits - evaluate(module, variables, batch)).max() > 1e-3
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max() > 0, variables["batch_stats"], updated["batch_stats"]
  )
  assert jax.tree.all(moved)


@pytest.mark.parametrize("name", NORMALISED)
def test_group_normalisation_takes_each_image_for_itself(name):
  module, batch = TINY[name].clone(norm="group"), images(5)
  variables = variables_of(module)
  assert set(variables) == {"params"}
  logits, _ = train_mode(module, variables, batch)
  np.testing.assert_allclose(logits, evaluate(module, variables, batch), atol=1e-6)
  alone = [train_mode(module, variables, batch[i : i + 1])[0] for i in range(5)]
  np.testing.assert_allclose(logits, jnp.concatenate(alone), atol=1e-5)


def test_dropout_is_for_training_and_follows_its_key():
  module, batch = TINY["vit"], images(4)
  variables = variables_of(module)
  assert set(variables) == {"params"}
  first, again, other = (train_mode(module, variables, batch, seed)[0] for seed in (1, 1, 2))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3
  assert np.abs(first - evaluate(module, variables, batch)).max() > 1e-3
  without = module.clone(dropout=0.0)
  logits, _ = train_mode(without, variables, batch)
  np.testing.assert_allclose(logits, evaluate(module, variables, batch), atol=1e-6)


def halved(x, reduce):
  """Every 2x2 block of [N,H,W,C] reduced, those at the edges over what there is of them."""
  rows, columns = range(0, x.shape[1], 2), range(0, x.shape[2], 2)
  return np.stack(
    [
      np.stack([reduce(x[:, i : i + 2, j : j + 2], axis=(1, 2)) for j in columns], axis=1)
      for i in rows
    ],
    axis=1,
  )


def layer_outputs(module, variables, batch):
  """Output of every layer of a module by name, and its logits."""
  logits, seen = module.apply(variables, batch, capture_intermediates=True)
  outputs = seen["intermediates"]
  outputs.pop("__call__")
  return {name: np.asarray(of["__call__"][0]) for name, of in outputs.items()}, logits


def test_a_densenet_averages_what_is_left_at_the_edges():
  module = DenseNet121(3, width=8, stages=(0, 0))
  seen, _ = layer_outputs(module, variables_of(module, 5), images(2, 5))
  # Statistics that were never updated only divide, by sqrt(1 + eps).
  expected = halved(seen["transition0_conv"], np.mean) / np.sqrt(1 + 1e-5)
  np.testing.assert_allclose(seen["norm"], expected, atol=1e-5)


def test_a_vgg_takes_the_largest_of_what_is_left_at_the_edges():
  module = VGG16BN(3, width=8, stages=(1,))
  variables = variables_of(module, 5)
  seen, logits = layer_outputs(module, variables, images(2, 5))
  features = halved(np.maximum(seen["stage0_norm0"], 0), np.max).mean((1, 2))
  kernel = np.asarray(variables["params"]["head"]["kernel"])  # fresh biases are 0
  np.testing.assert_allclose(logits, features @ kernel, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_bfloat16_is_close_to_float32(name):
  variables = variables_of(TINY[name])
  full = evaluate(TINY[name], variables, images(4))
  half = evaluate(TINY[name].clone(dtype=jnp.bfloat16), variables, images(4))
  assert half.dtype == jnp.float32
  assert 0 < np.abs(half - full).max() < 0.1 * np.abs(full).max()


@pytest.mark.parametrize("name", TINY)
def test_small_data_is_learnt(name):
  x, y = images(16), jnp.asarray(np.random.default_rng(1).integers(0, 3, 16))
  module, optimizer = TINY[name], optax.sgd(0.1, momentum=0.9)
  variables = dict(variables_of(module))
  params, stats = variables.pop("params"), variables
  state = optimizer.init(params)

  @jax.jit
  def step(params, stats, state, key):
    def loss(params):
      logits, updated = module.apply(
        {"params": params, **stats}, x, train=True, mutable=list(stats), rngs={"dropout": key}
      )
      return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), updated

    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    change, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, change), stats, state, value

  losses = []
  for key in jax.random.split(jax.random.key(2), 30):
    params, stats, state, value = step(params, stats, state, key)
    losses.append(float(value))
  assert np.mean(losses[-5:]) < 0.5 * losses[0]


@pytest.mark.parametrize(
  ("module", "shape", "message"),
  [
    (TINY["vit"], (1, 10, 8, 1), "images are 10x8; expected multiples of the patch, 4. Set"),
    (ViT(3, patch=0), (1, 8, 8, 1), "patch is 0; expected at least 1"),
    (ViT(3, width=12), (1, 8, 8, 1), "attention_width is 12; expected a multiple of the 8"),
    (DenseNet121(3, width=7), (1, 8, 8, 1), "width is 7; expected an even number"),
    (DenseNet121(3, norm="layer"), (1, 8, 8, 1), "norm is 'layer'; expected 'batch' or"),
    (VGG16BN(3, norm="layer"), (1, 8, 8, 1), "norm is 'layer'; expected 'batch' or"),
    (VGG16BN(3), (8, 8, 1), r"images has shape \(8, 8, 1\)"),
    (TINY["vit"], (8, 8, 1), r"images has shape \(8, 8, 1\)"),
    (DenseNet121(3), (8, 8, 1), r"images has shape \(8, 8, 1\)"),
    (ViT(3, mean=(0.1, 0.2, 0.3)), (1, 8, 8, 1), "mean has 3 values for images of 1"),
  ],
)
def test_what_does_not_fit_is_refused(module, shape, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))


def test_a_vit_is_for_the_size_of_image_that_it_was_made_for():
  message = r"images have 49 patches, .* \[1, 5, 16\]; expected \[1, 50, 16\]"
  with pytest.raises(ValueError, match=message):
    TINY["vit"].apply(variables_of(TINY["vit"]), images(1, 28))
