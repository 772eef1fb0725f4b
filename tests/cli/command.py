"""The command, run as a user runs it: in a process of its own."""

import subprocess
import sys
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"
SMOKE = f"--config={CONFIGS / 'digits.py'}:smoke"


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
