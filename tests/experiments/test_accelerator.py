"""What is run on an accelerator runs, tiny, and tells what failed, and what was left out."""

import json
import sys
from pathlib import Path

import pytest


@pytest.fixture
def accelerator(monkeypatch):
  monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "experiments"))
  monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  import accelerator

  return accelerator


@pytest.fixture
def tiny(accelerator):
  """One precision and one of each, which is quick."""
  size = accelerator.size_of(small=True)
  return size._replace(precisions=("float32",), steps_per_call=(1,), at_once=(2,))


@pytest.fixture
def clock(accelerator):
  return accelerator.Clock(60, scale=0.0)


def test_queries_and_training_run_small_and_without_pytorch(
  accelerator, tiny, monkeypatch, tmp_path
):
  monkeypatch.setitem(sys.modules, "torch", None)
  monkeypatch.setattr(accelerator, "size_of", lambda small: tiny)
  parts = ["queries", "training"]
  assert accelerator.main([f"--output={tmp_path}", "--small", "--parts", *parts]) == 0
  told = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
  assert list(told) == parts and not any("error" in part for part in told.values())
  drawn, early = told["queries"]["entries"]
  assert drawn["evaluations"] == 6 and early["evaluations"] >= 1  # with what fills a batch
  assert drawn["ms"]["median"] > 0 and drawn["floor_ms"] >= early["floor_ms"] > 0
  assert all(entry["floor_ms"] > 0 for entry in told["training"]["entries"])
  ways = [(e["way"], e["at_once"]) for e in told["training"]["entries"]]
  assert ways == [("diffusion", 1), ("classifier", 1), ("ensemble", 2)]
  assert "torch" in told["queries"]["skipped"] and "torch" in told["training"]["skipped"]
  table = (tmp_path / "accelerator.md").read_text()
  assert "### queries" in table and "skipped: " in table


def test_the_audit_is_from_nothing_each_time(accelerator, monkeypatch, tmp_path):
  workdirs = []

  def audited(command, **_):
    (workdir,) = (Path(a.partition("=")[2]) for a in command if a.startswith("--workdir="))
    assert not list(workdir.iterdir()) and workdir.parent == tmp_path
    (workdir / "results.json").write_text("{}")
    workdirs.append(workdir)

  monkeypatch.setattr(accelerator.subprocess, "run", audited)
  size, clock = accelerator.size_of(small=True), accelerator.Clock(60)
  told = [next(accelerator.audit(size, clock, tmp_path)) for _ in range(2)]
  assert len(set(workdirs)) == 2
  assert all(entry["config"] == "digits.py:smoke" and entry["seconds"] >= 0 for entry in told)


@pytest.fixture
def torch(accelerator):
  return pytest.importorskip("torch", reason="the benchmarks' PyTorch side is optional")


def test_pytorch_answers_and_trains_beside_ours(torch, accelerator, tiny, clock):
  import accelerator_speeds

  (query,) = accelerator_speeds.their_queries(tiny, clock)
  assert query["evaluations"] == 12 and query["ms"]["median"] > 0
  examples = accelerator_speeds.draw_examples(tiny)
  steps = list(accelerator_speeds.their_steps(tiny, clock, *examples))
  ways = [entry["way"] for entry in steps]
  assert ways == ["diffusion, PyTorch, float32", "classifier, PyTorch, float32"]
  assert all(entry["ms"]["median"] > 0 for entry in steps)
  assert clock.left_out == ["torch.compile, which is for a GPU here"]  # told once


def test_pytorch_computes_as_ours_does_and_afterwards_as_before(torch, accelerator):
  import torch_settings
  from accelerator_size import PRECISIONS

  kinds = torch.backends.cuda.matmul, torch.backends.cudnn
  before = [kind.allow_tf32 for kind in kinds]
  for precision, allowed in (("float32", False), ("TF32", True), ("bfloat16", True)):
    with torch_settings.products(PRECISIONS[precision].products):
      assert [kind.allow_tf32 for kind in kinds] == [allowed, allowed]
  assert [kind.allow_tf32 for kind in kinds] == before
  threads = torch.get_num_threads()
  with torch_settings.one_thread(True):
    assert torch.get_num_threads() == 1
  assert torch.get_num_threads() == threads


def test_a_part_that_fails_is_told_and_the_rest_goes_on(accelerator):
  def fails():
    yield {"n": 1}
    raise AssertionError("the labels differ")

  def late():
    if clock.allows("all of it", 60):
      yield {"n": 2}

  def fine():
    yield {"n": 3}

  clock, told = accelerator.Clock(30), {}
  parts = {"fails": fails, "late": late, "fine": fine}
  assert not accelerator.run_parts(parts, clock, told.update)
  assert told["fails"]["entries"] == [{"n": 1}]
  assert told["fails"]["error"] == "AssertionError: the labels differ"
  assert (told["late"]["entries"], told["late"]["left_out"]) == ([], ["all of it"])
  assert told["fine"]["entries"] == [{"n": 3}] and "error" not in told["fine"]
  table = accelerator.as_markdown(told, {"device": "d", "date": "today", "jax": "1"})
  assert "error: AssertionError: the labels differ" in table and "| 3 |" in table
  assert accelerator.run_parts({"fine": fine}, clock, told.update)
