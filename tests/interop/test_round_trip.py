"""A classifier trained with PyTorch goes all the way to a report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_classifier_of_pytorch_is_imported_protected_and_audited(tmp_path):
  pytest.importorskip("torch", reason="PyTorch, of the extra 'torch', is not installed")
  pytest.importorskip("safetensors", reason="of the extra 'torch'")
  command = [
    sys.executable,
    ROOT / "experiments" / "torch_round_trip.py",
    f"--config={ROOT / 'configs' / 'digits.py'}:smoke",
    f"--workdir={tmp_path}",
    "--epochs=25",
    "--width=8",
  ]
  subprocess.run(command, check=True, capture_output=True)
  found = json.loads((tmp_path / "round_trip.json").read_text())
  assert found["largest_logit_difference"] < 1e-4 and found["labels_that_differ"] == 0
  predictors = found["predictors"]
  # It has learnt from 48 members: chance is 0.1.
  assert predictors["undefended"]["test_accuracy"] > 0.25
  for name in ("scenario 1", "scenario 2", "scenario 3"):
    assert predictors[name]["label_changes"] == 0
    assert predictors[name]["test_accuracy"] == predictors["undefended"]["test_accuracy"]
