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
# Each process says so of each group of devices, and nobody needs it.
_NOISE = b"[Gloo] Rank "
_LOST = b"JAX distributed service detected fatal errors"
_HANDED_ON = (signal.SIGINT, signal.SIGTERM)
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
  # One that comes before this process can hand it on waits.
  signal.pthread_sigmask(signal.SIG_BLOCK, _HANDED_ON)
  child = os.fork()
  if child:
    os.close(alive)
    os.close(saying)
    sys.exit(_wait(child, said))
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDED_ON)
  os.close(keep)
  os.close(said)
  # Python says things itself; what C++ says goes through the other process, on stderr: stdout
  # is for the table alone.
  sys.stdout, sys.stderr = _own(sys.stdout, 1), _own(sys.stderr, 2)
  os.dup2(saying, 1)
  os.dup2(saying, 2)
  os.close(saying)
  threading.Thread(target=lambda: (os.read(alive, 1), os._exit(1)), daemon=True).start()


def _own(stream, descriptor):
  """A stream to where a standard one goes now, whatever becomes of its descriptor."""
  stream.flush()
  return os.fdopen(
    os.dup(descriptor), "w", buffering=1, encoding=stream.encoding, errors=stream.errors
  )


def _wait(child, said):
  """The exit code of the child, after what there is to say of its end."""
  for number in _HANDED_ON:
    signal.signal(number, lambda number, _: os.kill(child, number))
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDED_ON)
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
      elif not line.startswith(_NOISE):
        sys.stderr.buffer.write(line)
        sys.stderr.flush()
