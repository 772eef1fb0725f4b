"""DP-SGD tuned for accuracy: what is added to DP-SGD, and that its guarantee is the same."""

import dataclasses
import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffence_jax import models
from diffence_jax.compiling import compiled_quickly
from diffence_jax.data import augment
from diffence_jax.training import TrainSettings
from diffence_jax.training.accounting import epsilon
from diffence_jax.training.dpsgd import dpsgd
from diffence_jax.training.dpsgd_tuned import dpsgd_tuned, standardised, views_of
from diffence_jax.training.private_gradient import private_gradient

SETTINGS = TrainSettings(40, epochs=3, batch_size=8, learning_rate=1e-2, weight_decay=1e-3)
WITHOUT = {"multiplicity": 1, "ema_decay": 0.0, "standardise": False}
NUM, CLASSES = 6, 3


class Classifier(nn.Module):
  """Small, with a convolution."""

  @nn.compact
  def __call__(self, images, *, train: bool = False):
    x = nn.tanh(nn.Conv(2, (3, 3), padding="VALID")(images)).reshape(len(images), -1)
    return nn.Dense(CLASSES)(x)


class Plain(nn.Module):
  """Smaller, with dropout in training."""

  rate: float = 0.0

  @nn.compact
  def __call__(self, images, *, train: bool = False):
    x = nn.tanh(nn.Dense(8)(images.reshape(len(images), -1)))
    return nn.Dense(CLASSES)(nn.Dropout(self.rate, deterministic=not train)(x))


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  return {
    "images": rng.integers(0, 256, (NUM, 4, 4, 1)).astype(np.uint8),
    "labels": rng.integers(0, CLASSES, NUM).astype(np.int32),
    "is_padding": np.zeros(NUM, bool),
  }


@functools.cache
def params():
  return models.init(Plain(), jax.random.key(0), (4, 4, 1))["params"]


def flat(tree):
  return np.asarray(jax.flatten_util.ravel_pytree(tree)[0], np.float64)


@jax.jit
def gradient_of(params, image, label):
  """One version's own gradient, as a vector."""

  def loss(params):
    logits = Plain().apply({"params": params}, image[None] / 255.0)[0]
    return -jax.nn.log_softmax(logits)[label]

  return jax.flatten_util.ravel_pytree(jax.grad(loss)(params))[0]


def test_an_example_is_clipped_once_after_the_mean_over_its_views(batch):
  expected = []
  for image, label in zip(batch["images"], batch["labels"], strict=True):
    versions = augment(image[None], "shifts")[0].astype(np.float32)
    each = [gradient_of(params(), version, label) for version in versions]
    expected.append(np.mean(each, axis=0))
  norms = np.linalg.norm(expected, axis=1)
  clip = float(np.median(norms))
  assert norms.min() < 0.99 * clip and norms.max() > 1.01 * clip
  made = private_gradient(
    Plain(),
    clip_norm=clip,
    noise_multiplier=0.0,
    batch_size=5,
    views=views_of("shifts", 9),
  )
  gradient = jax.jit(made)
  found, metrics = gradient(params(), batch, jax.random.key(0))
  scaled = [g * min(1.0, clip / norm) for g, norm in zip(expected, norms, strict=True)]
  np.testing.assert_allclose(flat(found), np.sum(scaled, axis=0) / 5, rtol=1e-4, atol=1e-6)
  assert metrics["clipped"] == 0.5
  # So one member moves the sum by the clipping norm at most, however many views it has.
  for place, norm in enumerate(norms):
    without = {**batch, "is_padding": np.arange(NUM) == place}
    other, _ = gradient(params(), without, jax.random.key(0))
    moved = 5 * np.linalg.norm(flat(found) - flat(other))
    assert moved == pytest.approx(min(norm, clip), rel=1e-3)


def stepped(recipe, batch, num=2):
  """The states after each of some steps, the start first; "rbg" draws compile faster."""
  state = recipe.init(jax.random.key(1, impl="rbg"), (4, 4, 1))
  step, states = jax.jit(recipe.kinds["train"].step), [state]
  for _ in range(num):
    with compiled_quickly():
      state, _ = step(state, {"members": batch}, jax.random.key(5, impl="rbg"))
    states.append(state)
  return states


def test_with_nothing_added_it_is_dpsgd(batch):
  tuned = dpsgd_tuned(Plain(0.3), SETTINGS, target_epsilon=3.0, **WITHOUT)
  plain = dpsgd(Plain(0.3), SETTINGS, target_epsilon=3.0, clip_norm=1.0)
  assert tuned.guarantee == plain.guarantee and tuned.schedule == plain.schedule
  after = [recipe.variables(stepped(recipe, batch)[-1]) for recipe in (tuned, plain)]
  jax.tree.map(np.testing.assert_array_equal, *after)
  rows = [next(r.kinds["train"].batches({"members": 40}, 3, 0)) for r in (tuned, plain)]
  np.testing.assert_array_equal(rows[0]["members"], rows[1]["members"])


def test_the_classifier_has_the_average_standardised(batch):
  options = {"target_epsilon": 3.0, "multiplicity": 2, "augmentation": "flip"}
  recipe = dpsgd_tuned(Classifier(), SETTINGS, ema_decay=0.15, **options)
  states = stepped(recipe, batch, num=3)
  average = flat(states[0].params)
  for t, state in enumerate(states[1:]):
    decay = min(0.15, (1 + t) / (10 + t))
    average = decay * average + (1 - decay) * flat(state.params)
  np.testing.assert_allclose(flat(states[-1].average), average, rtol=1e-5, atol=1e-7)
  variables = recipe.variables(states[-1])
  expected = standardised(states[-1].average)
  jax.tree.map(np.testing.assert_array_equal, variables, {"params": expected})
  # It was trained as it answers: what only the standardisation undoes has no gradient.
  kernel = states[0].params["Conv_0"]["kernel"]
  moved = {**states[0].params, "Conv_0": {**states[0].params["Conv_0"], "kernel": kernel + 0.7}}
  images = batch["images"] / 255.0
  logits = [
    Classifier().apply({"params": standardised(given)}, images)
    for given in (states[0].params, moved)
  ]
  np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
  "options",
  [{}, {"multiplicity": 4}, {"ema_decay": 0.5}, {"standardise": False}, WITHOUT],
)
def test_what_is_added_costs_no_epsilon(options):
  recipe = dpsgd_tuned(Classifier(), SETTINGS, target_epsilon=3.0, **options)
  assert recipe.guarantee == dpsgd(Classifier(), SETTINGS, target_epsilon=3.0).guarantee
  assert 2.97 <= recipe.guarantee.epsilon <= 3.0


def test_its_batches_and_epochs_are_those_that_are_accounted_for():
  others = dataclasses.replace(SETTINGS, batch_size=2, epochs=9)
  recipe = dpsgd_tuned(Classifier(), others, target_epsilon=3.0, batch_size=8, epochs=3)
  assert len(recipe.schedule) == 40 * 3 // 8
  spent, delta, noise = recipe.guarantee
  assert (spent, delta) == (epsilon(noise, 8 / 40, 15, 1e-5), 1e-5) and spent <= 3.0
  batches = recipe.kinds["train"].batches({"members": 40}, 0, 0)
  drawn = [np.sum(rows["members"] >= 0) for rows in itertools.islice(batches, 400)]
  assert abs(np.mean(drawn) - 8) < 5 * math.sqrt(40 * 0.2 * 0.8 / 400)


def test_kernels_are_standardised_channel_by_channel():
  rng = np.random.default_rng(0)
  kernels = rng.normal(3.0, 2.0, (5, 3, 3, 4, 6)).astype(np.float32)
  kernels[:, :, :, :, 2] = 1.0  # constant: nothing is left of it, and no NaN
  tree = {"conv": {"kernel": kernels, "bias": np.ones(6)}, "head": {"kernel": np.ones((4, 2))}}
  tree["tiny"] = {"kernel": np.full((1, 1, 1, 3), 2.0)}
  found = standardised(jax.tree.map(jnp.asarray, tree))
  for model in range(5):
    for channel in range(6):
      one = kernels[model, ..., channel].astype(np.float64)
      centred = one - one.mean()
      expected = centred / max(np.sqrt(np.sum(centred**2)), 1e-2)
      np.testing.assert_allclose(
        found["conv"]["kernel"][model, ..., channel], expected, atol=1e-6
      )
  jax.tree.map(
    np.testing.assert_array_equal,
    (found["conv"]["bias"], found["head"], found["tiny"]),
    (tree["conv"]["bias"], tree["head"], tree["tiny"]),
  )


def test_views_are_the_image_and_others_of_its_versions(batch):
  image = batch["images"][:1]
  versions = augment(image, "flip_shifts")[0]
  seen, draw = set(), jax.jit(views_of("flip_shifts", 5))
  for key in jax.random.split(jax.random.key(0), 20):
    views = np.asarray(draw(image, key))
    np.testing.assert_array_equal(views[0], image[0])
    which = [
      next(i for i, version in enumerate(versions) if (version == view).all()) for view in views
    ]
    assert len(set(which)) == 5
    seen.update(which)
  assert len(seen) == 18  # each is missed with a chance of (13 / 17)^20, half a percent


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"multiplicity": 10}, "multiplicity is 10; expected a whole number, 1 to 9"),
    ({"multiplicity": 2, "augmentation": "none"}, "multiplicity is 2"),
    ({"augmentation": "crop"}, "augmentation is 'crop'"),
    ({"ema_decay": 1.5}, "ema_decay is 1.5; expected a number, 0.0 to 1.0"),
    ({"standardise": 1}, "standardise is 1; expected True or False"),
    ({"batch_size": 41}, "batch_size is 41; expected a whole number, 1 to 40"),
    ({"epochs": 0}, "epochs is 0"),
    ({"learning_rate": -1.0}, "learning_rate is -1.0"),
    ({"target_epsilon": 0.0}, "target_epsilon is 0.0"),
    ({"target_epsilon": None}, "target_epsilon is None"),
  ],
)
def test_settings_out_of_range_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    dpsgd_tuned(Classifier(), SETTINGS, **options)
