"""`results.csv`: every figure of the results is in one row, and nothing else is."""

import csv

import pytest
from report_example import AUCS, changed, stored, with_aucs, with_enough

from diffence_jax.audit.typed import to_plain
from diffence_jax.report import write_csv

COLUMNS = [
  "experiment", "variant", "seed", "protocol", "predictor", "attack", "threshold", "metric",
  "value", "low", "high",
]  # fmt: skip


def _rows(results, tmp_path):
  write_csv(results, tmp_path / "results.csv")
  with open(tmp_path / "results.csv", newline="") as handle:
    return list(csv.DictReader(handle))


def _find(rows, **wanted):
  (found,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
  return found


def test_one_figure_a_row(tmp_path):
  results = with_enough((False, True), with_aucs())
  rows = _rows(results, tmp_path)
  assert list(rows[0]) == COLUMNS
  assert all(None not in row and None not in row.values() for row in rows)
  run = {(row["experiment"], row["variant"], row["seed"], row["protocol"]) for row in rows}
  assert run == {("digits", "audit_smoke", "0", "disjoint")}
  # No figure is there twice.
  places = [tuple(row[key] for key in COLUMNS[4:8]) for row in rows]
  assert len(set(places)) == len(places)
  for row in results.predictors:
    for attack in row.attacks:
      named = {"predictor": row.name, "attack": attack.name, "threshold": attack.threshold}
      auc = _find(rows, **named, metric="auc")
      assert [float(auc[key]) for key in ("value", "low", "high")] == list(attack.auc)
      learnt = _find(rows, **named, metric="known_threshold_accuracy")
      assert float(learnt["value"]) == attack.known_threshold_accuracy.value
      rate = attack.tpr_at_fpr[1]
      assert float(_find(rows, **named, metric="tpr_at_fpr_0.01")["high"]) == rate.high
      assert int(_find(rows, **named, metric="tpr_at_fpr_0.01_count")["value"]) == rate.count
      assert _find(rows, **named, metric="tpr_at_fpr_0.01_enough")["value"] == "True"
      assert _find(rows, **named, metric="tnr_at_fnr_0.001_enough")["value"] == "False"


def test_figures_of_a_predictor_alone_and_the_attack_behind_the_highest(tmp_path):
  results = with_aucs()
  rows = _rows(results, tmp_path)
  best = [row for row in rows if row["metric"] == "highest_auc"]
  assert [float(row["value"]) for row in best] == list(AUCS)
  assert {(row["attack"], row["threshold"]) for row in best} == {("loss", "per_class")}
  second = results.predictors[1]
  own = {"predictor": second.name, "attack": ""}
  assert float(_find(rows, **own, metric="ece")["value"]) == second.ece
  assert int(_find(rows, **own, metric="label_changes")["value"]) == 0
  assert float(_find(rows, **own, metric="interval_high")["value"]) == second.interval[1]
  assert float(_find(rows, **own, metric="test_accuracy")["low"]) == second.test_accuracy.low
  change = _find(rows, predictor=second.name, metric="highest_auc_relative_change")
  assert float(change["value"]) == second.highest_auc.relative_change
  # What does not exist has no row.
  of_first = {row["metric"] for row in rows if row["predictor"] == "undefended"}
  assert not of_first & {"interval_low", "returned_raw", "highest_auc_relative_change"}


def _numbers(value):
  if isinstance(value, dict):
    return [number for own in value.values() for number in _numbers(own)]
  if isinstance(value, list):
    return [number for own in value for number in _numbers(own)]
  return [] if value is None or isinstance(value, str) else [float(value)]


def test_every_number_of_the_results_is_there_and_no_other(tmp_path):
  rows = _rows(stored(), tmp_path)
  written = [row[key] for row in rows for key in ("value", "low", "high") if row[key]]
  found = [float(text == "True") if text in ("True", "False") else float(text)
           for text in written]  # fmt: skip
  plain = to_plain(stored().predictors)
  # The limit of a rate is in the metric's name.
  limits = sum(
    len(one[kind])
    for row in plain
    for one, kinds in (
      (row, ("highest_tpr_at_fpr", "highest_tnr_at_fnr")),
      *((attack, ("tpr_at_fpr", "tnr_at_fnr")) for attack in row["attacks"]),
    )
    for kind in kinds
  )
  assert len(found) == len(_numbers(plain)) - limits
  assert set(found) <= set(_numbers(plain))


@pytest.mark.parametrize("name", ['a,"b"\nc', "=1+1"])
def test_awkward_names_stay_whole(tmp_path, name):
  shown = f"'{name}" if name.startswith("=") else name
  rows = _rows(changed(experiment=name), tmp_path)
  assert {row["experiment"] for row in rows} == {shown}
