"""The processes of a pod, which JAX has started together, watch each other.

JAX ends them all when one is lost: after a minute, by a trace of C++. This says it sooner, in a
line. Who is asked to stop says so by a file: the first, which writes the checkpoints, saves one
and ends too. Who ends by an error or a signal says so by the claim that it leaves; the first,
through which all are connected, then waits for the others to end. Where that one is killed they
can say nothing: `cli.attended` does.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from diffence_jax import parallel, stopping
from diffence_jax.experiment.claims import Claims, alone_at

# Seconds between two looks; and for a process to find itself what another has ended by.
_LOOK, _GRACE = 1.0, 3.0
# Seconds for the checkpoint; who was asked to stop waits a little longer.
_SAVING = 15.0
# The exit code of who was given something that is not right.
_REFUSED = 2


@contextlib.contextmanager
def watched(workdir: Path) -> Iterator[None]:
  """Meanwhile, this process of a pod ends when another gives no sign of life.

  Args:
    workdir: of all of them, which call this together; each holds a claim there.
  """
  claims = Claims()
  places = [workdir / "reports" / f"process{n}" for n in range(jax.process_count())]
  own = places[jax.process_index()]

  def leave(code=os.EX_TEMPFAIL):
    claims.abandon(own, code)
    if parallel.is_first():
      time.sleep(3 * _LOOK + _GRACE)

  asked = stopping.when_asked(_note(own).touch)
  with alone_at(claims, own), stopping.before_the_end(leave), asked:
    _note(own).unlink(missing_ok=True)  # of an earlier run
    try:
      parallel.from_first(0)  # all have one of this run: what another has left looks lost
      with watching(claims, places):
        yield
    except BaseException as error:
      unfinished = isinstance(error, stopping.UnfinishedError)
      leave(os.EX_TEMPFAIL if unfinished else _REFUSED)
      raise


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
      if parallel.is_first():
        _follow(places)
      for number, place in enumerate(places):
        if claims.lost(place) is None:
          continue
        if number == 0 and not parallel.is_first():
          stopping.wait_no_longer()  # it has saved, or never will
        if ended.wait(_GRACE):
          continue
        if stopping.is_ending() and parallel.is_first():
          continue  # which saves for all
        if (code := claims.lost(place)) is not None:
          _give_up(number, len(places), code)

  watcher = threading.Thread(target=watch, daemon=True)
  watcher.start()
  try:
    yield
  except stopping.UnfinishedError:
    watcher.join(3 * _LOOK + _GRACE)  # which knows whom this one misses, and how that one ended
    raise
  finally:
    ended.set()
    watcher.join()


def _note(place: Path) -> Path:
  """The file by which a process says that it was asked to stop."""
  return place.with_name(f"{place.name}.claim.asked")


def _follow(places: Sequence[Path]) -> None:
  """Saves, and ends this process, where another was asked to stop and this one was not."""
  asked = [number for number, place in enumerate(places) if _note(place).exists()]
  if not asked or stopping.is_ending():
    return
  stopping.wait_for_savers(_SAVING)
  print(
    f"diffence: process {asked[0]} of {len(places)} was terminated, and so all end; the same "
    "command goes on from here.",
    file=sys.stderr,
    flush=True,
  )
  stopping.end()
  os._exit(os.EX_TEMPFAIL)


def _give_up(number: int, count: int, code: int) -> None:
  """Ends this process at once: JAX would wait for the lost one in an orderly exit, too."""
  told = (
    "has ended, or gives no sign of life"
    if code == os.EX_TEMPFAIL
    else "has ended by an error, which it tells"
  )
  print(
    f"diffence: process {number} of {count} {told}. {stopping.START_AGAIN}",
    file=sys.stderr,
    flush=True,
  )
  os._exit(code)
