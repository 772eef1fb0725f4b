"""Runs beside each other: their figures, what does not compare, and files that are none."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from report.page_reader import Page
from report.report_example import NAMES, stored, stored_arrays
from tables.runs_example import real, write_record, write_run

from diffence_jax.cli.main import run as command
from diffence_jax.report.curves import read_curves
from diffence_jax.tables.comparison import all_cautions, format_comparison
from diffence_jax.tables.runs import changed_settings, read_runs


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
  """Two runs that differ in a setting, and what the command leaves of them."""
  folder = tmp_path_factory.mktemp("compared")
  settings = {**stored().settings, "purify": {**stored().settings["purify"], "step": 80}}
  paths = [
    write_run(folder / "first"),
    write_run(folder / "second", real(settings=settings)),
  ]
  output = folder / "output"
  assert command(["diffence", "compare", *map(str, paths), f"--output={output}"]) == 0
  return paths, output


def test_every_run_and_predictor_has_a_line_with_its_figures(compared):
  runs, left_out = read_runs(compared[0])
  text = format_comparison(runs, all_cautions(runs, left_out), 400)
  assert left_out == [] and all_cautions(runs, left_out) == []
  for run in runs:
    for row in run.rows:
      (line,) = (
        one for one in text.splitlines() if one.startswith(f"{run.label}: {row.name} ")
      )
      assert f"{row.highest_auc.value:.3f}" in line and row.highest_auc.title in line
      assert f"{row.nll:.3f}" in line and f"{row.ece:.3f}" in line
      for rate in row.highest_tpr_at_fpr:
        assert f"{100 * rate.value:.1f}%" in line
  # Only the timed policy has a time, and the undefended predictor.
  times = [runs[0].milliseconds(row) for row in runs[0].rows]
  time = stored().answer_time
  assert times == [time.alone, None, None, time.defended, None]


def test_settings_that_differ_are_told_and_no_others(compared):
  runs, _ = read_runs(compared[0])
  step = str(stored().settings["purify"]["step"])
  assert changed_settings(runs) == {"purify.step": [step, "80"]}


def test_files_hold_what_the_table_shows_and_the_curves(compared):
  _, output = compared
  content = json.loads((output / "comparison.json").read_text())
  assert [run["label"] for run in content["runs"]] == ["first", "second"]
  curve = content["runs"][1]["curves"]["scenario 1"]
  np.testing.assert_array_equal(curve["tpr"], stored_arrays()["scenario 1/tpr"])
  with open(output / "comparison.csv", newline="") as handle:
    lines = list(csv.DictReader(handle))
  aucs = [
    float(line["value"])
    for line in lines
    if line["metric"] == "highest_auc" and line["run"] == "second"
  ]
  assert aucs == [row.highest_auc.value for row in stored().predictors]
  page = Page((output / "comparison.html").read_text())
  plots = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
  assert len(plots) == len(NAMES) and all("a line a run" in alt for alt in plots)
  # What scrolls is reached by keys.
  scrolled = [a for tag, a in page.tags if tag == "div" and a.get("class") == "scroll"]
  assert scrolled and all(a["tabindex"] == "0" and a["aria-label"] for a in scrolled)


def _without_an_attack(results):
  first, *others = results.predictors
  fewer = dataclasses.replace(first, attacks=first.attacks[:-1])
  return dataclasses.replace(results, predictors=(fewer, *others))


@pytest.mark.parametrize(
  ("change", "expected"),
  [
    (lambda r: dataclasses.replace(r, seed=3), "another split"),
    (
      lambda r: dataclasses.replace(r, data=dataclasses.replace(r.data, source="wine")),
      "other data (wine and digits",
    ),
    (lambda r: dataclasses.replace(r, protocol="paper"), "protocol 'paper' and 'disjoint'"),
    (lambda r: dataclasses.replace(r, variant="smoke"), "SMOKE RUN"),
    (_without_an_attack, "other attacks were run on undefended"),
    (lambda r: dataclasses.replace(r, versions={"diffence_jax": "9"}), "versions 9 and 0.1.0"),
  ],
)
def test_what_does_not_compare_is_said(tmp_path, change, expected):
  paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", change(real()))]
  runs, left_out = read_runs(paths)
  (told,) = all_cautions(runs, left_out)
  assert told.startswith("b") and expected in told


def test_records_are_read_and_do_not_compare_with_experiments(tmp_path):
  paths = [
    write_record(tmp_path / "one"),
    write_record(tmp_path / "two", num_samples=90),
    write_run(tmp_path / "run"),
  ]
  runs, left_out = read_runs(paths)
  told = all_cautions(runs, left_out)
  assert [run.sizes for run in runs] == [(24, 24)] * 3 and left_out == []
  assert len(told) == 2
  assert "two against one: other data or another split" in told[0]
  assert "run against one: one is an experiment" in told[1]


def test_another_schema_is_left_out_and_said(tmp_path):
  paths = [write_run(tmp_path / "new"), write_run(tmp_path / "old")]
  content = json.loads((paths[1] / "results.json").read_text())
  (paths[1] / "results.json").write_text(json.dumps(content | {"schema": 2}))
  runs, left_out = read_runs(paths)
  assert [run.label for run in runs] == ["new"]
  assert len(left_out) == 1 and "is of schema 2" in left_out[0]
  with pytest.raises(ValueError, match="schema 2"):
    read_runs(paths[1:])


def test_runs_of_one_name_are_told_apart_and_lacking_curves_are_said(tmp_path):
  paths = [
    write_run(tmp_path / "one" / "run"),
    write_run(tmp_path / "two" / "run", curves=False) / "results.json",
  ]
  runs, left_out = read_runs(paths)
  assert [run.label for run in runs] == [str(path) for path in paths]
  (told,) = all_cautions(runs, left_out)
  assert told.startswith(f"No ROC curves of {paths[1]}:")


def test_attacks_that_differ_are_told_once_for_all_predictors(tmp_path):
  results = real()
  fewer = tuple(
    dataclasses.replace(row, attacks=row.attacks[:-9]) for row in results.predictors
  )
  paths = [
    write_run(tmp_path / "a"),
    write_run(tmp_path / "b", dataclasses.replace(results, predictors=fewer)),
  ]
  runs, left_out = read_runs(paths)
  told = all_cautions(runs, left_out)
  assert all(sum(name in text for text in told) >= 1 for name in NAMES)
  assert len(told) < len(NAMES) and all("; ...)" in text for text in told)


@pytest.mark.parametrize("case", ["none", "twice", "not there", "no json", "output"])
def test_bad_input_is_refused_in_a_line(tmp_path, capsys, case):
  run = write_run(tmp_path / "run")
  (tmp_path / "text").write_text("{")
  arguments = {
    "none": [],
    "twice": [run, run / "results.json"],
    "not there": [run, tmp_path / "nowhere"],
    "no json": [tmp_path / "text"],
    "output": [run, f"--output={tmp_path / 'text'}"],
  }[case]
  assert command(["diffence", "compare", *map(str, arguments)]) == 2
  error = capsys.readouterr().err
  assert error.count("\n") == 1 and "Traceback" not in error


def test_curves_of_others_are_checked(tmp_path):
  good = {"p/fpr": np.array([0.0, 0.5, 1.0]), "p/tpr": np.array([0.0, 0.7, 1.0])}
  np.savez(tmp_path / "good.npz", **good)
  np.testing.assert_array_equal(read_curves(tmp_path / "good.npz")["p"].tpr, good["p/tpr"])
  for at, change in enumerate(
    [
      {"p/tpr": np.array([0.0, 1.0])},
      {"p/tpr": np.array([0.0, np.nan, 1.0])},
      {"p/tpr": np.array([0.0, 0.7, 0.5])},
      {"p/tpr": np.array([0.0, 0.7, 1.5])},
      {"p/tpr": np.array([0, 1, 1])},
      {"p/tpr": np.array([0.0, None, 1.0])},
    ]
  ):
    np.savez(tmp_path / f"{at}.npz", **good | change)
    with pytest.raises(ValueError, match=f"{at}.npz"):
      read_curves(tmp_path / f"{at}.npz")
  np.savez(tmp_path / "half.npz", **{"p/fpr": good["p/fpr"]})
  with pytest.raises(ValueError, match="expected two of one length"):
    read_curves(tmp_path / "half.npz")
