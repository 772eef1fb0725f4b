"""Defenses whose steps are of several kinds, killed at any step, go on to the same bits."""

import dataclasses

import jax
import numpy as np
import pytest

from diffence_jax import models, parallel
from diffence_jax.training import TrainSettings, train_classifier
from diffence_jax.training.registry import make_recipe

SETTINGS = TrainSettings(20, epochs=4, batch_size=8, learning_rate=1e-2, weight_decay=0.0)


class KilledError(Exception):
  """Stands for a process that ends at once."""


def data(seed, num):
  rng = np.random.default_rng(seed)
  return {
    "images": rng.integers(0, 256, (num, 8, 8, 1)).astype(np.uint8),
    "labels": rng.integers(0, 3, num).astype(np.int32),
  }


@pytest.mark.parametrize(
  ("name", "killed_at"), [("relaxloss", 5), ("advreg", 35), ("advreg", 62), ("dpsgd", 6)]
)
def test_a_killed_training_goes_on_to_the_same_bits(name, killed_at, tmp_path, monkeypatch):
  module = models.make_classifier("small_resnet", num_classes=3, width=4, stages=(1,))
  recipe = make_recipe(name, module, SETTINGS)
  assert len(recipe.schedule) > killed_at

  def train(folder):
    return train_classifier(
      recipe,
      data(0, 20),
      data(1, 12),
      checkpoint_every=3,
      seed=0,
      mesh=parallel.batch_mesh(),
      directory=tmp_path / folder,
    )

  whole = train("whole")
  shard, calls = parallel.shard_batch, []

  def dying(mesh, batch):
    calls.append(None)
    if len(calls) == killed_at:
      raise KilledError
    return shard(mesh, batch)

  with monkeypatch.context() as patch:
    patch.setattr(parallel, "shard_batch", dying)
    with pytest.raises(KilledError):
      train("killed")
  resumed = train("killed")
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_relaxloss_shuffles_every_epoch_anew():
  """The two kinds share one stream: every epoch has all members, in an order of its own."""
  recipe = make_recipe(
    "relaxloss",
    models.make_classifier("small_resnet", num_classes=3, width=4),
    dataclasses.replace(SETTINGS, batch_size=10),
  )
  streams = {name: kind.batches({"members": 20}, 0, 0) for name, kind in recipe.kinds.items()}
  rows = [next(streams[kind])["members"] for kind in recipe.schedule]
  epochs = [np.concatenate(rows[i : i + 2]) for i in range(0, 8, 2)]
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(20))
  assert len({tuple(epoch) for epoch in epochs}) == 4
  # From the middle on, they are the same.
  later = recipe.kinds["flatten"].batches({"members": 20}, 0, 1)
  np.testing.assert_array_equal(next(later)["members"], rows[3])
