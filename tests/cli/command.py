"""The command: in a process of its own, as users run it, or here where it computes nothing."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

from diffence_jax.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
SMOKE = f"--config={CONFIGS / 'digits.py'}:smoke"
AUDIT = f"--config={CONFIGS / 'digits.py'}:audit_smoke"


def diffence(*arguments, check=None):
  """The finished process; `check` is the exit code that is expected."""
  process = subprocess.run(
    [sys.executable, "-m", "diffence_jax.cli.main", *map(str, arguments)],
    capture_output=True,
    text=True,
  )
  if check is not None:
    assert process.returncode == check, process.stderr
  return process


def refused(*arguments):
  """What a command says on standard error that is not right: a line, no traceback, code 2."""
  with contextlib.redirect_stderr(io.StringIO()) as said:
    code = main.run(["diffence", *map(str, arguments)])
  assert code == 2 and "Traceback" not in said.getvalue(), said.getvalue()
  return said.getvalue()


def dry_run(*arguments):
  """What a command says would be done."""
  with contextlib.redirect_stdout(io.StringIO()) as said:
    assert main.run(["diffence", *map(str, arguments), "--dry_run"]) == 0
  return said.getvalue()
