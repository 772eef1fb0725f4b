"""Several steps a call are the steps one by one; no convolutions, which loops slow on CPU."""

import dataclasses
import functools
import itertools
import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffence_jax as dj
from diffence_jax import parallel
from diffence_jax.data import StreamedImages
from diffence_jax.training import (
  TrainSettings,
  train_classifier,
  train_denoiser,
  train_ensemble,
)
from diffence_jax.training.denoiser import DenoiserSettings
from diffence_jax.training.feed import default_steps_per_call, feed
from diffence_jax.training.loop import grouped
from diffence_jax.training.registry import make_recipe

# 20 steps; relaxloss takes 10 of a kind in a row: of four at a time 4, 4, 1 and 1.
SETTINGS = TrainSettings(40, epochs=2, batch_size=4, learning_rate=1e-3, weight_decay=1e-4)
ENDS = [4, 8, 9, 10, 14, 18, 19, 20]


class Dense(nn.Module):
  """A classifier with dropout."""

  @nn.compact
  def __call__(self, images, *, train=False):
    x = nn.relu(nn.Dense(5)(images.reshape(len(images), -1)))
    return nn.Dense(3)(nn.Dropout(0.2, deterministic=not train)(x))


class Denoiser(nn.Module):
  """Looks at each pixel alone."""

  @nn.compact
  def __call__(self, x, t, *, train=False):
    return nn.Dense(1)(nn.relu(nn.Dense(4)(x)))


RNG = np.random.default_rng(0)
EXAMPLES = {
  "images": RNG.integers(0, 256, (40, 4, 4, 1)).astype(np.uint8),
  "labels": RNG.integers(0, 3, 40).astype(np.int32),
}


@functools.cache
def relaxloss():
  # Its aim is above the loss: posteriors are flattened too.
  return make_recipe("relaxloss", Dense(), SETTINGS, alpha=1.5)


def train(directory, steps_per_call, recipe=None, images=EXAMPLES["images"]):
  return train_classifier(
    recipe or relaxloss(),
    {**EXAMPLES, "images": images},
    {name: values[::-1][:10] for name, values in EXAMPLES.items()},
    checkpoint_every=3,
    seed=0,
    mesh=parallel.batch_mesh(),
    directory=directory,
    steps_per_call=steps_per_call,
  )


def assert_same(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@given(
  kinds=st.lists(st.sampled_from("ab"), max_size=30),
  size=st.integers(1, 5),
)
def test_groups_are_whole_or_single_and_the_same_from_any_of_them_on(kinds, size):
  steps = list(zip(kinds, itertools.count(), strict=False))
  groups = list(grouped(iter(steps), size))
  assert [(kind, batch) for kind, batches in groups for batch in batches] == steps
  assert {len(batches) for _, batches in groups} <= {1, size}
  runs = [len(list(run)) for _, run in itertools.groupby(kinds)]
  assert len(groups) == sum(run // size + run % size for run in runs)
  done = 0
  for i, (_, batches) in enumerate(groups):
    assert list(grouped(steps[done:], size)) == groups[i:]
    done += len(batches)


@pytest.mark.parametrize("name", ["relaxloss", "dpsgd"])
def test_a_classifier_is_the_same(name, tmp_path):
  recipe = relaxloss() if name == "relaxloss" else make_recipe(name, Dense(), SETTINGS)
  one, four = (train(tmp_path / str(size), size, recipe) for size in (1, 4))
  assert_same(four, one)
  start = recipe.variables(recipe.init(jax.random.key(0), (4, 4, 1)))
  with pytest.raises(AssertionError):
    assert_same(start, one)


def test_on_cpu_the_default_is_one_step_a_call(tmp_path):
  assert default_steps_per_call("cpu") == 1 and default_steps_per_call("gpu") > 1
  assert_equal(train(tmp_path / "default", None), train(tmp_path / "one", 1))


def test_a_denoiser_is_the_same(tmp_path):
  one, four = (
    train_denoiser(
      Denoiser(),
      EXAMPLES["images"],
      dj.linear_schedule(),
      DenoiserSettings(11, 8, 1e-3, warmup_steps=2, clip_norm=1.0, ema_decay=0.9),
      checkpoint_every=5,
      seed=0,
      mesh=parallel.batch_mesh(),
      directory=tmp_path / str(size),
      steps_per_call=size,
    )
    for size in (1, 4)
  )
  assert_same(four, one)
  losses = []
  for size in (1, 4):
    lines = (tmp_path / str(size) / "metrics.jsonl").read_text().splitlines()
    losses.append({line["step"]: line["loss"] for line in map(json.loads, lines)})
  assert list(losses[0]) == list(range(1, 12)) and list(losses[1]) == [4, 8, 9, 10, 11]
  for step, loss in losses[1].items():
    assert loss == pytest.approx(losses[0][step], rel=1e-5)


def test_an_ensemble_is_the_same():
  membership = np.random.default_rng(1).random((3, 40)) < 0.7
  trained = []
  for at_once, size in ((1, 1), (1, 4), (2, 4)):
    kept = {}
    train_ensemble(
      relaxloss(),
      EXAMPLES,
      None,
      membership,
      names=["a", "b", "c"],
      keep=kept.__setitem__,
      seed=0,
      mesh=parallel.batch_mesh(),
      models_at_once=at_once,
      steps_per_call=size,
    )
    trained.append(kept)
  assert sorted(trained[0]) == [0, 1, 2]
  assert_same(trained[1], trained[0])
  assert_same(trained[2], trained[0])


class KilledError(Exception):
  """Stands for a process that ends at once."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """(variables, folder) of a training by fours that nothing has killed."""
  folder = tmp_path_factory.mktemp("whole")
  return train(folder, 4), folder


@pytest.mark.parametrize("killed_at", [3, 5, 8])
def test_a_killed_training_goes_on_to_the_same_bits(killed_at, whole, tmp_path, monkeypatch):
  """From the checkpoint of the call before: each of the first seven is due for one or two."""
  shard, calls = parallel.shard_batch, []

  def dying(mesh, batch, axis):
    calls.append(batch["members"].shape)
    if len(calls) == killed_at:
      raise KilledError
    return shard(mesh, batch, axis)

  monkeypatch.setattr(parallel, "shard_batch", dying)
  with pytest.raises(KilledError):
    train(tmp_path / "killed", 4)
  assert_equal(train(tmp_path / "killed", 4), whole[0])
  done = max(end for end in [0, *ENDS[: killed_at - 1]] if end in (0, 4, 8, 9, 14, 18))
  assert len(calls) == killed_at + sum(end > done for end in ENDS)
  folders = whole[1], tmp_path / "killed"
  logs = [(folder / "metrics.jsonl").read_text() for folder in folders]
  assert logs[0] == logs[1]
  assert [json.loads(line)["step"] for line in logs[0].splitlines()] == ENDS


def test_a_kind_of_step_is_compiled_for_two_lengths(tmp_path):
  recipe, traces = relaxloss(), []

  def counted(name, step):
    def counting(state, batch, key):
      traces.append(name)
      return step(state, batch, key)

    return counting

  kinds = {
    name: kind._replace(step=counted(name, kind.step)) for name, kind in recipe.kinds.items()
  }
  train(tmp_path, 4, recipe._replace(kinds=kinds))
  assert sorted(traces) == ["flatten"] * 2 + ["relax"] * 2


def test_images_on_disk_are_read_batch_by_batch(tmp_path):
  images, read = EXAMPLES["images"], []

  def reading(rows):
    read.append(len(rows))
    return images[rows]

  streamed = StreamedImages(reading, images.shape)
  assert_equal(train(tmp_path / "disk", 4, images=streamed), train(tmp_path / "memory", 1))
  assert max(read) <= SETTINGS.batch_size


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
  recipe = make_recipe("undefended", Dense(), dataclasses.replace(SETTINGS, learning_rate=1e30))
  with pytest.raises(FloatingPointError, match="lower the learning rate"):
    train(tmp_path, 4, recipe)


def test_less_than_one_step_a_call_is_refused():
  mesh = parallel.batch_mesh()
  with pytest.raises(ValueError, match="steps_per_call is 0; expected a whole number"):
    feed({}, {}, lambda first: iter(()), mesh, 0)
  with pytest.raises(ValueError, match="steps_per_call is 0; expected a whole number"):
    train_ensemble(
      relaxloss(),
      EXAMPLES,
      None,
      np.ones((1, 40), bool),
      names=["a"],
      keep=lambda i, variables: None,
      seed=0,
      mesh=mesh,
      steps_per_call=0,
    )
