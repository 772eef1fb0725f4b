"""`protect(randomness="per_input")`: the same image, the same answer; another one, another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from defense.test_protect import SCHEDULE, denoise, images_of, predict

import diffence_jax as dj

SECRET = jax.random.key(3)


def protected(**changes):
  options = {"num_candidates": 4, "step": 300, "randomness": "per_input", **changes}
  return dj.protect(predict, denoise, SCHEDULE, **options)


def eight_bit(num):
  return jnp.round(images_of(num) * 255.0) / 255.0


def test_a_repeated_query_gets_the_same_answer_wherever_it_stands():
  images = eight_bit(6)
  first = protected()(SECRET, images)
  order = jnp.array([5, 3, 1, 0, 2, 4])
  np.testing.assert_array_equal(protected()(SECRET, images[order]), first[order])
  twice = jnp.concatenate([images[:3], images[:3]])
  answers = protected()(SECRET, twice)
  np.testing.assert_array_equal(answers[:3], answers[3:])


def test_less_than_a_quantum_of_change_draws_no_new_noise():
  images = eight_bit(6)
  changed = jnp.clip(images + 1e-4, 0.0, 1.0)
  same = np.abs(protected()(SECRET, images) - protected()(SECRET, changed)).max()
  # A tenth of what other noise changes; the image itself has changed a little.
  other = np.abs(protected()(SECRET, images) - protected()(jax.random.key(4), images)).max()
  assert same < 0.1 * other


def test_another_secret_or_another_pixel_value_draws_other_noise():
  images = eight_bit(20)
  answers = protected()(SECRET, images)
  assert np.all(np.any(answers != protected()(jax.random.key(4), images), axis=1))
  pixel = images[:, 0, 0, 0]
  moved = jnp.where(pixel > 0.5, pixel - 1.0 / 255.0, pixel + 1.0 / 255.0)
  changed = protected()(SECRET, images.at[:, 0, 0, 0].set(moved))
  # The change of the image itself is some 0.004 times a weight: other noise shows far above.
  assert np.median(np.abs(answers - changed).max(axis=1)) > 0.1


def test_labels_stay():
  images = images_of(9)
  labels = jnp.argmax(predict(None, images), axis=-1)
  np.testing.assert_array_equal(jnp.argmax(protected()(SECRET, images), axis=-1), labels)


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="randomness is 'per_day'"):
    protected(randomness="per_day")
  with pytest.raises(ValueError, match="expected ids=None"):
    protected()(SECRET, images_of(2), jnp.arange(2))
