"""The processes of a pod, which JAX has started together, watch each other.

JAX ends them all when one is lost: after a minute, by a trace of C++. This says it sooner, in a
line. It cannot where the first process is lost, through which all are connected.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from diffence_jax import parallel
from diffence_jax.experiment.claims import Claims, alone_at

# Seconds between two looks.
_LOOK = 1.0


@contextlib.contextmanager
def watched(workdir: Path) -> Iterator[None]:
  """Meanwhile, this process of a pod ends when another gives no sign of life.

  Args:
    workdir: of all of them, which call this together; each holds a claim there.
  """
  claims = Claims()
  places = [workdir / "reports" / f"process{n}" for n in range(jax.process_count())]
  with alone_at(claims, places[jax.process_index()]):
    parallel.from_first(0)  # all have one of this run: what another has left looks lost
    with watching(claims, places):
      yield


@contextlib.contextmanager
def watching(claims: Claims, places: Sequence[Path]) -> Iterator[None]:
  """Meanwhile, ends this process when the claim at one of the places is a lost process's.

  Args:
    claims: of this process, whose place may be among them.
    places: what the processes have claimed, by their numbers.
  """
  ended = threading.Event()

  def watch():
    while not ended.wait(_LOOK):
      for number, place in enumerate(places):
        if claims.is_lost(place):
          _give_up(number, len(places))

  watcher = threading.Thread(target=watch, daemon=True)
  watcher.start()
  try:
    yield
  finally:
    ended.set()
    watcher.join()


def _give_up(number: int, count: int) -> None:
  """Ends this process at once: JAX would wait for the lost one in an orderly exit, too."""
  print(
    f"diffence: process {number} of {count} gives no sign of life. Start all of them again, as "
    "many as there are: the same command goes on; with --share the others would have gone on.",
    file=sys.stderr,
    flush=True,
  )
  os._exit(os.EX_TEMPFAIL)
