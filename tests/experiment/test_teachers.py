"""The teachers of SELENA's target: shared out, taken over, and the same whoever trains them."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from teachers_script import STAGES, TEACHERS, experiment

from diffence_jax import parallel
from diffence_jax.experiment.parts import parts_folder
from diffence_jax.experiment.run import compute, describe, open_store
from diffence_jax.experiment.stages import teachers as stage_of_teachers
from diffence_jax.training import ensemble, train_classifier

SCRIPT = Path(__file__).with_name("teachers_script.py")


def start(workdir, *how):
  command = [sys.executable, SCRIPT, workdir, *how]
  return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def end(*processes):
  """How many teachers each trained, as it says."""
  said = [process.communicate(timeout=400)[1] for process in processes]
  assert [process.returncode for process in processes] == [0] * len(processes), said
  lines = [line.split() for text in said for line in text.splitlines() if "by this" in line]
  return [int(line[1]) for line in lines if line[0] == "classifier"]


def trained(workdir):
  """The target's variables; nothing else is left beside them."""
  target, store = experiment().classifier, open_store(workdir)
  folder = store.path(target)
  assert [path.name for path in folder.parent.iterdir()] == [folder.name]
  return target.load(store).variables


def assert_same(variables, expected):
  jax.tree.map(np.testing.assert_array_equal, variables, expected)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """The workdir of one process."""
  workdir = tmp_path_factory.mktemp("alone")
  compute(experiment(), open_store(workdir), STAGES)
  return workdir


def test_in_parts_it_is_what_training_alone_gives(alone, tmp_path):
  target = experiment().classifier
  expected = train_classifier(
    target.recipe,
    {"images": target.members.images, "labels": target.members.labels},
    checkpoint_every=500,
    seed=target.seed,
    mesh=parallel.batch_mesh(),
    directory=tmp_path,
  )
  assert_same(trained(alone), expected)


def test_two_share_the_teachers_and_find_what_one_finds(alone, tmp_path):
  open_store(tmp_path).prepare()
  counts = end(*[start(tmp_path) for _ in range(2)])
  # Who came when all was done says nothing.
  assert sum(counts) == TEACHERS or counts == []
  assert_same(trained(tmp_path), trained(alone))


def test_what_a_killed_process_had_claimed_is_taken_over(alone, tmp_path):
  open_store(tmp_path).prepare()
  killed = start(tmp_path, "--die", "2")
  assert killed.wait(400) == -9
  target = experiment().classifier
  assert list(tmp_path.glob(f"{parts_folder(target)}/*.claim"))
  assert f"; 1 of {TEACHERS} cached" in describe(experiment(), tmp_path)
  kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("classifier/*/*/*")}
  assert len(kept) == 2  # the answers of one, and its manifest
  end(start(tmp_path))
  assert_same(trained(tmp_path), trained(alone))


def test_teachers_that_are_done_are_not_trained_again(alone, tmp_path, monkeypatch):
  store, target = open_store(tmp_path), experiment().classifier
  items = target.items(experiment().settings.compute)
  compute(experiment(), store, ("split",))
  work = target.item_worker(store, experiment().settings.compute)
  work(items[:1])
  compiled = ensemble.make_ensemble_step.cache_info().misses
  work(items[1:4])  # another claim compiles nothing anew
  assert ensemble.make_ensemble_step.cache_info().misses == compiled
  assert all(store.manifest(item)["seconds"] >= 0.0 for item in items[:4])
  assert store.manifest(items[0])["seconds"] > 0.0
  train, numbers = stage_of_teachers.train_teachers, []

  def counting(*args, names, **settings):
    numbers.extend(names)
    train(*args, names=names, **settings)

  monkeypatch.setattr(stage_of_teachers, "train_teachers", counting)
  before = sum(store.manifest(item)["seconds"] for item in items[:4])
  compute(experiment(), store, STAGES)
  assert numbers == ["classifier/teacher/4", "classifier/teacher/5"]
  assert store.manifest(target)["seconds"] > before
  assert_same(trained(tmp_path), trained(alone))


def test_a_pod_shares_the_teachers_and_trains_the_target_in_step(alone, tmp_path):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  open_store(tmp_path).prepare()
  end(*[start(tmp_path, f"{address},{number},2") for number in range(2)])
  compared = jax.tree.map(np.allclose, trained(tmp_path), trained(alone))
  assert all(jax.tree.leaves(compared))
