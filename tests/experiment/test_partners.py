"""Processes that watch each other: who is lost is named, who has ended is not."""

import contextlib
import threading
import time

from diffence_jax.experiment import partners
from diffence_jax.experiment.claims import Claims
from diffence_jax.experiment.partners import watching


def test_who_gives_no_sign_of_life_is_named_and_who_has_ended_is_not(tmp_path, monkeypatch):
  lost, named = [], threading.Event()
  monkeypatch.setattr(partners, "_LOOK", 0.02)
  monkeypatch.setattr(
    partners, "_give_up", lambda number, count: (lost.append((number, count)), named.set())
  )
  places = [tmp_path / "reports" / f"process{number}" for number in range(4)]
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
    assert set(lost) == {(3, 4)}
