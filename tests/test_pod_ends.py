"""Where one process of a pod is terminated or lost while they train in step, all end.

The same command then goes on, on another number of processes, to what one trains alone.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pod_stage
import pytest
from pod_training import train

from diffence_jax import parallel

SCRIPT = Path(__file__).with_name("pod_stage.py")
# Seconds that a step takes more, so that the signal comes in the midst.
PAUSE = 0.2
# Steps between checkpoints: more than there are, so that none is due.
NEVER = 1000


def start(workdir, shard, every):
  """Two processes that train in step, and have taken more than ten steps."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  command = [sys.executable, str(SCRIPT), str(workdir)]
  processes = [
    subprocess.Popen(
      [*command, f"{address},{number},2", str(shard), str(PAUSE), str(every)],
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  while steps_of(workdir) < 13:
    assert all(process.poll() is None for process in processes)
    time.sleep(0.05)
  return processes


def steps_of(workdir):
  """How many steps have begun."""
  path = workdir / "step"
  return int((path.read_text() if path.exists() else "") or 0)


def checkpoints_of(workdir):
  """The steps of the checkpoints."""
  paths = workdir.glob("pixels/*.partial/resume/checkpoints/*")
  return [int(path.name) for path in paths if path.name.isdecimal()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
  """What one process trains, undisturbed."""
  folder = tmp_path_factory.mktemp("alone")
  mesh = parallel.batch_mesh()
  return train(folder, mesh, num_steps=pod_stage.STEPS, checkpoint_every=NEVER)


@pytest.mark.parametrize(
  ("number", "whom", "shard", "every"),
  [
    (signal.SIGTERM, [1], False, NEVER),
    (signal.SIGTERM, [1, 0], False, NEVER),
    (signal.SIGTERM, [1], True, NEVER),
    (signal.SIGTERM, [0], True, NEVER),
    (signal.SIGTERM, [0, 1], True, NEVER),
    (signal.SIGKILL, [1], True, 10),
  ],
  ids=[
    "one", "all", "one, divided", "first, divided", "all, divided", "one killed, divided",
  ],
)  # fmt: skip
def test_all_end_and_the_same_command_goes_on(number, whom, shard, every, expected, tmp_path):
  processes = start(tmp_path, shard, every)
  since, before = time.monotonic(), steps_of(tmp_path)
  for process in whom:
    processes[process].send_signal(number)
  # The last first: who is killed is there until it is waited for.
  said = [process.communicate(timeout=60)[1] for process in reversed(processes)][::-1]
  seconds, killed = time.monotonic() - since, number == signal.SIGKILL
  codes = [process.returncode for process in processes]
  assert codes == [75, -signal.SIGKILL if killed else 75], said
  assert "Traceback" not in "".join(said)
  for process in whom if not killed else ():
    assert "Terminated; the same command goes on." in said[process]
  if killed:
    assert "process 1 of 2 has ended" in said[0]
  (saved,) = checkpoints_of(tmp_path)
  if killed:
    assert saved % every == 0
  else:
    assert before <= saved < pod_stage.STEPS
  # Of what is divided each has written its part.
  parts = "pixels/*.partial/resume/checkpoints/*/state/ocdbt.process_*"
  assert len(list(tmp_path.glob(parts))) == (2 if shard else 1)
  # A look a second, the first's patience with the others, and a busy machine.
  assert seconds < 15.0
  resumed = pod_stage.main(tmp_path, "alone", str(shard), 0, every)
  assert resumed.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(resumed[name], value, atol=1e-5)
