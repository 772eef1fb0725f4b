"""The command: in a process of its own, as users run it, or here, which saves its start."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax

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
    # Without what libraries have set for C alone, as COLUMNS.
    env=dict(os.environ),
  )
  if check is not None:
    assert process.returncode == check, process.stderr
  return process


class Said(NamedTuple):
  """What a command has printed."""

  stdout: str
  stderr: str


def here(*arguments):
  """What a command says that is run in this process, to its end."""
  with (
    contextlib.redirect_stdout(io.StringIO()) as out,
    contextlib.redirect_stderr(io.StringIO()) as err,
    # As it is for users.
    jax.numpy_dtype_promotion("standard"),
    jax.numpy_rank_promotion("allow"),
  ):
    code = main.run(["diffence", *map(str, arguments)])
  assert code == 0, err.getvalue()
  return Said(out.getvalue(), err.getvalue())


def refused(*arguments):
  """What a command says on standard error that is not right: a line, no traceback, code 2."""
  with contextlib.redirect_stderr(io.StringIO()) as said:
    code = main.run(["diffence", *map(str, arguments)])
  assert code == 2 and "Traceback" not in said.getvalue(), said.getvalue()
  return said.getvalue()


def dry_run(*arguments):
  """What a command says would be done."""
  return here(*arguments, "--dry_run").stdout
