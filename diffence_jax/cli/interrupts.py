"""Ctrl-C and SIGTERM: one line and the right exit code, whatever the process is doing.

Python looks at signals between its own steps only, and a compilation takes many seconds; and
an exception in the midst of the import of an extension can crash it. So none is raised: a
thread waits for signals and ends the process, which may be killed at any moment anyway. A
scheduler that takes a machine back sends SIGTERM and waits: time for a checkpoint.
"""

import contextlib
import os
import signal
import sys
import threading

from diffence_jax import stopping

_WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}
# Seconds for a checkpoint: most schedulers kill after 30.
_GRACE = 20.0


def watch(remark: str, *, goes_on: bool = False) -> None:
  """Ends this process when it is interrupted or terminated.

  The exit code is 128 + the signal's number; but os.EX_TEMPFAIL, 75, for a terminated command
  that goes on when it is run again: schedulers take that for "run it again".

  Args:
    remark: what follows "Interrupted; " in the line for the user.
    goes_on: whether the same command goes on where this one ends; terminated, it saves first.
  """
  read, write = os.pipe()
  os.set_blocking(write, False)
  for number in _WORDS:
    signal.signal(number, lambda *_: None)
  signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  threading.Thread(target=_wait, args=(read, remark, goes_on), daemon=True).start()


def leave(code: int) -> None:
  """Ends the process at once: nothing is unwound, no other thread or process waited for."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  os._exit(code)


def _wait(read, remark, goes_on):
  number = 0
  while number not in _WORDS:
    number = os.read(read, 1)[0]
  is_resumed = goes_on and number == signal.SIGTERM
  if is_resumed:
    stopping.wait_for_savers(_GRACE)
  with contextlib.suppress(OSError, ValueError):
    # A progress bar has not ended its line.
    start = "\n" if sys.stderr.isatty() else ""
    print(f"{start}{_WORDS[number]}; {remark}", file=sys.stderr)
  stopping.end()
  leave(os.EX_TEMPFAIL if is_resumed else 128 + number)
