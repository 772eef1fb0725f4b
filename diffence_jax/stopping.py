"""A process that is asked to stop saves what it is at, where it can, before it ends.

Whoever works in steps asks after each of them whether to stop; whoever ends the process waits
for that, unless nobody has asked yet: a compilation may take minutes.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator


class UnfinishedError(OSError):
  """The work had to end, through no fault of the command: the same one goes on from there."""


# What to do where a process of a pod is lost.
START_AGAIN = (
  "Start all of them again, as many as there are: the same command goes on; with --share the "
  "others would have gone on."
)
_asked, _saved = threading.Event(), threading.Event()
# Those who come by regularly, what is to be done as soon as it is asked, and at the very end.
_savers: list[object] = []
_at_once: list[Callable[[], None]] = []
_last: list[Callable[[], None]] = []


class Saver:
  """What works in steps and can save after each; a context manager around all of them."""

  def __enter__(self) -> "Saver":
    return self

  def __exit__(self, *_: object) -> None:
    """From here on nobody begins to wait for it."""
    if self in _savers:
      _savers.remove(self)

  def is_asked(self) -> bool:
    """Whether to save now, and then call `saved`."""
    if self not in _savers:
      _savers.append(self)
    return _asked.is_set()

  def saved(self) -> None:
    """Says that all is saved; the process ends at any moment from now on."""
    _saved.set()


def is_ending() -> bool:
  """Whether the process has been asked to stop, and ends itself."""
  return _asked.is_set()


def wait_for_savers(seconds: float) -> None:
  """Asks those who can to save, and waits for it, at most so many seconds."""
  _asked.set()
  _call(_at_once)
  if _savers:
    _saved.wait(seconds)


def wait_no_longer() -> None:
  """Says that there is nothing to wait for: another saves for this one, and has, or is gone."""
  _saved.set()


def when_asked(function: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
  """Meanwhile, a process that is asked to stop calls a function before it waits."""
  return _listed(_at_once, function)


def before_the_end(function: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
  """Meanwhile, a process that is ended calls a function first."""
  return _listed(_last, function)


def end() -> None:
  """Does what is to be done before the process is ended."""
  _call(_last)


@contextlib.contextmanager
def _listed(
  functions: list[Callable[[], None]], function: Callable[[], None]
) -> Iterator[None]:
  functions.append(function)
  try:
    yield
  finally:
    functions.remove(function)


def _call(functions: list[Callable[[], None]]) -> None:
  for function in tuple(functions):
    with contextlib.suppress(OSError):  # the file system is away: the process ends all the same
      function()
