"""Modules and plain functions as predictors and denoisers."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffence_jax.models import denoiser, init, num_parameters, predictor


class Linear(nn.Module):
  """A user's own classifier, without a training mode."""

  @nn.compact
  def __call__(self, images):
    return nn.Dense(3)(images.reshape(images.shape[0], -1))


def test_a_module_without_training_mode_is_a_predictor_that_ignores_its_key():
  x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 1))
  variables = init(Linear(), jax.random.key(1), (4, 4, 1))
  predict = predictor(Linear(), variables)
  dense = variables["params"]["Dense_0"]
  expected = np.asarray(x).reshape(2, -1) @ np.asarray(dense["kernel"])
  np.testing.assert_allclose(predict(None, x), expected, atol=1e-6)
  np.testing.assert_array_equal(predict(jax.random.key(2), x), predict(None, x))


def test_a_batch_normalised_module_is_bound_to_its_running_statistics():
  class Normalised(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
      return nn.BatchNorm(use_running_average=not train, epsilon=0.0)(images.mean((1, 2)))

  variables = init(Normalised(), jax.random.key(0), (4, 4, 3))
  variables["batch_stats"]["BatchNorm_0"]["mean"] += 2.0
  x = jax.random.uniform(jax.random.key(1), (2, 4, 4, 3))
  predict = jax.jit(predictor(Normalised(), variables))
  np.testing.assert_allclose(predict(None, x), x.mean((1, 2)) - 2.0, atol=1e-6)


def test_a_module_whose_default_is_training_is_bound_in_evaluation_mode():
  class Noisy(nn.Module):
    @nn.compact
    def __call__(self, images, train=True):
      return nn.Dropout(0.5, deterministic=not train)(images.mean((1, 2)))

  x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3))
  np.testing.assert_array_equal(predictor(Noisy(), {})(None, x), x.mean((1, 2)))


def test_plain_functions_are_bound_to_their_variables():
  x = jnp.ones((2, 4, 4, 3))
  predict = predictor(lambda scale, images: scale * images.mean((1, 2)), 2.0)
  np.testing.assert_array_equal(predict(None, x), np.full((2, 3), 2.0))
  denoise = denoiser(lambda scale, x, t: scale * x * t[:, None, None, None], 0.5)
  np.testing.assert_array_equal(denoise(x, jnp.array([0.0, 4.0]))[1], np.full((4, 4, 3), 2.0))


def test_a_denoiser_is_initialised_and_bound_with_images_and_steps():
  class Network(nn.Module):
    @nn.compact
    def __call__(self, x, t, *, train=True):
      scale = self.param("scale", nn.initializers.constant(3.0), (x.shape[-1],), jnp.float32)
      noise = x * scale[None, None, None, :] + t.astype(jnp.float32)[:, None, None, None]
      return nn.Dropout(0.5, deterministic=not train)(noise)

  variables = init(Network(), jax.random.key(0), (4, 4, 2))
  assert variables["params"]["scale"].shape == (2,)
  x, t = jax.random.normal(jax.random.key(1), (2, 4, 4, 2)), jnp.array([3, 500])
  expected = 3 * np.asarray(x) + np.array([3, 500]).reshape(2, 1, 1, 1)
  np.testing.assert_allclose(denoiser(Network(), variables)(x, t), expected, rtol=1e-6)


@pytest.mark.parametrize("bind", [predictor, denoiser])
def test_what_is_neither_module_nor_function_is_refused(bind):
  with pytest.raises(TypeError, match="Got a dict; expected a Flax module"):
    bind({"params": {}}, None)


def test_running_statistics_are_not_counted():
  variables = {"params": {"a": np.zeros((2, 3)), "b": np.zeros(4)}, "batch_stats": np.zeros(9)}
  assert num_parameters(variables) == 10
  assert num_parameters(variables["params"]) == 10


def test_an_nnx_module_is_bound_in_evaluation_mode_and_left_in_its_own():
  class Normalised(nnx.Module):
    def __init__(self, rngs):
      self.norm = nnx.BatchNorm(3, epsilon=0.0, use_bias=False, rngs=rngs)
      self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, images):
      return self.drop(self.norm(images.mean((1, 2))))

  module = Normalised(nnx.Rngs(0))
  module.norm.mean[...] += 2.0
  x = jax.random.uniform(jax.random.key(1), (2, 4, 4, 3))
  predict = predictor(module)
  answers = jax.jit(lambda predict, x: predict(None, x))(predict, x)
  np.testing.assert_allclose(answers, x.mean((1, 2)) - 2.0, atol=1e-6)
  assert not module.drop.deterministic and not module.norm.use_running_average
  module.norm.mean[...] += 1.0  # what was bound stays as it was
  np.testing.assert_array_equal(predict(None, x), answers)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class PerImage:
  """As Equinox's modules: a callable pytree of one image, with functions among its leaves."""

  weight: jax.Array
  activation: object

  def __call__(self, image):
    return self.activation(image.reshape(-1) @ self.weight)


def test_a_callable_pytree_is_bound_and_mapped_over_images():
  model = PerImage(jax.random.normal(jax.random.key(0), (16, 3)), jnp.tanh)
  x = jax.random.uniform(jax.random.key(1), (5, 4, 4, 1))
  predict = predictor(model, per_image=True)
  assert [leaf.shape for leaf in jax.tree.leaves(predict)] == [(16, 3)]
  expected = np.stack([np.tanh(image.reshape(-1) @ model.weight) for image in np.asarray(x)])
  np.testing.assert_allclose(predict(None, x), expected, atol=1e-5)
  denoise = denoiser(jax.tree_util.Partial(lambda scale, x, t: scale * x, jnp.float32(2.0)))
  np.testing.assert_array_equal(denoise(x, jnp.zeros(5, jnp.int32)), 2 * x)


def test_a_linen_module_needs_its_variables():
  with pytest.raises(TypeError, match="expected them as the second argument"):
    predictor(Linear())
  with pytest.raises(TypeError, match="Got a int; expected a Flax module"):
    predictor(3)
