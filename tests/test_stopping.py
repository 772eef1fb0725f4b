"""Who asks a process to stop waits for what can be saved, and for nothing else."""

import threading
import time

import pytest

from diffence_jax import stopping
from diffence_jax.experiment.claims import Claims


@pytest.fixture(autouse=True)
def not_asked(monkeypatch):
  for name in ("_asked", "_saved"):
    monkeypatch.setattr(stopping, name, threading.Event())


def waited(seconds):
  start = time.monotonic()
  stopping.wait_for_savers(seconds)
  return time.monotonic() - start


def test_nobody_is_waited_for_who_does_not_come_by():
  """Before the first step, which is compiled, and after the last one."""
  with stopping.Saver() as saver:
    assert waited(30.0) < 5.0
    assert saver.is_asked()
  assert waited(30.0) < 5.0


def test_who_saves_is_waited_for_until_it_has_or_the_time_is_up():
  with stopping.Saver() as saver:
    assert not saver.is_asked()
    assert waited(0.05) >= 0.05

    def save():
      while not saver.is_asked():
        time.sleep(0.01)
      saver.saved()

    threading.Thread(target=save).start()
    assert waited(30.0) < 5.0


def test_who_is_asked_says_so_first_and_waits_no_longer_than_it_is_told():
  said = []
  with stopping.Saver() as saver, stopping.when_asked(lambda: said.append(1)):
    assert not saver.is_asked()
    threading.Timer(0.05, stopping.wait_no_longer).start()
    assert waited(30.0) < 5.0
    assert said == [1]
  stopping.wait_for_savers(0.0)
  assert said == [1]


def test_what_cannot_be_done_before_the_end_does_not_stop_it():
  done = []

  def away():
    raise OSError("the file system is away")

  with stopping.before_the_end(away), stopping.before_the_end(lambda: done.append(1)):
    stopping.end()
  assert done == [1]


def test_claims_are_given_back_before_the_end(tmp_path):
  with Claims(beat=60.0).claimed([tmp_path / "stage" / "one"]) as mine:
    assert mine and (tmp_path / "stage" / "one.claim").is_file()
    stopping.end()
    assert not (tmp_path / "stage" / "one.claim").exists()
