"""The contract of training-time defenses, for every one of ours: it trains, and it resumes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_attacker import SmallAttacker

from diffence_jax import models, parallel
from diffence_jax.training import Recipe, TrainSettings, advreg, train_classifier
from diffence_jax.training.registry import DEFENSES, make_recipe

SETTINGS = TrainSettings(20, epochs=4, batch_size=8, learning_rate=1e-2, weight_decay=0.0)
# Where the default is too much for so little training.
OPTIONS = {
  "selena": {"num_teachers": 4, "num_left_out": 2},
  "early_stopping": {"stop_after": 3},
  "dpsgd_tuned": {"target_epsilon": 1000.0, "multiplicity": 2},
}
# As its attack network takes 26 steps for two of the classifier's.
EPOCHS = {"advreg": 8}
NUM_CLASSES = 3


@pytest.fixture(autouse=True)
def standard_dtype_promotion():
  """Whatever the caller set, as here strict promotion, training takes no notice."""


@pytest.fixture(autouse=True)
def small_attacker(monkeypatch):
  """What takes most of advreg's time is as published in test_advreg.py."""
  monkeypatch.setattr(advreg, "AttackNetwork", SmallAttacker)


class KilledError(Exception):
  """Stands for a process that ends at once."""


def data(seed, num):
  """Images of which a band of rows is brighter: which one, is the label."""
  rng = np.random.default_rng(seed)
  labels = np.arange(num) % NUM_CLASSES
  bands = np.arange(8) // 3 == labels[:, None]
  images = rng.integers(0, 120, (num, 8, 8, 1)) + 120 * bands[:, :, None, None]
  return {"images": images.astype(np.uint8), "labels": labels.astype(np.int32)}


@functools.cache
def recipe_of(name, settings):
  module = models.make_classifier("small_resnet", num_classes=NUM_CLASSES, width=4, stages=(1,))
  return make_recipe(name, module, settings, **OPTIONS.get(name, {}))


def train(recipe, folder, num_members=20, checkpoint_every=1000):
  return train_classifier(
    recipe,
    data(0, num_members),
    data(1, 12),
    checkpoint_every=checkpoint_every,
    seed=0,
    mesh=parallel.batch_mesh(),
    directory=folder,
  )


@pytest.mark.parametrize("name", DEFENSES.known)
def test_it_trains(name, tmp_path):
  epochs = EPOCHS.get(name, 20)
  recipe = recipe_of(name, dataclasses.replace(SETTINGS, num_members=60, epochs=epochs))
  assert isinstance(recipe, Recipe) and set(recipe.schedule) == set(recipe.kinds)
  variables = train(recipe, tmp_path, num_members=60)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
  unseen = data(2, 90)
  predict = models.predictor(recipe.answering, variables)
  logits = predict(None, jnp.asarray(unseen["images"] / 255, jnp.float32))
  assert logits.shape == (90, NUM_CLASSES)
  # By chance 30 +- 4.5 are right.
  assert (np.argmax(logits, axis=1) == unseen["labels"]).sum() > 50


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """`whole(name) -> variables` of a training that nothing has killed."""
  return functools.cache(
    lambda name: train(recipe_of(name, SETTINGS), tmp_path_factory.mktemp(name))
  )


@pytest.mark.parametrize(
  ("name", "killed_at"),
  [*((name, 5) for name in DEFENSES.known), ("advreg", 35), ("advreg", 62)],
)
def test_a_killed_training_goes_on_to_the_same_bits(
  name, killed_at, whole, tmp_path, monkeypatch
):
  recipe = recipe_of(name, SETTINGS)
  assert len(recipe.schedule) > killed_at
  expected = whole(name)
  shard, calls = parallel.shard_batch, []

  def dying(mesh, batch):
    calls.append(None)
    if len(calls) == killed_at:
      raise KilledError
    return shard(mesh, batch)

  with monkeypatch.context() as patch:
    patch.setattr(parallel, "shard_batch", dying)
    with pytest.raises(KilledError):
      train(recipe, tmp_path / "killed", checkpoint_every=3)
  resumed = train(recipe, tmp_path / "killed")
  jax.tree.map(np.testing.assert_array_equal, resumed, expected)
