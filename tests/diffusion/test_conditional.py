"""Class-conditional denoisers: asked under the predicted label, in every way of protecting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax.diffusion import sample, under_predicted_label

SCHEDULE = dj.linear_schedule(num_steps=10)


@pytest.fixture(scope="module")
def parts():
  """A classifier of three classes, a denoiser with a shade for each, and images."""
  weights = jax.random.normal(jax.random.key(0), (16, 3))
  predict = dj.models.predictor(lambda w, x: (x.reshape(x.shape[0], -1) - 0.5) @ w, weights)
  shades = jnp.array([-0.5, 0.0, 0.5])
  of_labels = dj.models.denoiser(
    lambda shades, x, t, labels: x - shades[labels][:, None, None, None], shades
  )
  images = jax.random.uniform(jax.random.key(1), (9, 4, 4, 1))
  assert len(np.unique(np.argmax(predict(None, images), axis=-1))) == 3
  return predict, of_labels, images


def test_an_image_is_regenerated_under_the_label_that_it_is_given(parts):
  predict, of_labels, images = parts
  key, settings = jax.random.key(2), {"step": 5}
  denoise = under_predicted_label(of_labels, predict)
  made = dj.reconstruct(key, denoise, SCHEDULE, images, **settings)
  labels = np.argmax(predict(None, images), axis=-1)
  for label in range(3):
    fixed = lambda x, t, label=label: of_labels(x, t, jnp.full(t.shape, label))
    expected = dj.reconstruct(key, fixed, SCHEDULE, images, **settings)
    same = np.isclose(made, expected, atol=1e-6).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(same, labels == label)


def test_all_ways_to_protect_draw_the_same_and_keep_labels(parts):
  predict, of_labels, images = parts
  denoise = under_predicted_label(of_labels, predict)
  settings = {"step": 5, "num_candidates": 4}
  answers = [
    dj.protect(predict, denoise, SCHEDULE, **settings, **how)(jax.random.key(3), images)
    for how in ({}, {"constant_time": False})
  ]
  np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-5)
  for answer in answers:
    np.testing.assert_array_equal(np.argmax(answer, -1), np.argmax(predict(None, images), -1))


def test_without_an_image_there_is_no_label(parts):
  predict, of_labels, _ = parts
  with pytest.raises(TypeError, match="there is none; bind labels"):
    denoise = under_predicted_label(of_labels, predict)
    sample(jax.random.key(0), denoise, SCHEDULE, (1, 4, 4, 1), num_ddim_steps=2)
  with pytest.raises(TypeError, match="expected a function of"):
    under_predicted_label(lambda x, t: x, predict)
