"""Ctrl-C and SIGTERM at any moment: one line, the right exit code, and nothing is lost."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.command import SMOKE, diffence

# Seconds since the command watches for signals. Most of a first run is compilation, in which
# Python runs no handler.
MOMENTS = (0.0, 0.3, 1.0, 2.0, 4.0, 7.0)
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


def interrupted(workdir, moment, number):
  """The exit code, what it printed, and how long it took to end, of a run that is signalled."""
  process = started(SMOKE, f"--workdir={workdir}")
  time.sleep(moment)
  start = time.monotonic()
  process.send_signal(number)
  _, stderr = process.communicate(timeout=60)
  return process.returncode, stderr, time.monotonic() - start


@pytest.mark.parametrize(
  ("number", "word", "code", "moments"),
  [
    (signal.SIGINT, "Interrupted", 130, MOMENTS),
    (signal.SIGTERM, "Terminated", 75, MOMENTS[1::3]),
  ],
)
def test_at_any_moment_it_ends_at_once_with_one_line(tmp_path, number, word, code, moments):
  for moment in moments:
    found, stderr, seconds = interrupted(tmp_path / str(moment), moment, number)
    assert found == code, (moment, stderr)
    lines = stderr.splitlines()
    assert lines[-1] == f"{word}; {GOES_ON}", (moment, stderr)
    # Before it, nothing but the data and the stages.
    for line in lines[:-1]:
      is_known = line.startswith("data  ") or re.fullmatch(r"\w+ +[0-9a-f]{16}  running", line)
      assert is_known, (moment, stderr)
    # Half a second of patience, and what a busy machine takes for the rest.
    assert seconds < 5.0, moment


def test_what_was_interrupted_goes_on_to_the_end(tmp_path):
  for moment in (5.0, 7.0):
    interrupted(tmp_path, moment, signal.SIGINT)
  diffence(SMOKE, f"--workdir={tmp_path}", check=0)
  assert (tmp_path / "results.json").is_file()


def test_interrupted_twice_it_ends_as_well(tmp_path):
  process = started(SMOKE, f"--workdir={tmp_path}")
  time.sleep(3.0)
  process.send_signal(signal.SIGINT)
  time.sleep(0.05)
  process.send_signal(signal.SIGINT)
  _, stderr = process.communicate(timeout=60)
  assert process.returncode == 130 and stderr.count("Interrupted") == 1


def test_an_export_says_that_nothing_was_written(tmp_path):
  process = started(
    "export", SMOKE, f"--workdir={tmp_path}", f"--output={tmp_path / 'program'}"
  )
  process.send_signal(signal.SIGINT)
  _, stderr = process.communicate(timeout=60)
  assert (process.returncode, stderr) == (130, "Interrupted; the output was not written.\n")
  assert not list(tmp_path.iterdir())
