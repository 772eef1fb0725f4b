"""Processes that train in step find what one finds; each has devices of its own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pod_training import train

from diffence_jax import parallel

SCRIPT = Path(__file__).with_name("pod_script.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A folder in which two processes have trained."""
  folder = tmp_path_factory.mktemp("pod")
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  command = [sys.executable, str(SCRIPT), str(folder), address]
  processes = [
    subprocess.Popen([*command, str(number), "2"], env=environment) for number in range(2)
  ]
  assert [process.wait(120) for process in processes] == [0, 0]
  return folder


def assert_alike(variables, expected):
  assert variables.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(variables[name], value, atol=1e-6)


def losses(folder):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(params=["whole", "divided"])
def of_two(request, trained):
  """The folder of a training by two, of parameters that are whole on each, or divided."""
  return trained / request.param


def test_two_processes_train_what_one_trains(of_two, tmp_path):
  alone = train(tmp_path, parallel.batch_mesh(), num_steps=5)
  with np.load(of_two / "variables.npz") as variables:
    assert_alike(dict(variables), alone)
  np.testing.assert_allclose(losses(of_two), losses(tmp_path), rtol=1e-5)


def test_one_process_goes_on_where_two_stopped(of_two, tmp_path):
  assert [path.name for path in of_two.glob("resume/checkpoints/*")] == ["3"]
  resumed = train(of_two, parallel.batch_mesh(), num_steps=8)
  assert_alike(resumed, train(tmp_path, parallel.batch_mesh(), num_steps=8))
