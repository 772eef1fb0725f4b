"""The coverage tables of docs/statistics.md, in a small version."""

import functools
import importlib.util
import json
from pathlib import Path

import pytest
import scipy.stats
from absl import flags

PROGRAM = Path(__file__).parents[2] / "experiments" / "coverage.py"
RUNS = 100
# So many of the runs hold the truth, but for one test in 1,000, if 93% of all runs do.
HELD = scipy.stats.binom.ppf(0.001, RUNS, 0.93) / RUNS


@pytest.fixture
def program(monkeypatch):
  """The program as a module; its flags, that others have too, are its own."""
  own = flags.FlagValues()
  for kind in ("DEFINE_integer", "DEFINE_enum", "DEFINE_string"):
    define = functools.partial(getattr(flags, kind), flag_values=own)
    monkeypatch.setattr(flags, kind, define)
  spec = importlib.util.spec_from_file_location("coverage_program", PROGRAM)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  module.read_flags = own
  return module


@pytest.mark.parametrize("num_models, leak, heavy", [(8, 0.0, False), (16, 0.3, True)])
def test_intervals_of_every_model_in_turn_hold_the_truth(program, num_models, leak, heavy):
  row = program.every_model(num_models, leak, 0.3, heavy, RUNS)
  assert min(row["AUC"], row["difference"], row["TPR at 0.1%"], row["TPR at 1.0%"]) >= HELD
  # They are wider than those that take models alone for what varies.
  assert row["AUC, models alone"] < row["AUC"]
  if not leak:
    assert row["AUC, truth"] == 0.5 and row["difference, truth"] == 0.0
  else:
    assert row["AUC, truth"] > 0.53 and row["difference, truth"] < -0.01


def test_of_few_models_that_differ_much_only_leaving_out_pairs_holds_it(program, monkeypatch):
  held = program.every_model(8, 1.5, 1.0, False, RUNS)["AUC"]
  monkeypatch.setattr(program, "aucs_without_each_pair", lambda phi, membership: None)
  assert program.every_model(8, 1.5, 1.0, False, RUNS)["AUC"] < HELD <= held


def test_single_examples_are_told_apart_from_chance_by_folds(program):
  row = program.single_examples(16, 0.0, 0.3, 20)
  assert abs(row["mean"] - 0.5) < 0.01 and row["mean, pairs left out"] < 0.48
  assert row["own AUC, covered"] > 0.93
  for quantile in program.QUANTILES:
    assert abs(row[f"{quantile:.0%}"] - row[f"{quantile:.0%}, chance"]) < 0.05


def test_the_program_writes_what_it_prints(program, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(program, "BOUNDS", program.BOUNDS[:1])
  monkeypatch.setattr(program, "NAMED", program.NAMED[:1])
  file = tmp_path / "bounds.json"
  program.read_flags(["coverage", "--part=bounds", "--runs=3", f"--output={file}"])
  program.main(None)
  written = json.loads(file.read_text())
  assert written["runs"] == 3 and set(written) == {"runs", "epsilon", "named"}
  assert f"| {written['epsilon'][0]['law']} | " in capsys.readouterr().out
