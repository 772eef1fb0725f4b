"""The command `diffence`: a file a subcommand, and the one place where errors end."""

import importlib
import importlib.metadata
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence

from diffence_jax.cli import interrupts
from diffence_jax.cli.attended import attend
from diffence_jax.cli.terminal import say
from diffence_jax.stopping import UnfinishedError

# What a user's files and settings can lead to: the message says what is wrong.
_EXPECTED = (ValueError, TypeError, OSError, RuntimeError, ImportError, FloatingPointError)
# What can be asked for besides experiments, and what an interruption leaves of it.
_SUBCOMMANDS = {
  "audit": "audit",
  "compare": "compare",
  "export": "export",
  "frontier": "frontier",
  "import-torch": "import_torch",
  "plot": "plot",
  "protect": "protect",
  "train-diffusion": "train_diffusion",
  "tune": "tune",
}
# Seconds for what others say.
_FOR_OTHERS = 2.0
_NOT_WRITTEN, _GOES_ON = "the output was not written.", "the same command goes on from here."


def main() -> None:
  """Runs the command line of this process, and ends it."""
  argv = sys.argv
  attend(argv)
  # Before anything slow is imported.
  goes_on = not (argv[1:2] and argv[1] in _SUBCOMMANDS)
  interrupts.watch(_GOES_ON if goes_on else _NOT_WRITTEN, goes_on=goes_on)
  warnings.showwarning = _warn
  code = run(argv)
  if code and _is_one_of_several():
    # An orderly exit would wait for the others, who wait for this one. The first goes last:
    # when it is gone JAX ends them, whatever they still have to say.
    time.sleep(_FOR_OTHERS if sys.modules["jax"].process_index() == 0 else 0.0)
    interrupts.leave(code)
  sys.exit(code)


def run(argv: Sequence[str]) -> int:
  """Runs a command line.

  Args:
    argv: the program's name and its arguments.

  Returns:
    The exit code: 0 when done, 2 when something that it was given is not right, 75 when it goes
    on as it is run again, 1 for all that nobody foresaw.
  """
  if argv[1:] == ["--version"]:
    say(f"diffence_jax {importlib.metadata.version('diffence_jax')}")
    return 0
  name = _SUBCOMMANDS.get(argv[1] if argv[1:2] else "")
  # Only now: a subcommand imports what it needs.
  command = importlib.import_module(f"diffence_jax.cli.{name or 'experiment'}")
  try:
    command.run([argv[0], *argv[2:]] if name else argv)
  except UnfinishedError as error:
    _refuse(str(error))
    return os.EX_TEMPFAIL
  except _EXPECTED as error:
    return _refuse(_told(error) or type(error).__name__)
  except (MemoryError, OverflowError) as error:
    return _refuse(
      f"There is not enough memory ({str(error) or 'none is left'}); expected smaller settings "
      "or data."
    )
  except Exception as error:
    with tempfile.NamedTemporaryFile(
      "w", prefix="diffence-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
      file.write("".join(traceback.format_exception(error)))
    said = ": ".join(filter(None, (type(error).__name__, _told(error).rstrip("."))))
    _refuse(
      f"{said}. This is a fault of diffence, or of a function of your own; the traceback is in "
      f"{file.name}."
    )
    return 1
  return 0


def _told(error: BaseException) -> str:
  """What an error says, and in which function of the user's own it was."""
  if not (notes := getattr(error, "__notes__", ())):
    return str(error)
  from diffence_jax.named import IN_OWN  # which a command that succeeds need not wait for

  own = [f"({note})" for note in notes if note.startswith(IN_OWN)]
  return " ".join(filter(None, (str(error).rstrip("."), *own))) + "." if own else str(error)


def _refuse(message: str) -> int:
  say(f"diffence: {message}", sys.stderr)
  return 2


def _warn(message, *_, **__) -> None:
  """Without the line of code that warns."""
  say(f"diffence: {message}", sys.stderr)


def _is_one_of_several() -> bool:
  return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


if __name__ == "__main__":
  main()
