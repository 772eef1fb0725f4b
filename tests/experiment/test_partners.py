"""Processes that watch each other: who is lost is named, who has ended is not."""

import contextlib
import os
import threading
import time

import jax
import pytest

from diffence_jax import parallel, stopping
from diffence_jax.experiment import partners
from diffence_jax.experiment.claims import Claims
from diffence_jax.experiment.partners import watched, watching


@pytest.fixture
def given_up(monkeypatch):
  """What a watcher would have ended the process for, and what is set when it is something."""
  lost, named = [], threading.Event()
  monkeypatch.setattr(partners, "_LOOK", 0.02)
  monkeypatch.setattr(partners, "_GRACE", 0.05)
  give_up = lambda number, count, code: (lost.append((number, count, code)), named.set())
  monkeypatch.setattr(partners, "_give_up", give_up)
  return lost, named


def places_in(folder, count):
  return [folder / "reports" / f"process{number}" for number in range(count)]


def test_who_gives_no_sign_of_life_is_named_and_who_has_ended_is_not(tmp_path, given_up):
  lost, named = given_up
  places = places_in(tmp_path, 4)
  mine = Claims(beat=0.02, stale=1.0)
  with contextlib.ExitStack() as stack:
    # This process, one that lives, and one that ends; process 3 is lost.
    for claims, place in zip((mine, Claims(beat=0.02)), places[:2], strict=True):
      stack.enter_context(claims.claimed([place]))
    with Claims().claimed(places[2:3]):
      places[3].with_name("process3.claim").write_text(
        '{"host": "elsewhere", "pid": 1, "key": "k"}'
      )
      stack.enter_context(watching(mine, places))
      time.sleep(0.2)
      assert not lost
    assert named.wait(20.0)
    assert set(lost) == {(3, 4, os.EX_TEMPFAIL)}


@pytest.mark.parametrize(
  ("error", "code"),
  [(ValueError, 2), (stopping.UnfinishedError, os.EX_TEMPFAIL), (None, os.EX_TEMPFAIL)],
)
def test_who_ends_by_an_error_or_a_signal_is_named_with_its_code(
  error, code, tmp_path, given_up, monkeypatch
):
  """By a signal where there is no error; on another host, whose processes cannot be seen."""
  lost, named = given_up
  monkeypatch.setattr(parallel, "from_first", lambda value: value)
  (tmp_path / "reports").mkdir()
  (place,) = places_in(tmp_path, 1)
  other = Claims(stale=60.0)
  with watching(other, [place]):
    with contextlib.suppress(ValueError, OSError), watched(tmp_path):
      time.sleep(0.2)
      assert not lost
      if error:
        raise error
      stopping.end()
    assert named.wait(20.0)
  assert set(lost) == {(0, 1, code)}
  # The next run has the place to itself.
  with watched(tmp_path):
    pass
  assert other.lost(place) is None


def test_who_misses_another_leaves_it_to_the_watcher_to_say_whom(
  tmp_path, given_up, monkeypatch
):
  lost, _ = given_up
  monkeypatch.setattr(partners, "_LOOK", 0.8)  # time for the watcher on a busy machine
  places = places_in(tmp_path, 2)
  places[1].parent.mkdir()
  gone, mine = Claims(), Claims()
  gone.abandon(places[1], 2)
  with pytest.raises(stopping.UnfinishedError), watching(mine, places):
    raise stopping.UnfinishedError
  assert lost and set(lost) == {(1, 2, 2)}


def test_who_is_asked_to_stop_and_saves_for_all_is_not_ended(tmp_path, given_up, monkeypatch):
  lost, named = given_up
  asked = threading.Event()
  monkeypatch.setattr(stopping, "_asked", asked)
  (place,) = places_in(tmp_path, 1)
  place.parent.mkdir()
  Claims().abandon(place, os.EX_TEMPFAIL)
  asked.set()
  with watching(Claims(), [place]):
    time.sleep(0.4)
    assert not lost
    asked.clear()
    assert named.wait(20.0)


@pytest.mark.parametrize(
  ("error", "kind"),
  [
    (ValueError("UNKNOWN: Gloo all-reduce failed"), stopping.UnfinishedError),
    (jax.errors.JaxRuntimeError("Gloo all-reduce failed"), stopping.UnfinishedError),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: memory"), jax.errors.JaxRuntimeError),
    (ValueError("A batch of 3 cannot be split"), ValueError),
  ],
)
def test_what_fails_together_is_another_ones_end_and_other_errors_are_not(error, kind):
  with pytest.raises(kind) as raised, parallel.naming_lost("The step"):
    raise error
  assert ("The step has ended" in str(raised.value)) == (kind is stopping.UnfinishedError)
