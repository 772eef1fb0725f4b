"""Who computes what, where several processes work in one workdir.

A process claims an artifact by a file beside it, `<fingerprint>.claim`, which it touches as
long as it lives. A claim whose file has not changed for `_STALE` seconds, by the watcher's own
clock, or whose process has died on this very host, may be taken over. That works without locks,
on every file system on which a new file is made by one process only. A process that finds its
claim taken over, after a pause, ends: an artifact is written by one process only.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffence_jax import disk, stopping

# Seconds between two touches of a claim; and without one after which it may be taken over.
_BEAT, _STALE = 3.0, 30.0
# Seconds between two looks at what others do.
PATIENCE = 0.5


class Alone:
  """The claims of a process that has the workdir to itself: all it wants."""

  @contextlib.contextmanager
  def claimed(self, paths: Sequence[Path], at_most: int | None = None) -> Iterator[list[Path]]:
    """Gives all of them, or the first so many."""
    yield list(paths)[:at_most]

  def share(self, num: int, at_once: int) -> int:
    """How many of `num` items to claim at a time, of which `at_once` are computed together."""
    del at_once
    return num


class Claims:
  """The claims of one of several processes."""

  def __init__(self, *, beat: float = _BEAT, stale: float = _STALE):
    """Claims nothing yet.

    Args:
      beat: seconds between two touches.
      stale: seconds without one after which another's claim may be taken over.
    """
    self._beat, self._stale = beat, stale
    key = os.urandom(8).hex()
    self._owner = {"host": _host(), "pid": os.getpid(), "key": key}
    # Another's claim to the moment since when it has not changed, and what it was then.
    self._seen: dict[Path, tuple[float, tuple[int, bytes]]] = {}
    self._abandoned: set[Path] = set()

  def share(self, num: int, at_once: int) -> int:
    """How many of `num` items to claim at a time, of which `at_once` are computed together.

    One round: fewer would leave devices idle, and more would wait here for another round
    while other processes may have none.
    """
    return min(num, at_once)

  @contextlib.contextmanager
  def claimed(self, paths: Sequence[Path], at_most: int | None = None) -> Iterator[list[Path]]:
    """Claims artifacts that nobody else has claimed, and holds them meanwhile.

    Args:
      paths: where the artifacts are, or will be.
      at_most: how many; None for all.

    Yields:
      Those that are this process's now; maybe none.
    """
    mine, ended = [], threading.Event()
    beating = threading.Thread(target=self._touch, args=(mine, ended), daemon=True)
    beating.start()  # to take over many takes long
    with stopping.before_the_end(lambda: self._give_back(mine)):
      try:
        for path in paths:
          if at_most is not None and len(mine) == at_most:
            break
          if self._take(_claim(path)):
            mine.append(path)
        yield list(mine)
      finally:
        ended.set()
        beating.join()
        self._give_back(mine)

  def abandon(self, path: Path, code: int) -> None:
    """Leaves a claim of this process's behind, as one that has ended with an exit code."""
    claim = _claim(path)
    self._abandoned.add(claim)
    with contextlib.suppress(OSError):  # then the others wait for a sign of life
      disk.write_atomically(claim, json.dumps({**self._owner, "ended": code}))

  def lost(self, path: Path) -> int | None:
    """How another has ended that has claimed an artifact; to be asked often.

    Returns:
      The exit code, os.EX_TEMPFAIL where it only gives no sign of life. None while it lives,
      and where nobody has claimed it.
    """
    claim = _claim(path)
    if claim in self._abandoned or not self._is_stale(claim):
      return None
    try:
      return int(json.loads(claim.read_bytes())["ended"])
    except (OSError, ValueError, KeyError, TypeError):
      return os.EX_TEMPFAIL

  def _give_back(self, paths: Sequence[Path]) -> None:
    for claim in map(_claim, tuple(paths)):
      if self._is_mine(claim):
        claim.unlink(missing_ok=True)

  def _take(self, claim: Path) -> bool:
    """Whether a claim is this process's now."""
    claim.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(self._owner).encode()
    try:
      handle = disk.create(claim, 0o600)
    except FileExistsError:
      return self._is_stale(claim) and self._take_over(claim, content)
    except FileNotFoundError:  # parts that were joined, and removed with their folder just now
      return False
    with open(handle, "wb") as file:
      file.write(content)
    return True

  def _is_stale(self, claim: Path) -> bool:
    """Whether whoever made a claim gives no sign of life."""
    try:
      state = claim.stat().st_mtime_ns, claim.read_bytes()
    except OSError:  # given back in this moment, or the file system is away: look again later
      return False
    if _has_died(state[1]):
      return True
    since, before = self._seen.get(claim, (0.0, None))
    if state != before:
      self._seen[claim] = time.monotonic(), state
      return False
    return time.monotonic() - since > self._stale

  def _take_over(self, claim: Path, content: bytes) -> bool:
    ours = claim.with_name(f"{claim.name}.{self._owner['key']}")
    disk.write_atomically(ours, content)
    if not self._is_stale(claim):  # somebody was quicker while this was written
      ours.unlink()
      return False
    os.replace(ours, claim)
    self._seen.pop(claim, None)
    time.sleep(min(PATIENCE, self._beat))  # who does the same replaces it now
    return self._is_mine(claim)

  def _is_mine(self, claim: Path) -> bool:
    try:
      return json.loads(claim.read_bytes()) == self._owner
    except (FileNotFoundError, ValueError):
      return False

  def _touch(self, paths: Sequence[Path], ended: threading.Event) -> None:
    while not ended.wait(self._beat):
      for claim in map(_claim, tuple(paths)):
        with contextlib.suppress(OSError):  # the file system is away for a while
          if claim.is_file() and not self._is_mine(claim) and claim not in self._abandoned:
            _give_up(claim)
          os.utime(claim)


@contextlib.contextmanager
def alone_at(claims: Alone | Claims, path: Path) -> Iterator[None]:
  """Waits until a claim is this process's, and holds it meanwhile."""
  while True:
    with claims.claimed([path]) as mine:
      if mine:
        yield
        return
    time.sleep(PATIENCE)


def clear_claims(workdir: Path) -> None:
  """Removes what killed processes have left, for one that has the workdir to itself."""
  for pattern in ("*/*.claim*", "*/*.parts/*.claim*"):
    for claim in workdir.glob(pattern):
      claim.unlink(missing_ok=True)


def _claim(path: Path) -> Path:
  return path.with_name(f"{path.name}.claim")


def _host() -> str:
  """This host, and on it what process numbers are counted in: containers each have theirs."""
  try:
    return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return socket.gethostname()


def _has_died(content: bytes) -> bool:
  """Whether a claim says that its process has ended, or is of one of this host's that has."""
  try:
    owner = json.loads(content)
    if "ended" in owner:
      return True
    if owner["host"] != _host():
      return False
    os.kill(owner["pid"], 0)
  except ProcessLookupError:
    return True
  except (ValueError, KeyError, TypeError, OSError):  # half written, or somebody else's process
    return False
  return False


def _give_up(claim: Path) -> None:
  """Ends this process, which was paused so long that another computes what it was at.

  At once: the two may not write into one folder.
  """
  print(
    f"diffence: another process has taken over {claim.stem}, as this one gave no sign of life "
    "for so long; it ends here, and the same command goes on.",
    file=sys.stderr,
    flush=True,
  )
  os._exit(os.EX_TEMPFAIL)
