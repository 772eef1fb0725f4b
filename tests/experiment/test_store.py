"""The store: committed whole or not at all, found again, checked, and held by one run."""

import subprocess
import sys

import pytest

from diffence_jax.disk import write_atomically
from diffence_jax.experiment.store import ArtifactError, Stage, Store, locked


def write(content):
  return lambda path: (path / "value.txt").write_text(content)


def test_a_finished_artifact_is_never_computed_twice(tmp_path):
  store, stage = Store(tmp_path, {"device": "cpu"}), Stage("train", {"a": 1})
  assert not store.is_done(stage)
  path = store.compute(stage, write("one"))
  assert path == tmp_path / "train" / stage.fingerprint
  store.compute(stage, write("two"))
  assert (path / "value.txt").read_text() == "one"
  manifest = store.manifest(stage)
  assert manifest["settings"] == {"a": 1} and manifest["device"] == "cpu"
  assert set(manifest["files"]) == {"value.txt"}


def test_the_fingerprint_covers_settings_inputs_and_version():
  first = Stage("data", {"seed": 0})
  stages = [
    first,
    Stage("data", {"seed": 1}),
    Stage("data", {"seed": 0}, version=2),
    Stage("train", {"lr": 1.0}, (first,)),
    Stage("train", {"lr": 1.0}, (Stage("data", {"seed": 1}),)),
    Stage("train", {"lr": 2.0}, (first,)),
  ]
  assert len({stage.fingerprint for stage in stages}) == len(stages)
  assert Stage("data", {"seed": 0}).fingerprint == first.fingerprint


def test_what_a_killed_run_left_is_handed_to_the_next_and_not_mistaken(tmp_path):
  store, stage = Store(tmp_path), Stage("train", {})

  def killed(path):
    (path / "resume").mkdir()
    (path / "resume" / "step").write_text("7")
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    store.compute(stage, killed)
  assert not store.is_done(stage)

  def resumed(path):
    (path / "value.txt").write_text((path / "resume" / "step").read_text())

  path = store.compute(stage, resumed)
  assert (path / "value.txt").read_text() == "7"
  assert not (path / "resume").exists()


@pytest.mark.parametrize("method", ["replace", "rename"])
def test_a_run_killed_while_it_commits_leaves_nothing_in_the_way(tmp_path, monkeypatch, method):
  """Killed before the manifest is in place the stage is computed again, after it never."""
  store, stage = Store(tmp_path), Stage("train", {})

  def killed(*arguments):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(f"pathlib.Path.{method}", killed)
    with pytest.raises(KeyboardInterrupt):
      store.compute(stage, write("one"))
  path = store.compute(stage, write("two"))
  assert (path / "value.txt").read_text() == ("two" if method == "replace" else "one")
  assert set(store.manifest(stage)["files"]) == {"value.txt"}


def test_an_artifact_without_a_manifest_is_not_computed_over(tmp_path):
  store, stage = Store(tmp_path), Stage("train", {})
  (store.compute(stage, write("good")) / "manifest.json").unlink()
  with pytest.raises(ArtifactError, match=r"manifest.json is missing.*Delete the folder"):
    store.compute(stage, write("good"))


@pytest.mark.parametrize("damage", ["change", "remove", "manifest"])
def test_damage_is_an_error_that_says_what_to_delete(tmp_path, damage):
  store, stage = Store(tmp_path), Stage("train", {})
  path = store.compute(stage, write("good"))
  if damage == "change":
    (path / "value.txt").write_text("evil")
  elif damage == "remove":
    (path / "value.txt").unlink()
  else:
    (path / "manifest.json").write_text("{")
  with pytest.raises(ArtifactError, match=f"Delete the folder .*{stage.fingerprint}"):
    store.compute(stage, write("good"))


def test_a_file_is_replaced_whole(tmp_path):
  write_atomically(tmp_path / "a.txt", "one")
  write_atomically(tmp_path / "a.txt", "two")
  assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
  assert (tmp_path / "a.txt").read_text() == "two"


def test_two_runs_cannot_share_a_workdir_but_a_dead_one_leaves_it(tmp_path):
  hold = (
    "import sys; from diffence_jax.experiment.store import locked\n"
    f"with locked({str(tmp_path)!r}): print('held', flush=True); sys.stdin.read()"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == "held\n"
  with pytest.raises(ArtifactError, match="Another run"), locked(tmp_path):
    pass
  process.kill()
  process.wait()
  with locked(tmp_path):
    pass


def test_a_workdir_that_cannot_be_made_is_an_error(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(ArtifactError, match="cannot be written"), locked(tmp_path / "file"):
    pass
