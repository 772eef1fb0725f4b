"""What is compiled quickly computes the same, and nothing stays set; equals share a program."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax import models, parallel
from diffence_jax.compiling import compiled_quickly, shared
from diffence_jax.training import TrainSettings, train_classifier
from diffence_jax.training.registry import make_recipe

TRACES = []


class Traced(nn.Module):
  """A linear classifier that tells when it is traced."""

  @nn.compact
  def __call__(self, images):
    TRACES.append(images.shape)
    return nn.Dense(3)(images.reshape(len(images), -1))


FLAG = "jax_disable_most_optimizations"


def test_it_is_set_within_and_as_before_afterwards():
  before = jax.config.values[FLAG]
  with compiled_quickly(), compiled_quickly():
    assert jax.config.values[FLAG]
  assert jax.config.values[FLAG] == before
  with pytest.raises(ZeroDivisionError), compiled_quickly():
    _ = 1 / 0
  assert jax.config.values[FLAG] == before


def test_a_networks_first_draw_is_the_same_however_it_is_compiled():
  module = models.make_classifier("small_resnet", num_classes=3, width=4, stages=(1,))
  key = jax.random.key(0)
  quickly = models.init(module, key, (8, 8, 1))
  images = np.zeros((1, 8, 8, 1), np.float32)
  usual = jax.jit(module.init, compiler_options={"xla_backend_optimization_level": 3})(
    key, images
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), quickly, usual
  )


def test_equal_arguments_share_what_is_made_and_those_without_a_hash_do_not():
  make = shared(2)(lambda *args: object())
  assert make(1, "a") is make(1, "a") is not make(2, "a")
  assert make([1]) is not make([1])
  usual = make(1)
  with compiled_quickly():
    assert make(1) is not usual
  assert make(1) is usual


@pytest.mark.parametrize("constant_time", [True, False])
def test_other_weights_of_an_equal_network_are_no_other_program(constant_time):
  denoise, images = lambda x, t: 0.1 * x, np.full((2, 4, 4, 1), 0.5, np.float32)
  jax.clear_caches()
  answers = []
  for seed in range(2):
    variables = models.init(Traced(), jax.random.key(seed), (4, 4, 1))
    predict = models.predictor(Traced(), variables)
    TRACES.clear()
    options = {"num_candidates": 2, "chunk_size": 4, "constant_time": constant_time}
    protected = dj.protect(predict, denoise, dj.linear_schedule(), **options)
    answers.append((predict(None, images), protected(jax.random.key(0), images)))
    assert bool(TRACES) == (seed == 0)
  assert not np.array_equal(answers[0][0], answers[1][0])


def test_another_seed_and_number_of_epochs_are_no_other_training_step(tmp_path):
  jax.clear_caches()
  examples = {"images": np.zeros((8, 4, 4, 1), np.uint8), "labels": np.arange(8) % 3}
  for epochs in (1, 2):
    TRACES.clear()
    settings = TrainSettings(
      8, epochs=epochs, batch_size=4, learning_rate=0.1, weight_decay=0.0
    )
    train_classifier(
      make_recipe("undefended", Traced(), settings),
      examples,
      checkpoint_every=100,
      seed=epochs,
      mesh=parallel.batch_mesh(),
      directory=tmp_path / str(epochs),
    )
    assert bool(TRACES) == (epochs == 1)
