"""The terminal table, the finding in one sentence, and the CSV file."""

import csv

import pytest
from report_example import AUCS, NAMES, make_results

from diffence_jax.report import finding, format_table, write_csv
from diffence_jax.report.table import reported_sizes


def _row(text, name):
  return next(line for line in text.splitlines() if line.startswith(name))


def test_table_shows_the_figures_of_every_predictor():
  text = format_table(make_results())
  assert _row(text, "undefended").split() == [
    "undefended", "96.5%", "0", "0.021", "0.740", "0.520", "0.220", "0.692", "2.0%*", "20.0%"
  ]  # fmt: skip
  assert _row(text, "scenario 1").split()[1:] == [
    "1", "96.5%", "0", "0.021", "0.580", "-21.6%", "0.520", "0.060", "0.564", "-21.6%",
    "2.0%*", "20.0%",
  ]  # fmt: skip
  below = text.splitlines()[text.splitlines().index(_row(text, "scenario 1")) + 1]
  assert "[0.540, 0.620]" in below
  assert "[94.7, 98.3]" in below


def test_table_fits_a_terminal_of_120_columns():
  results = make_results(label_changes=(0, 0, 0, 0, 123456), variant="smoke", protocol="paper")
  text = format_table(results).removesuffix(finding(results))
  assert max(map(len, text.splitlines())) <= 120
  assert text.isascii()


def test_columns_are_aligned():
  text = format_table(make_results())
  starts = {_row(text, name).index("96.5%") for name in NAMES}
  starts.add(_row(text, "predictor").index("accuracy"))
  assert len(starts) == 1


@pytest.mark.parametrize(
  ("enough", "marked"),
  [((False, False), (1, 1)), ((False, True), (1, 0)), ((True, True), (0, 0))],
)
def test_rates_of_too_small_samples_are_marked(enough, marked):
  text = format_table(make_results(enough=enough))
  for name in NAMES:
    assert tuple(cell.count("*") for cell in _row(text, name).split()[-2:]) == marked
  assert ("fewer than 10 expected false positives" in text) == (enough != (True, True))


def test_table_says_what_was_measured():
  text = format_table(make_results())
  assert "members 200 known + 200 target; non-members 400 known + 400 target" in text
  assert "over 5 attacks" in text
  assert "95% interval" in text
  assert text.endswith(finding(make_results()))


def test_table_says_how_often_and_on_how_many_samples_attacks_ask():
  results = make_results()
  assert "each with one query an image" in " ".join(format_table(results).split())
  assert "fewer samples" not in format_table(results)
  for row in results["predictors"][:2]:
    attack = {**row["attacks"][0], "name": "hop_skip_jump"}
    attack["tnr_at_fnr"] = [{**rate, "num": 100} for rate in attack["tnr_at_fnr"]]
    attack["tpr_at_fpr"] = attack["tnr_at_fnr"]
    row["attacks"].append(attack)
  assert "label-only attacks on fewer samples, 100 a side" in " ".join(
    format_table(results).split()
  )
  attack["tpr_at_fpr"] = [{**rate, "num": 50} for rate in attack["tnr_at_fnr"]]
  results["predictors"][0]["attacks"].pop()
  assert "fewer samples, 100 members and 50 non-members" in " ".join(
    format_table(results).split()
  )


def test_smoke_run_is_no_measurement():
  assert "shortened run" in format_table(make_results(variant="smoke"))
  assert "shortened run" not in format_table(make_results())


def test_published_protocol_pools_the_samples():
  assert reported_sizes(make_results()) == (200, 400)
  assert reported_sizes(make_results(protocol="paper")) == (400, 800)


def test_finding_of_a_gain():
  assert finding(make_results()) == (
    "Scenario 1 takes 21.6% off the highest attack AUC (0.740 -> 0.580; gap floor 0.520) and "
    "changes no label."
  )


def test_finding_names_overlapping_intervals():
  text = finding(make_results(aucs=(0.74, 0.70, 0.71, 0.72, 0.73)))
  assert text.startswith("Scenario 1 takes 5.4% off")
  assert "(0.740 -> 0.700, 95% intervals overlap; gap floor 0.520)" in text


@pytest.mark.parametrize("best", [0.74, 0.7399, 0.76])
def test_finding_of_no_gain(best):
  text = finding(make_results(aucs=(0.74, 0.78, best, 0.79, 0.80)))
  assert text == (
    "Nothing was gained: no defended predictor that keeps the labels lowers the highest attack "
    f"AUC (undefended 0.740, best scenario 2 {best:.3f}; gap floor 0.520)."
  )


def test_finding_prefers_kept_labels_and_tells_what_changing_them_reaches():
  text = finding(make_results(aucs=(0.74, 0.60, 0.62, 0.61, 0.55)))
  assert text.startswith("Scenario 1 takes 18.9% off")
  assert text.endswith(
    "changes no label; average reaches 0.550 but changes 9 of 1,200 labels (0.8%)."
  )


def test_finding_when_every_predictor_changes_labels():
  text = finding(make_results(label_changes=(0, 60, 60, 60, 120)))
  assert text.endswith("and changes 60 of 1,200 labels (5.0%).")


def test_finding_does_not_praise_a_loss_that_changes_labels():
  text = finding(make_results(aucs=(0.74, 0.80, 0.81, 0.82, 0.75)))
  assert "reaches" not in text


def test_csv_has_a_row_for_each_attack_on_each_predictor(tmp_path):
  results = make_results()
  write_csv(results, tmp_path / "results.csv")
  with open(tmp_path / "results.csv", newline="") as handle:
    rows = list(csv.DictReader(handle))
  pairs = [
    (p["name"], a["name"], a["threshold"]) for p in results["predictors"] for a in p["attacks"]
  ]
  assert [(r["predictor"], r["attack"], r["threshold"]) for r in rows] == pairs
  assert all(None not in row and None not in row.values() for row in rows)
  for row, auc in zip(rows[1::5], AUCS, strict=True):
    assert float(row["auc"]) == auc
    assert float(row["auc_low"]) == pytest.approx(auc - 0.04)
    assert float(row["tpr_at_fpr_0.01"]) == 0.2
    assert float(row["tpr_at_fpr_0.01_count"]) == 4
    assert row["tnr_at_fnr_0.001_enough"] == "False"
  assert (rows[0]["interval_low"], rows[0]["returned_raw"]) == ("", "")
  assert (rows[5]["interval_low"], rows[5]["interval_high"]) == ("1.25", "4.5")


def test_csv_keeps_awkward_names_whole(tmp_path):
  write_csv(make_results(experiment='a,"b"\nc'), tmp_path / "results.csv")
  with open(tmp_path / "results.csv", newline="") as handle:
    assert {row["experiment"] for row in csv.DictReader(handle)} == {'a,"b"\nc'}
