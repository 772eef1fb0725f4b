"""The store: committed whole or not at all, found again, checked, and held by one run."""

import dataclasses
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from diffence_jax.disk import ArtifactError, write_atomically
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.store import Store, locked


@dataclasses.dataclass(frozen=True)
class Written(Stage):
  """Writes its text."""

  name: ClassVar[str] = "train"

  text: str = "one"

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `value.txt`."""
    del store, compute
    (folder / "value.txt").write_text(self.text)

  def cost(self) -> str:
    """None."""
    return "nothing"


def write(content):
  return lambda path: (path / "value.txt").write_text(content)


def test_a_finished_artifact_is_never_computed_twice(tmp_path):
  store, stage = Store(tmp_path, {"device": "cpu"}), Written()
  assert not store.is_done(stage)
  path = store.compute(stage, write("one"))
  assert path == tmp_path / "train" / stage.fingerprint
  store.compute(stage, write("two"))
  assert (path / "value.txt").read_text() == "one"
  manifest = store.manifest(stage)
  assert manifest["fields"] == {"text": "one"} and manifest["device"] == "cpu"
  assert set(manifest["files"]) == {"value.txt"}


@dataclasses.dataclass(frozen=True)
class Reads(Written):
  """Depends on another stage."""

  name: ClassVar[str] = "reads"

  other: Stage | None = None


def test_a_stage_reads_what_it_depends_on_and_nothing_else(tmp_path):
  store, first = Store(tmp_path), Written("first")
  second, stranger = Reads(other=first), Written("stranger")
  third = Reads(other=second)
  for stage in (first, second, stranger):
    store.compute(stage, write("text"))
  own = store.for_inputs_of(third)
  assert own.open(first) == store.path(first) and own.open(second) == store.path(second)
  with pytest.raises(LookupError, match="reads the train, which is no field of it"):
    own.open(stranger)
  assert store.open(stranger) == store.path(stranger)


def test_a_run_that_was_killed_before_its_first_stage_is_not_another_versions(tmp_path):
  Store(tmp_path).prepare()
  (tmp_path / "run.json").write_text("{}")
  Store(tmp_path)
  (tmp_path / "format.json").unlink()
  (tmp_path / "run.json").rename(tmp_path / "train")
  Store(tmp_path)  # nothing of a run is there


def test_a_workdir_of_an_old_table_of_defenses_is_refused(tmp_path):
  """It had finished stages and no `run.json`."""
  Store(tmp_path).compute(Written(), write("one"))
  (tmp_path / "format.json").unlink()
  with pytest.raises(ArtifactError, match="another version made it"):
    Store(tmp_path)


def test_what_a_killed_run_left_is_handed_to_the_next_and_not_mistaken(tmp_path):
  store, stage = Store(tmp_path), Written()

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
  assert store.manifest(stage)["resumed"]


@pytest.mark.parametrize("method", ["replace", "rename"])
def test_a_run_killed_while_it_commits_leaves_nothing_in_the_way(tmp_path, monkeypatch, method):
  """Killed before the manifest is in place the stage is computed again, after it never."""
  store, stage = Store(tmp_path), Written()
  store.compute(Written("other"), write("other"))  # the workdir's own file is there

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
  store, stage = Store(tmp_path), Written()
  (store.compute(stage, write("good")) / "manifest.json").unlink()
  with pytest.raises(ArtifactError, match=r"manifest.json is missing.*Delete the folder"):
    Store(tmp_path).compute(stage, write("good"))


@pytest.mark.parametrize(
  "damage", ["change", "remove", "manifest", "list", "outside", "seconds", "resumed", "other"]
)
def test_damage_is_an_error_that_says_what_to_delete(tmp_path, damage):
  store, stage = Store(tmp_path), Written()
  path = store.compute(stage, write("good"))
  manifest = path / "manifest.json"
  content = json.loads(manifest.read_text())
  if damage == "change":
    (path / "value.txt").write_text("evil")
  elif damage == "remove":
    (path / "value.txt").unlink()
  elif damage == "manifest":
    manifest.write_text("{")
  elif damage == "list":
    manifest.write_text(json.dumps({**content, "files": ["value.txt"]}))
  elif damage == "outside":
    manifest.write_text(json.dumps({**content, "files": {"../../run.json": "0" * 64}}))
  elif damage == "other":
    manifest.write_text(json.dumps({**content, "fingerprint": "0" * 16}))
  else:
    manifest.write_text(json.dumps({**content, damage: "?"}))
  for use in (lambda s: s.compute(stage, write("good")), lambda s: s.open(stage)):
    with pytest.raises(ArtifactError, match=f"Delete the folder {path} and run again"):
      use(Store(tmp_path))


def test_damage_deep_inside_an_artifact_names_the_artifact(tmp_path):
  store, stage = Store(tmp_path), Written()

  def deep(folder):
    (folder / "variables").mkdir()
    (folder / "variables" / "kernel").write_text("good")

  path = store.compute(stage, deep)
  (path / "variables" / "kernel").write_text("evil")
  with pytest.raises(ArtifactError, match=f"kernel is not.*Delete the folder {path} and run"):
    Store(tmp_path).verify(stage)


def test_what_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
  store, stage = Store(tmp_path), Written()
  store.compute(stage, write("good"))

  def refuse(*arguments, **named):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr("pathlib.Path.read_text", refuse)
  with pytest.raises(PermissionError):
    store.manifest(stage)


def test_what_is_read_is_looked_at_once(tmp_path, monkeypatch):
  stage = Written()
  Store(tmp_path).compute(stage, write("good"))
  looked_at, store = [], Store(tmp_path)
  monkeypatch.setattr("diffence_jax.disk.verify", lambda path, *_: looked_at.append(path))
  assert store.open(stage) == store.open(stage)
  assert looked_at == [store.path(stage)]


def test_what_is_not_there_says_what_to_run(tmp_path):
  with pytest.raises(
    FileNotFoundError, match=r"has no train of this config.*first run diffence"
  ):
    Store(tmp_path).open(Written())


def test_a_file_is_replaced_whole(tmp_path):
  write_atomically(tmp_path / "a.txt", "one")
  write_atomically(tmp_path / "a.txt", "two")
  assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
  assert (tmp_path / "a.txt").read_text() == "two"


def test_a_workdir_is_for_its_owner_alone(tmp_path):
  with locked(tmp_path / "new" / "run"):
    assert stat.S_IMODE((tmp_path / "new" / "run").stat().st_mode) == 0o700
  Store(tmp_path / "other").compute(Written(), write("one"))
  assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o700


@pytest.mark.parametrize(
  "name, text", [("run.json", "{}"), ("format.json", '{"workdir_format": 7}'),
                 ("format.json", "[]")]
)  # fmt: skip
def test_a_workdir_of_another_version_is_refused(tmp_path, name, text):
  (tmp_path / name).write_text(text)
  with pytest.raises(ArtifactError, match="another version made it"):
    Store(tmp_path)


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


def test_a_lock_is_not_put_where_a_link_leads(tmp_path):
  (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
  with pytest.raises(ArtifactError, match="cannot be written"), locked(tmp_path):
    pass
  assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
  def refuse(*arguments):
    raise OSError(38, "Function not implemented")

  monkeypatch.setattr("fcntl.flock", refuse)
  with (
    pytest.raises(ArtifactError, match=r"has no locks.*choose a workdir on"),
    locked(tmp_path),
  ):
    pass


@pytest.mark.skipif(
  not Path("/dev/full").exists(), reason="needs the device that is always full"
)
def test_a_disk_that_is_full_is_named_whoever_writes(tmp_path):
  store, stage = Store(tmp_path), Written()

  def write_arrays(folder):
    with open("/dev/full", "wb") as file:
      np.savez(file, values=np.zeros(10_000))

  with pytest.raises(OSError, match=f"The disk of {tmp_path}, .* is full: No space left"):
    store.compute(stage, write_arrays)
  assert not store.is_done(stage)
  assert (store.compute(stage, write("one")) / "value.txt").read_text() == "one"


@pytest.mark.parametrize(
  "change, message",
  [
    ({"files": {}}, "manifest.json is no list of the folder's files"),
    ({"seconds": float("nan")}, "manifest.json is not of this artifact"),
  ],
)
def test_a_manifest_that_vouches_for_nothing_is_damaged(tmp_path, change, message):
  file = Store(tmp_path).compute(Written(), write("one")) / "manifest.json"
  file.write_text(json.dumps(json.loads(file.read_text()) | change))
  with pytest.raises(ArtifactError, match=message):
    Store(tmp_path).open(Written())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
  (tmp_path / "train").write_text("")
  with pytest.raises(ArtifactError, match=r"partial cannot be made: .* Delete the file"):
    Store(tmp_path).compute(Written(), write("one"))


def test_what_is_in_the_place_of_the_formats_file_is_named(tmp_path):
  (tmp_path / "format.json").mkdir()
  with pytest.raises(ArtifactError, match=r"format\.json is no file, .* Delete it if"):
    Store(tmp_path)


def test_a_link_that_leads_to_itself_is_no_artifact(tmp_path):
  path = Store(tmp_path).path(Written())
  path.parent.mkdir()
  path.symlink_to(path)
  with pytest.raises(ArtifactError, match=f"Delete the folder {path} and run again"):
    Store(tmp_path).compute(Written(), write("one"))


def test_a_workdir_whose_name_is_too_long_is_named():
  with pytest.raises(ArtifactError, match=r"The workdir /tmp/xxx.* cannot be read: File name"):
    Store(Path("/tmp") / ("x" * 300))
