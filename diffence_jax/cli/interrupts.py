"""Ctrl-C and SIGTERM: one line and the right exit code, whatever the process is doing.

Python looks at signals between its own steps only, and a compilation takes many seconds; and
an exception in the midst of the import of an extension can crash it. So none is raised: a
thread waits for signals and ends the process, which may be killed at any moment anyway.
"""

import contextlib
import os
import signal
import sys
import threading

_WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


def watch(remark: str) -> None:
  """Ends this process, with 128 + the signal's number, when it is interrupted or terminated.

  Args:
    remark: what follows "Interrupted; " in the line for the user.
  """
  read, write = os.pipe()
  os.set_blocking(write, False)
  for number in _WORDS:
    signal.signal(number, lambda *_: None)
  signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  threading.Thread(target=_wait, args=(read, remark), daemon=True).start()


def leave(code: int) -> None:
  """Ends the process at once: nothing is unwound, no other thread or process waited for."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  os._exit(code)


def _wait(read, remark):
  number = 0
  while number not in _WORDS:
    number = os.read(read, 1)[0]
  with contextlib.suppress(OSError, ValueError):
    # A progress bar has not ended its line.
    start = "\n" if sys.stderr.isatty() else ""
    print(f"{start}{_WORDS[number]}; {remark}", file=sys.stderr)
  leave(128 + number)
