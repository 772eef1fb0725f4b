"""The audit of a PyTorch classifier: it runs at a small size, and its two networks are one."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example():
  """The program as a module, which experiments import by its name too."""
  sys.path.insert(0, str(EXAMPLES))
  yield importlib.import_module("audit_pytorch")
  sys.path.remove(str(EXAMPLES))


def test_it_audits_and_protects(example, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["", "--small", f"--workdir={tmp_path}", "--images=30"])
  example.main()
  said = capsys.readouterr().out
  assert "Every shadow model as the target in turn" in said and "scenario 3" in said
  assert "0 of 30 labels are others than alone" in said
  assert (tmp_path / "report.html").is_file()


def test_the_network_of_flax_has_as_many_weights_drawn_alike(example):
  images = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
  of_torch = example.train(images, np.arange(20) % 10, 0, epochs=0)
  module = example.Net(10)
  variables = module.init(jax.random.key(0), images)
  answers = np.asarray(module.apply(variables, images)), of_torch(images)
  assert answers[0].shape == answers[1].shape == (20, 10)
  network = of_torch.__closure__[0].cell_contents
  weights = [w.detach().numpy() for w in network.parameters() if w.ndim > 1]
  kernels = [v["kernel"] for v in variables["params"].values()]
  for weight, kernel in zip(weights, kernels, strict=True):
    assert weight.size == kernel.size
    # The variance of one that is drawn within +-limit; 64 standard errors would be 0.3.
    assert np.std(kernel) == pytest.approx(np.std(weight), rel=0.25)
