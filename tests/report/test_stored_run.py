"""The stored results are as a run makes them today, and what a run leaves is read back."""

import csv
import stat

import numpy as np
from page_reader import Page, pictures, shows
from report_example import NAMES, stored, stored_arrays

from diffence_jax import metrics
from diffence_jax.audit.typed import to_plain
from diffence_jax.report import finding, read_results

_ADVICE = "run `PYTHONPATH=. python tests/report/report_example.py` to store another run"


def _shape(value):
  """Keys and types, of lists those of their first element."""
  if isinstance(value, dict):
    return {key: _shape(own) for key, own in value.items()}
  if isinstance(value, list):
    return [_shape(own) for own in value[:1]]
  return type(value).__name__


def test_stored_results_have_the_shape_of_a_fresh_runs(fresh_run):
  found, expected = (_shape(to_plain(own)) for own in (stored(), fresh_run.results))
  assert found == expected, _ADVICE
  assert tuple(row.name for row in fresh_run.results.predictors) == NAMES
  for table in (
    "adaptive",
    "samples",
    "canaries",
    "vulnerability",
    "chosen",
    "named",
    "epsilon",
  ):
    rows, fresh = (getattr(own.shadow, table) for own in (stored(), fresh_run.results))
    assert len(rows) == len(fresh) > 0, _ADVICE


def test_a_run_chooses_the_attack_on_the_target_by_its_shadow_models(fresh_run):
  results = fresh_run.results
  for row in results.predictors:
    of_models = [
      one for one in results.shadow.samples if (one.predictor, one.queries) == (row.name, 1)
    ]
    strongest = max(of_models, key=lambda one: one.auc.value).attack
    (expected,) = [
      own for own in row.attacks if (own.name, own.threshold) == (strongest, "global")
    ]
    assert (row.chosen.attack, row.chosen.value) == (strongest, expected.auc.value)
    assert row.chosen.value <= row.highest_auc.value


def test_stored_arrays_have_the_shape_of_a_fresh_runs(fresh_run):
  found, expected = (
    {name: (array.dtype, array.ndim) for name, array in own.items()}
    for own in (stored_arrays(), fresh_run.arrays)
  )
  assert found == expected, _ADVICE
  # What is of the data and not of the training is the same wherever it runs.
  np.testing.assert_array_equal(stored_arrays()["images/raw"], fresh_run.arrays["images/raw"])


def _read(run, name):
  with open(run.workdir / name, newline="") as handle:
    return list(csv.DictReader(handle))


def test_the_scores_that_a_run_leaves_have_the_aucs_of_its_results(fresh_run):
  assert stat.S_IMODE((fresh_run.workdir / "scores.csv").stat().st_mode) == 0o600
  scores = {}
  for row in _read(fresh_run, "scores.csv"):
    if row["group"] == "target":
      sides = scores.setdefault((row["predictor"], row["attack"]), ([], []))
      sides[int(row["member"])].append(float(row["score"]))
  judged = {
    (row.name, attack.name): attack.auc.value
    for row in fresh_run.results.predictors
    for attack in row.attacks
    if attack.threshold == "global"
  }
  assert set(scores) == set(judged)
  for names, (nonmembers, members) in scores.items():
    assert metrics.roc(np.array(members), np.array(nonmembers)).auc == judged[names]


def test_the_examples_that_a_run_leaves_have_its_scores_and_their_own_aucs(fresh_run):
  assert stat.S_IMODE((fresh_run.workdir / "examples.csv").stat().st_mode) == 0o600
  examples = {row["id"]: row for row in _read(fresh_run, "examples.csv")}
  for row in _read(fresh_run, "scores.csv"):
    example = examples[row["id"]]
    assert example[f"{row['predictor']}: {row['attack']}"] == row["score"]
    assert (example["label"], example["member"]) == (row["label"], row["member"])
  for predictor in fresh_run.results.shadow.vulnerability:
    own = [float(row[f"{predictor.predictor}: own_auc"]) for row in examples.values()]
    assert len(own) == predictor.num_examples
    assert np.quantile(own, 0.9) == predictor.auc_quantiles["0.9"].value


def test_a_run_leaves_its_results_to_be_read(fresh_run):
  results = fresh_run.results
  assert read_results(fresh_run.workdir / "results.json") == results
  aucs = [row for row in _read(fresh_run, "results.csv") if row["metric"] == "auc"]
  assert len(aucs) == sum(len(p.attacks) for p in results.predictors)
  own, rows = results.shadow, _read(fresh_run, "shadow.csv")
  tables = (own.adaptive, own.samples, own.canaries, own.chosen, own.named, own.vulnerability)
  assert len(rows) == sum(map(len, (*tables, own.epsilon)))
  assert finding(results) in Page((fresh_run.workdir / "report.html").read_text()).text


def test_images_of_the_data_set_are_in_a_runs_private_page_only(fresh_run):
  report, private = (
    pictures((fresh_run.workdir / f"{name}.html").read_text()) for name in ("report", "private")
  )
  assert report and private
  for image in fresh_run.arrays["images/raw"]:
    assert any(shows(picture, image) for picture in private)
    assert not any(shows(picture, image) for picture in report)
