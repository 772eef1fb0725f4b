"""A process of a pod and one that waits for it, which says how it ended where it could not.

JAX's coordination service is in the first process. Where that is lost, C++ code ends the others
in the midst of whatever they do, with a stack trace: only another process can put a line in the
place of that, and an exit code that means "run it again".
"""

import os
import re
import signal
import sys
import threading
from collections.abc import Sequence

from diffence_jax.cli.terminal import say
from diffence_jax.stopping import START_AGAIN

# From here on what C++ says is held back: a fatal error, or one that may come before it.
_HELD = re.compile(rb"F\d{4} |E\d{4} .*coordination service")
_LOST = b"JAX distributed service detected fatal errors"
# Seconds for the last words, after the end.
_LAST_WORDS = 1.0


def attend(argv: Sequence[str]) -> None:
  """Returns in a child, if the command line is of a process of a pod; before any thread.

  This process waits for it, hands signals on, and ends as it does. Where this one is killed,
  the child ends at once.
  """
  is_of_pod = any(argument.lstrip("-").startswith("distributed") for argument in argv[1:])
  if not is_of_pod or not hasattr(os, "fork"):
    return
  alive, keep = os.pipe()
  said, saying = os.pipe()
  child = os.fork()
  if child:
    os.close(alive)
    os.close(saying)
    sys.exit(_wait(child, said))
  os.close(keep)
  os.close(said)
  # Python says things itself; what C++ says goes through the other process.
  sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
  os.dup2(saying, 2)
  os.close(saying)
  threading.Thread(target=lambda: (os.read(alive, 1), os._exit(1)), daemon=True).start()


def _wait(child, said):
  """The exit code of the child, after what there is to say of its end."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(child, number))
  held = []
  reader = threading.Thread(target=_pass_on, args=(said, held), daemon=True)
  reader.start()
  code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  reader.join(_LAST_WORDS)
  text = b"".join(held)
  if code == -signal.SIGABRT and _LOST in text:
    say(
      "diffence: another process of the pod, most likely the first, through which all are "
      f"connected, is gone or cannot be reached. {START_AGAIN}",
      sys.stderr,
    )
    return os.EX_TEMPFAIL
  if code >= 0:
    return code
  say(text.decode(errors="replace"), sys.stderr)
  say(f"diffence: ended by {signal.Signals(-code).name}, which it cannot say why.", sys.stderr)
  return 128 - code


def _pass_on(said, held):
  """Hands on what C++ says, line by line; the rest of it from a fatal error on is `held`."""
  with os.fdopen(said, "rb") as lines:
    for line in lines:
      if held or _HELD.match(line):
        held.append(line)
      else:
        sys.stderr.buffer.write(line)
        sys.stderr.flush()
