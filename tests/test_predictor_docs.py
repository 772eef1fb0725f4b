"""Classifiers of PyTorch and scikit-learn are wrapped and protected as the docs say."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import diffence_jax as dj

PAGE = Path(__file__).parents[1] / "docs/predictors.md"


def run_example(heading, **names):
  """Runs the example under a heading, which defines `classify`, and returns its names."""
  section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
  (code,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
  names = {"dj": dj, **names}
  exec(compile(code, heading, "exec"), names)
  return names


def check_behind_protect(predict, images):
  """The labels are the classifier's, and some answers are those of candidates."""
  denoise = lambda x, t: 0.1 * x
  protected = dj.protect(predict, denoise, dj.linear_schedule(), num_candidates=4)
  raw, logits = predict(None, images), protected(jax.random.key(0), images)
  np.testing.assert_array_equal(np.argmax(logits, axis=1), np.argmax(raw, axis=1))
  assert np.mean(np.any(logits != raw, axis=1)) > 0.5


def test_scikit_learn():
  names = run_example("scikit-learn")
  digits = names["digits"]
  images = (digits.images / 16.0).astype(np.float32)[:200, ..., None]
  labels = np.argmax(names["predict"](None, images), axis=1)
  assert np.mean(labels == digits.target[:200]) > 0.9
  check_behind_protect(names["predict"], images)


def test_pytorch():
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  layers = (
    torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
    torch.nn.Flatten(), torch.nn.Linear(36, 10),
  )  # fmt: skip
  names = run_example("PyTorch", network=torch.nn.Sequential(*layers))
  images = np.random.default_rng(0).random((20, 8, 8, 3), np.float32)
  answers = names["predict"](None, images)
  # In evaluation mode: the same alone, and normalised by channel.
  np.testing.assert_allclose(names["predict"](None, images[3:4])[0], answers[3], atol=1e-5)
  scaled = (images - [0.4914, 0.4822, 0.4465]) / [0.2023, 0.1994, 0.2010]
  with torch.no_grad():
    given = torch.tensor(scaled.transpose(0, 3, 1, 2), dtype=torch.float32)
    expected = names["network"](given).numpy()
  np.testing.assert_allclose(answers, expected, atol=1e-5)
  check_behind_protect(names["predict"], images)


def test_the_tutorial_of_pytorch(tmp_path, monkeypatch):
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  monkeypatch.chdir(tmp_path)
  page = PAGE.parent / "tutorials/pytorch.md"
  draw = np.random.default_rng(0)
  names = {
    "network": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10)),
    "images": draw.random((80, 4, 4, 1), np.float32),
    "labels": draw.integers(0, 10, 80),
    "is_member": np.arange(80) % 2 == 0,
    "denoise": lambda x, t: 0.1 * x,
    "schedule": dj.linear_schedule(),
  }
  for code in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
    exec(compile(code, page.name, "exec"), names)
  np.testing.assert_array_equal(names["answers"].argmax(axis=1), names["raw"].argmax(axis=1))
  assert [row.name for row in names["results"].predictors] == ["undefended", "diffence"]
  assert (tmp_path / "report/report.html").is_file()


def test_an_endpoint_is_asked_in_parts(monkeypatch):
  names = run_example("An HTTP endpoint")
  sizes = []

  def answer(images):
    sizes.append(len(images))
    return images.reshape(len(images), -1)[:, :3]

  monkeypatch.setitem(names, "ask", answer)
  predict = dj.host_predictor(names["classify"], 3)
  check_behind_protect(predict, np.random.default_rng(0).random((70, 4, 4, 1), np.float32))
  assert set(sizes) <= {64, 70 - 64, 4 * 70 % 64} and max(sizes) == 64
