"""What is compiled quickly computes the same, and nothing stays set."""

import jax
import numpy as np
import pytest

from diffence_jax import models
from diffence_jax.compiling import compiled_quickly

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
