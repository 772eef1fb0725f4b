"""How far work is, and the time left: a bar on a terminal, else a line a minute."""

import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

# Seconds between two lines.
_PATIENCE = 60.0


class ProgressLines:
  """Progress where no terminal is, such as in the log of a cluster's job.

  Has what is used of a `tqdm` bar, and writes a line at most once a minute.
  """

  def __init__(self, total: int, description: str, unit: str, done: int = 0):
    """Begins; see `progress_bar`."""
    self._total, self._description, self._unit = total, description, unit
    self._done = self._before = done
    self._start = self._last = time.monotonic()

  def __enter__(self) -> "ProgressLines":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Nothing is left to do: what ended says so itself."""

  def update(self, num: int = 1) -> None:
    """Counts so many more units as done."""
    self._done += num
    now = time.monotonic()
    if now - self._last < _PATIENCE or not self._before < self._done < self._total:
      return  # Who waits for other processes may have no news for long.
    self._last = now
    left = (now - self._start) / (self._done - self._before) * (self._total - self._done)
    print(
      f"{self._description}: {self._done:,} of {self._total:,} {self._unit}s, "
      f"{100 * self._done // self._total}%, about {duration(left)} left",
      file=sys.stderr,
      flush=True,
    )

  def set_postfix(self, **figures: Any) -> None:
    """Figures are for bars only."""


def progress_bar(
  total: int, description: str, unit: str, done: int = 0
) -> tqdm | ProgressLines:
  """A bar on standard error; a line a minute when that is not a terminal.

  Args:
    total: units of work in all.
    description: what is being done.
    unit: what is counted, for example "step".
    done: units an earlier, killed run has done.

  Returns:
    A context manager; call its `update(n)`.
  """
  if not sys.stderr.isatty():
    return ProgressLines(total, description, unit, done)
  return tqdm(total=total, initial=done, desc=description, unit=unit, dynamic_ncols=True)


def duration(seconds: float) -> str:
  """Seconds as people say them: "40 s", "12 min", "3 h 20 min"."""
  if seconds < 60.0:
    return f"{seconds:.0f} s"
  minutes = round(seconds / 60.0)
  hours, minutes = divmod(minutes, 60)
  return f"{hours} h {minutes} min" if hours else f"{minutes} min"
