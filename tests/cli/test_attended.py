"""A process of a pod ends in a line and with the right code, however it is ended."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from command import SMOKE

# Ends as its first argument says; what C++ would say goes straight to the descriptor.
CHILD = """
import os, signal, sys, time
from diffence_jax.cli.attended import attend
attend(["diffence", "--distributed=auto"])
say = lambda text: os.write(2, text.encode())
{what}
"""
LOST = (
  r'say("E1128 14:13 agent.cc:289] Polled an error from coordination service\n'
  r"F1128 14:13 client.h:80] Terminating process because the JAX distributed service detected "
  r'fatal errors.\n*** Check failure stack trace: ***\n"); '
)


def start(what):
  return subprocess.Popen(
    [sys.executable, "-c", CHILD.format(what=what)], stdout=subprocess.PIPE,
    stderr=subprocess.PIPE, text=True,
  )  # fmt: skip


@pytest.mark.parametrize(
  ("what", "code", "said"),
  [
    ("print('mine', file=sys.stderr); sys.exit(3)", 3, "mine\n"),
    (r"say('a warning\n'); sys.exit(0)", 0, "a warning\n"),
    # Python has told it.
    (f"{LOST}print('told', file=sys.stderr); os._exit(75)", 75, "told\n"),
  ],
)
def test_who_ends_orderly_is_as_if_nobody_waited(what, code, said):
  process = start(what)
  assert (process.communicate()[1], process.returncode) == (said, code)


def test_stdout_is_pythons_alone():
  said = r"b'[Gloo] Rank 0 is connected\nof C++\n'"
  process = start(f"print('table'); os.write(1, {said}); print('rest')")
  assert process.communicate() == ("table\nrest\n", "of C++\n")
  assert process.returncode == 0


def test_a_lost_first_process_is_a_line_and_no_trace():
  process = start(f"say('before\\n'); {LOST}os.abort()")
  said = process.communicate()[1]
  assert process.returncode == os.EX_TEMPFAIL
  before, line = said.splitlines()
  assert before == "before"
  assert line.startswith("diffence: another process of the pod, most likely the first")


def test_a_fault_of_another_kind_is_not_hidden():
  process = start(r'say("F1128 out of everything\ntrace\n"); os.abort()')
  said = process.communicate()[1]
  assert process.returncode == 128 + signal.SIGABRT
  assert said.startswith("F1128 out of everything\ntrace\n") and "SIGABRT" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_handed_on(number):
  process = start(
    "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n"
    "signal.signal(signal.SIGINT, lambda *_: os._exit(7))\n"
    "print('ready', flush=True); time.sleep(60)"
  )
  assert process.stdout.readline() == "ready\n"
  process.send_signal(number)
  assert process.wait(30) == 7


def test_who_is_killed_takes_the_child_along():
  process = start("print(os.getpid(), flush=True); time.sleep(60)")
  child = int(process.stdout.readline())
  process.kill()
  process.wait()
  for _ in range(300):
    # What has ended and nobody has waited for is still there, but does nothing.
    try:
      with open(f"/proc/{child}/stat", encoding="ascii") as file:
        if file.read().split()[2] == "Z":
          return
    except FileNotFoundError:
      return
    time.sleep(0.1)
  pytest.fail("The child goes on.")


def start_pod(workdir, *of_second):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  command = [sys.executable, "-m", "diffence_jax.cli.main", SMOKE, f"--workdir={workdir}"]
  return [
    subprocess.Popen(
      [*command, f"--distributed={address},{number},2", *own],
      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    for number, own in enumerate(([], of_second))
  ]  # fmt: skip


def test_where_the_first_is_killed_the_other_says_so_and_the_run_goes_on(tmp_path):
  first, second = start_pod(tmp_path)
  for line in second.stderr:
    if line.startswith("classifier"):
      break
  first.kill()
  said = second.communicate()[1]
  assert second.returncode == os.EX_TEMPFAIL, said
  # In whatever it was at: told by C++ and the process that waits, or by itself.
  assert said.splitlines()[-1].startswith("diffence: ")
  assert "Start all of them again" in said and "stack trace" not in said


def test_a_setting_that_is_wrong_in_one_is_an_error_in_both(tmp_path):
  begun = time.monotonic()
  first, second = start_pod(tmp_path, "--config.purify.stepp=3")
  ends = [process.communicate()[1] for process in (first, second)]
  assert [process.returncode for process in (first, second)] == [2, 2]
  assert ends[0].startswith("diffence: Process 1 of 2 was given something that is not right")
  assert ends[1].startswith("diffence: There is no setting 'stepp'")
  assert time.monotonic() - begun < 60.0
  assert not list(tmp_path.iterdir())
