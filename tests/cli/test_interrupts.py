"""Ctrl-C and SIGTERM at any moment: one line, the right exit code, and nothing is lost."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from cli.command import SMOKE, here

# Seconds since the command watches for signals, in which Python is busy with imports at first;
# or the stage that it has said it is in. Most of these is compilation, in which Python runs no
# handler. Later ones go on from where earlier ones were, as far as they had come.
MOMENTS = (
  (0.0, signal.SIGINT),
  (0.3, signal.SIGTERM),
  (1.0, signal.SIGINT),
  ("classifier", signal.SIGINT),
  ("diffusion", signal.SIGINT),
  ("queries", signal.SIGTERM),
)
ENDS = {signal.SIGINT: (130, "Interrupted"), signal.SIGTERM: (75, "Terminated")}
GOES_ON = "the same command goes on from here."


def started(*arguments):
  """The process of a command, as soon as it watches for signals."""
  process = subprocess.Popen(
    [sys.executable, "-m", "diffence_jax.cli.main", *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  status = Path(f"/proc/{process.pid}/status")
  if not status.is_file():
    time.sleep(1.0)
    return process
  caught = 0
  while not caught >> (signal.SIGTERM - 1) & 1:
    caught = int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16)
  time.sleep(0.05)
  return process


def wait_for(process, moment):
  """What the process has said on standard error when the moment has come."""
  if not isinstance(moment, str):
    time.sleep(moment)
    return ""
  said = process.stderr.readline()
  while not said.splitlines()[-1].startswith(moment):
    said += (line := process.stderr.readline())
    assert line, said
  time.sleep(0.2)
  return said


def test_at_any_moment_it_ends_at_once_with_one_line_and_goes_on_to_the_end(tmp_path):
  for moment, number in MOMENTS:
    process = started(SMOKE, f"--workdir={tmp_path}")
    stderr = wait_for(process, moment)
    start = time.monotonic()
    process.send_signal(number)
    stderr += process.communicate(timeout=60)[1]
    seconds = time.monotonic() - start
    code, word = ENDS[number]
    assert process.returncode == code, (moment, stderr)
    lines = stderr.splitlines()
    assert lines[-1] == f"{word}; {GOES_ON}", (moment, stderr)
    # Before it, nothing but the data, the stages, and how far one is after a minute.
    for line in lines[:-1]:
      is_known = line.startswith("data  ") or re.fullmatch(
        r"\w+ +[0-9a-f]{16}  (running|cached)|.+: \d+ of \d+ .+ left", line
      )
      assert is_known, (moment, stderr)
    # Half a second of patience, and what a busy machine takes for the rest.
    assert seconds < 5.0, moment
  assert not (tmp_path / "results.json").exists()
  here(SMOKE, f"--workdir={tmp_path}")
  assert (tmp_path / "results.json").is_file()


def test_interrupted_twice_it_ends_as_well(tmp_path):
  process = started(SMOKE, f"--workdir={tmp_path}")
  stderr = wait_for(process, "classifier")
  process.send_signal(signal.SIGINT)
  time.sleep(0.05)
  process.send_signal(signal.SIGINT)
  stderr += process.communicate(timeout=60)[1]
  assert process.returncode == 130 and stderr.count("Interrupted") == 1


def test_an_export_says_that_nothing_was_written(tmp_path):
  process = started(
    "export", SMOKE, f"--workdir={tmp_path}", f"--output={tmp_path / 'program'}"
  )
  process.send_signal(signal.SIGINT)
  _, stderr = process.communicate(timeout=60)
  assert (process.returncode, stderr) == (130, "Interrupted; the output was not written.\n")
  assert not list(tmp_path.iterdir())
