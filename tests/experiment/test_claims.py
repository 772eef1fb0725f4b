"""Claims: one process each, given back, taken over from who gives no sign of life."""

import heapq
import json
import subprocess
import sys
import threading
import time

import pytest

from diffence_jax import disk
from diffence_jax.experiment.claims import Alone, Claims, alone_at, clear_claims

IMPORTS = """import os, sys, time
from pathlib import Path
from diffence_jax.experiment.claims import Claims
"""


def claims():
  return Claims(beat=0.02, stale=1.5)


def claim_of(path, **owner):
  path.parent.mkdir(exist_ok=True)
  file = path.with_name(f"{path.name}.claim")
  file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "key": "k", **owner}))
  return file


@pytest.fixture
def paths(tmp_path):
  return [tmp_path / "stage" / str(number) for number in range(4)]


def test_an_artifact_is_claimed_by_one_and_given_back(paths):
  one, other = claims(), claims()
  with one.claimed(paths, at_most=3) as mine, other.claimed(paths) as others:
    assert (mine, others) == (paths[:3], paths[3:])
  assert not list(paths[0].parent.iterdir())
  with pytest.raises(KeyError), one.claimed(paths):
    raise KeyError
  with other.claimed(paths) as others:
    assert others == paths
  with Alone().claimed(paths, 2) as mine:
    assert mine == paths[:2] and Alone().share(7, 2) == 7


def test_every_item_is_computed_once_by_whoever_is_there(tmp_path):
  paths = [tmp_path / "stage" / str(number) for number in range(12)]
  done, computed = set(), []

  def work():
    mine = claims()
    while missing := [path for path in paths if path not in done]:
      with mine.claimed(missing, mine.share(len(missing), 2)) as share:
        for path in share:
          if path not in done:
            time.sleep(0.002)
            computed.append(path)
            done.add(path)

  workers = [threading.Thread(target=work) for _ in range(4)]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join()
  assert sorted(computed) == sorted(paths)


def rounds(num, hosts, devices, at_once):
  """How many rounds of training the busiest host has, who is free first claiming first."""
  free, left, shared = [0] * hosts, num, claims()
  while left:
    claimed = shared.share(left, devices * at_once)
    assert 0 < claimed <= left
    left -= claimed
    # A host trains so many together, and the next ones when these are done.
    heapq.heapreplace(free, free[0] + -(-claimed // (devices * at_once)))
  return max(free)


@pytest.mark.parametrize("num", [1, 6, 64, 100, 128, 129])
@pytest.mark.parametrize(
  "hosts, devices, at_once", [(8, 8, 1), (8, 1, 8), (1, 8, 8), (3, 2, 1)]
)
def test_no_host_has_more_rounds_than_the_best_division_has(num, hosts, devices, at_once):
  assert rounds(num, hosts, devices, at_once) == -(-num // (hosts * devices * at_once))


def test_128_models_on_8_hosts_of_8_devices_take_two_rounds():
  assert rounds(128, hosts=8, devices=8, at_once=1) == 2


def test_a_claim_of_a_dead_process_of_this_host_is_taken_over_at_once(paths):
  code = f"{IMPORTS}with Claims().claimed([Path(sys.argv[1])]): os._exit(0)"
  subprocess.run([sys.executable, "-c", code, paths[0]], check=True)
  assert paths[0].with_name("0.claim").is_file()
  with claims().claimed(paths[:1]) as mine:
    assert mine == paths[:1]


def test_a_claim_of_another_host_is_taken_over_when_it_is_still_for_long(paths):
  file, mine = claim_of(paths[0]), claims()
  end = time.monotonic() + 2.0
  while time.monotonic() < end:
    file.touch()
    with mine.claimed(paths[:1]) as claimed:
      assert not claimed
    time.sleep(0.02)
  start = time.monotonic()
  with alone_at(mine, paths[0]):
    assert time.monotonic() - start > 1.0
    assert json.loads(file.read_text())["key"] != "k"
  assert not file.exists()


def test_a_half_written_claim_is_somebodys(paths):
  claim_of(paths[0]).write_text('{"ho')
  with claims().claimed(paths[:1]) as mine:
    assert not mine


def test_nothing_is_claimed_in_a_folder_that_is_removed_just_then(paths, monkeypatch):
  create = disk.create

  def removed(path, mode):
    path.parent.rmdir()
    return create(path, mode)

  monkeypatch.setattr(disk, "create", removed)
  with claims().claimed(paths) as mine:
    assert not mine


def test_who_has_lost_a_claim_ends(paths):
  code = f"""{IMPORTS}
with Claims(beat=0.02).claimed([Path(sys.argv[1])]):
  print("held", flush=True)
  time.sleep(60)
"""
  command = [sys.executable, "-c", code, paths[0]]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  assert process.stdout.readline() == "held\n"
  claim_of(paths[0])
  _, said = process.communicate(timeout=20)
  assert process.returncode == 75 and "has taken over 0" in said and "Traceback" not in said


def test_who_is_alone_clears_what_was_left(tmp_path, paths):
  claim_of(paths[0])
  paths[1].mkdir()
  clear_claims(tmp_path)
  assert list(paths[0].parent.iterdir()) == [paths[1]]
