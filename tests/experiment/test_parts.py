"""Stages in parts: the same whole, whatever the parts, and whoever makes them."""

import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from diffence_jax.experiment.claims import Alone, Claims
from diffence_jax.experiment.parts import InParts, Part, parts_folder
from diffence_jax.experiment.sharing import compute_stage
from diffence_jax.experiment.stage import Compute
from diffence_jax.experiment.store import Store

NUM = 23


@dataclasses.dataclass(frozen=True)
class Squares(InParts):
  """The squares of the first numbers, in parts of `compute.batch_size`."""

  name: ClassVar[str] = "squares"
  loads: ClassVar[list] = []  # once by every process
  made: ClassVar[list] = []  # the first rows of parts

  @property
  def num_rows(self):
    """Of the whole."""
    return NUM

  def rows_at_once(self, compute):
    """As the section says."""
    return compute.batch_size

  def part_writer(self, store, compute):
    """Takes a while for each."""
    self.loads.append(threading.get_ident())

    def write(part, folder):
      time.sleep(0.005)
      self.made.append(part.start)
      np.save(folder / "squares.npy", np.arange(part.start, part.stop) ** 2)

    return write

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Joins them."""
    parts = [np.load(store.open(part) / "squares.npy") for part in self.items(compute)]
    np.save(folder / "squares.npy", np.concatenate(parts))

  def cost(self):
    """Nothing."""
    return "squares"


@pytest.fixture(autouse=True)
def afresh():
  Squares.loads.clear()
  Squares.made.clear()


def squares(workdir, claims=None, size=4):
  store, stage = Store(workdir), Squares()
  compute_stage("squares", stage, store, Compute(batch_size=size), claims or Alone())
  assert not (workdir / parts_folder(stage)).exists()
  assert store.manifest(stage)["seconds"] >= 0.0
  return np.load(store.open(stage) / "squares.npy")


def test_parts_cover_all_rows_once_and_are_few():
  for size in (1, 4, 7, 23, 100):
    parts = Squares().items(Compute(batch_size=size))
    assert [part.stop for part in parts[:-1]] == [part.start for part in parts[1:]]
    assert (parts[0].start, parts[-1].stop) == (0, NUM)
    assert max(part.stop - part.start for part in parts) <= size
    assert len({part.fingerprint for part in parts}) == len(parts)

  class Many(Squares):
    num_rows = 100_001

  parts = Many().items(Compute(batch_size=10))
  assert len(parts) <= 256 and parts[0].stop % 10 == 0 and parts[-1].stop == 100_001


def test_the_whole_does_not_depend_on_the_parts_nor_has_its_name(tmp_path):
  for size in (4, 23):
    assert np.array_equal(squares(tmp_path / str(size), size=size), np.arange(NUM) ** 2)
  assert len(Squares.loads) == 2
  assert (tmp_path / "4" / "squares" / Squares().fingerprint).is_dir()


def test_several_make_each_part_once_and_all_get_the_whole(tmp_path, capsys):
  Store(tmp_path).prepare()  # as a run does, under a claim
  found = []
  beat = lambda: Claims(beat=0.02, stale=1.5)
  work = lambda: found.append(squares(tmp_path, beat(), size=2))
  workers = [threading.Thread(target=work) for _ in range(2)]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join()
  assert sorted(Squares.made) == list(range(0, NUM, 2)) and len(set(Squares.loads)) == 2
  assert all(np.array_equal(one, np.arange(NUM) ** 2) for one in found) and len(found) == 2
  # What each has done is said, and adds up.
  lines = [line.split() for line in capsys.readouterr().err.splitlines() if "process" in line]
  assert sum(int(line[1]) for line in lines) == 12
  assert np.array_equal(squares(tmp_path, beat()), found[0])


def test_parts_that_are_there_are_not_made_again_by_whoever_goes_on(tmp_path):
  """Those of a killed process, one of them claimed by it; and what a part had begun."""
  store, stage, settings = Store(tmp_path), Squares(), Compute(batch_size=4)
  first, second = stage.items(settings)[:2]
  stage.item_worker(store, settings)([first])
  dead = '{"host": "elsewhere", "pid": 1, "key": "k"}'
  store.path(second).with_name(f"{second.fingerprint}.claim").write_text(dead)
  Squares.made.clear()
  squares(tmp_path, Claims(beat=0.02, stale=0.3))
  assert sorted(Squares.made) == list(range(4, NUM, 4))


def test_a_part_is_not_made_when_the_whole_is_there_already(tmp_path, monkeypatch):
  """Between the look and the claim another process has joined all, and removed the parts."""
  store, stage = Store(tmp_path), Squares()

  class Late(Alone):
    def claimed(self, paths, at_most=None):
      if not store.is_done(stage):
        squares(tmp_path)
        Squares.made.clear()
      return super().claimed(paths, at_most)

  compute_stage("squares", stage, store, Compute(batch_size=5), Late())
  assert not Squares.made


def test_parts_that_another_removes_first_are_not_missed(tmp_path):
  """Of two that see the parts of a whole that is there, the second to claim finds none."""
  squares(tmp_path)
  left = tmp_path / parts_folder(Squares())
  left.mkdir()  # by a run that was killed when it had joined them

  class Second(Alone):
    def claimed(self, paths, at_most=None):
      if left.is_dir():
        squares(tmp_path)
      return super().claimed(paths, at_most)

  squares(tmp_path, Second())
  assert not left.exists()


def test_parts_that_a_killed_run_had_half_removed_are_removed(tmp_path):
  squares(tmp_path)
  half = (tmp_path / parts_folder(Squares())).with_suffix(".parts.removed")
  half.mkdir()
  (half / "squares.npy").write_bytes(b"some")
  squares(tmp_path)
  assert not half.exists()


def test_a_damaged_part_is_named(tmp_path):
  store, stage, settings = Store(tmp_path), Squares(), Compute(batch_size=12)
  stage.item_worker(store, settings)(stage.items(settings))
  path = store.path(stage.items(settings)[0]) / "squares.npy"
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match="is not what was written"):
    compute_stage("squares", stage, Store(tmp_path), settings, Alone())
  assert not store.is_done(stage)


def test_a_part_reads_what_the_whole_reads():
  @dataclasses.dataclass(frozen=True)
  class After(Squares):
    before: Squares

  part = Part(After(Squares()), 0, 1)
  assert part.inputs == (Squares(),) and os.sep not in part.fingerprint
