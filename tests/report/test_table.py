"""The terminal table, the finding in one sentence, and the CSV file."""

import csv
import dataclasses

import pytest
from report_example import (
  AUCS,
  NAMES,
  changed,
  defended_alone,
  paper_protocol,
  stored,
  with_aucs,
  with_enough,
  with_predictors,
  without_shadow,
)

from diffence_jax.report import finding, format_table, write_csv
from diffence_jax.report.cells import write_rows
from diffence_jax.report.table import notes, reported_sizes
from diffence_jax.training.recipe import Guarantee


def _row(text, name):
  return next(line for line in text.splitlines() if line.startswith(name))


def _words(text):
  return " ".join(text.split())


def _shares(*figures):
  return [f"{100 * figure.value:.1f}%" for figure in figures]


def test_table_shows_the_figures_of_every_predictor():
  text = format_table(without_shadow(with_aucs()))
  first, second, *_ = stored().predictors
  low, high = (_shares(rate) for rate in first.highest_tpr_at_fpr)
  assert _row(text, "undefended").split() == [
    "undefended", *_shares(first.test_accuracy), "0", f"{first.ece:.3f}", "0.740", "0.520",
    "0.220", "0.692", f"{low[0]}*", f"{high[0]}*",
  ]  # fmt: skip
  low, high = (_shares(rate) for rate in second.highest_tpr_at_fpr)
  assert _row(text, "scenario 1").split()[1:] == [
    "1", *_shares(second.test_accuracy), "0", f"{second.ece:.3f}", "0.580", "-21.6%", "0.520",
    "0.060", "0.564", "-21.6%", f"{low[0]}*", f"{high[0]}*",
  ]  # fmt: skip
  below = text.splitlines()[text.splitlines().index(_row(text, "scenario 1")) + 1]
  assert "[0.540, 0.620]" in below
  tested = second.test_accuracy
  assert f"[{100 * tested.low:.1f}, {100 * tested.high:.1f}]" in below


@pytest.mark.parametrize("name", NAMES)
def test_table_of_a_run_has_its_own_figures(name):
  line = _row(format_table(without_shadow()), name).removeprefix(name).split()
  row = next(row for row in stored().predictors if row.name == name)
  auc, accuracy = row.highest_auc, row.highest_accuracy
  changes = [] if row is stored().undefended else [f"{100 * auc.relative_change:+.1f}%"]
  more = [] if row is stored().undefended else [f"{100 * accuracy.relative_change:+.1f}%"]
  assert line == [
    *_shares(row.test_accuracy), str(row.label_changes), f"{row.ece:.3f}", f"{auc.value:.3f}",
    *changes, f"{row.gap.value:.3f}", f"{row.excess:.3f}", f"{accuracy.value:.3f}", *more,
    *(f"{share}*" for share in _shares(*row.highest_tpr_at_fpr)),
  ]  # fmt: skip


def test_table_fits_a_terminal_of_120_columns():
  results = with_aucs(label_changes=(0, 0, 0, 0, 123456))
  results = without_shadow(changed(results, protocol="paper"))
  text = format_table(results).removesuffix(finding(results))
  assert max(map(len, text.splitlines())) <= 120
  assert text.isascii()


def test_columns_are_aligned():
  text = format_table(without_shadow())
  starts = {
    _row(text, row.name).index(*_shares(row.test_accuracy)) for row in stored().predictors
  }
  starts.add(_row(text, "predictor").index("accuracy"))
  assert len(starts) == 1


@pytest.mark.parametrize(
  ("enough", "marked"),
  [((False, False), (1, 1)), ((False, True), (1, 0)), ((True, True), (0, 0))],
)
def test_rates_of_too_small_samples_are_marked(enough, marked):
  text = format_table(without_shadow(with_enough(enough)))
  for name in NAMES:
    assert tuple(cell.count("*") for cell in _row(text, name).split()[-2:]) == marked
  assert ("fewer than 10 expected false positives" in text) == (enough != (True, True))


def test_table_says_what_was_measured():
  text = format_table(without_shadow())
  assert "members 24 known + 24 target; non-members 24 known + 24 target; reference 16" in text
  # As many as there are; attacks that ask many times leave averages out.
  assert [len(row.attacks) for row in stored().predictors] == [22, 22, 22, 22, 19]
  assert "over 19 to 22 attacks" in text
  assert "95% interval" in text
  assert "not run" not in text
  assert text.endswith(finding(without_shadow()))
  same = with_predictors(
    stored(), lambda row: dataclasses.replace(row, attacks=row.attacks[:5])
  )
  assert "over 5 attacks" in format_table(without_shadow(same))


def test_table_says_how_often_and_on_how_many_samples_attacks_ask():
  asking = ("augmentation robustness", "noise robustness", "HopSkipJump")
  highest = lambda results: dict(notes(results))["highest"]
  assert "each with one query an image or changed version of it" in highest(stored())
  # Of their family only those: the gap attack is judged on all samples.
  assert highest(stored()).endswith(f" of it; {', '.join(asking)} on fewer samples, 4 a side")
  assert "on fewer samples, 4 a side" in _words(format_table(stored()))

  def without(row):
    kept = tuple(attack for attack in row.attacks if attack.title not in asking)
    return dataclasses.replace(row, attacks=kept)

  results = with_predictors(without_shadow(), without)
  assert "fewer samples" not in format_table(results)

  def with_fewer(row, members, nonmembers):
    *_, last = row.attacks
    own = last._replace(
      title="mine",
      tpr_at_fpr=tuple(rate._replace(num=nonmembers) for rate in last.tpr_at_fpr),
      tnr_at_fnr=tuple(rate._replace(num=members) for rate in last.tnr_at_fnr),
    )
    return dataclasses.replace(row, attacks=(*row.attacks, own) if members else row.attacks)

  fewer = with_predictors(results, with_fewer, (10, 10, 0, 0, 0), (10, 10, 0, 0, 0))
  assert highest(fewer).endswith(" of it; mine on fewer samples, 10 a side")
  fewer = with_predictors(results, with_fewer, (0, 10, 0, 0, 0), (0, 5, 0, 0, 0))
  assert highest(fewer).endswith("; mine on fewer samples, 10 members and 5 non-members")


def test_attacks_that_were_not_run_are_named_with_what_they_need():
  ask = "many queries about single images (audit.num_label_only)"
  models = "shadow models (shadow.num_models)"
  left_out = {"hop_skip_jump": (ask,), "lira_online": (models,), "own:one": (models,),
              "own:both": (models, ask)}  # fmt: skip
  text = _words(format_table(changed(without_shadow(), left_out=left_out)))
  assert (
    f"not run hop_skip_jump, for want of {ask}; lira_online, own:one, for want of {models}; "
    f"own:both, for want of {models} and {ask}"
  ) in text


def test_smoke_run_is_no_measurement():
  assert "shortened run" in format_table(without_shadow())
  assert "shortened run" not in format_table(changed(without_shadow(), variant="audit"))


def test_published_protocol_pools_the_samples():
  data = dataclasses.replace(stored().data, target_nonmembers=50, known_nonmembers=40)
  results = changed(data=data)
  assert reported_sizes(results) == (24, 50)
  assert reported_sizes(changed(results, protocol="paper")) == (48, 90)
  text = _words(format_table(without_shadow(paper_protocol())))
  assert "48 members and 48 non-members reported, known and target samples pooled" in text
  assert "on fewer samples" not in text


def test_a_classifier_that_is_defended_already_stands_alone():
  text = format_table(defended_alone())
  assert "undefended" not in text
  assert "change relative to alone" in text
  assert "selena (num_left_out 2, num_teachers 4), alone and under Diffence" in _words(text)
  assert "epsilon" not in text


@pytest.mark.parametrize(("epsilon", "promises"), [(3.0, True), (12.5, False)])
def test_a_guarantee_is_told_with_its_limits(epsilon, promises):
  results = defended_alone()
  defense = dataclasses.replace(
    results.defense, training="dpsgd", options={"dpsgd": {"clip_norm": 1.2, "delta": None}},
    guarantee=Guarantee(epsilon, 1e-5, 0.1),
  )  # fmt: skip
  text = _words(format_table(without_shadow(changed(results, defense=defense))))
  assert "dpsgd (clip_norm 1.2), alone and under Diffence; noise multiplier 0.1: " in text
  assert f"epsilon {epsilon:g} at delta 1e-05, of the classifier alone" in text
  assert ("so large an epsilon promises nothing" in text) is not promises


def test_an_output_defense_is_told():
  results = defended_alone()
  defense = dataclasses.replace(
    results.defense, training="undefended", output="memguard", options={"memguard": {"c1": 1.0}}
  )
  text = _words(format_table(changed(results, defense=defense)))
  assert "answers memguard (c1 1.0), applied after Diffence" in text


def test_saved_diffusion_model_was_not_trained_here():
  diffusion = dataclasses.replace(stored().diffusion, trained_on=None, loss=None)
  assert "a saved model, not trained here" in format_table(changed(diffusion=diffusion))
  loss = f"trained on the members, loss {stored().diffusion.loss:.4f}"
  assert loss in format_table(stored())


def test_finding_of_a_gain():
  assert finding(with_aucs()) == (
    "Scenario 1 takes 21.6% off the highest attack AUC (0.740 -> 0.580; gap floor 0.520) and "
    "changes no label; the other policies that keep labels leave 0.610 to 0.620."
  )


def test_finding_of_a_run_is_about_its_lowest_auc():
  first, second, *_ = stored().predictors
  lowest = min(row.highest_auc.value for row in stored().predictors[1:])
  assert second.highest_auc.value == lowest
  others = sorted(
    row.highest_auc.value for row in stored().predictors[2:] if not row.label_changes
  )
  assert finding(stored()) == (
    f"No clear change: scenario 1 takes {-100 * second.highest_auc.relative_change:.1f}% off "
    f"the highest attack AUC ({first.highest_auc.value:.3f} -> "
    f"{second.highest_auc.value:.3f}, 95% intervals overlap; gap floor "
    f"{second.gap.value:.3f}) and changes no label; the other policies that keep labels leave "
    f"{others[0]:.3f} to {others[-1]:.3f}."
  )


def test_finding_names_overlapping_intervals():
  text = finding(with_aucs((0.74, 0.70, 0.71, 0.72, 0.73)))
  assert text.startswith("No clear change: scenario 1 takes 5.4% off")
  assert "(0.740 -> 0.700, 95% intervals overlap; gap floor 0.520)" in text


@pytest.mark.parametrize("best", [0.74, 0.7399, 0.76])
def test_finding_of_no_gain(best):
  text = finding(with_aucs((0.74, 0.78, best, 0.79, 0.80)))
  assert text == (
    "Nothing was gained: no defended predictor that keeps the labels lowers the highest attack "
    f"AUC (undefended 0.740, best scenario 2 {best:.3f}; gap floor 0.520)."
  )


def test_finding_without_policies():
  results = changed(with_aucs(), predictors=with_aucs().predictors[:1])
  assert finding(results) == "No policy was audited; the highest attack AUC is 0.740."


def test_finding_prefers_kept_labels_and_tells_what_changing_them_reaches():
  text = finding(with_aucs((0.74, 0.60, 0.62, 0.61, 0.55)))
  assert text.startswith("Scenario 1 takes 18.9% off")
  assert text.endswith(
    "changes no label; the other policies that keep labels leave 0.610 to 0.620; "
    "average reaches 0.550 but changes 9 of 1,200 labels (0.8%)."
  )


def test_finding_when_every_predictor_changes_labels():
  text = finding(with_aucs(label_changes=(0, 60, 60, 60, 120)))
  assert text.endswith("and changes 60 of 1,200 labels (5.0%).")


def test_finding_does_not_praise_a_loss_that_changes_labels():
  text = finding(with_aucs((0.74, 0.80, 0.81, 0.82, 0.75)))
  assert "reaches" not in text


def test_csv_has_a_row_for_each_attack_on_each_predictor(tmp_path):
  results = with_enough((False, True), with_aucs())
  write_csv(results, tmp_path / "results.csv")
  with open(tmp_path / "results.csv", newline="") as handle:
    rows = list(csv.DictReader(handle))
  attacks = [(p, a) for p in results.predictors for a in p.attacks]
  pairs = [(p.name, a.name, a.threshold) for p, a in attacks]
  assert [(r["predictor"], r["attack"], r["threshold"]) for r in rows] == pairs
  assert all(None not in row and None not in row.values() for row in rows)
  for row, (predictor, attack) in zip(rows, attacks, strict=True):
    assert (row["title"], row["family"]) == (attack.title, attack.family)
    assert (row["experiment"], row["variant"]) == ("digits", "audit_smoke")
    assert (row["seed"], row["protocol"]) == ("0", "disjoint")
    assert float(row["auc"]) == attack.auc.value
    assert float(row["auc_low"]) == attack.auc.low
    assert float(row["highest_auc"]) == predictor.highest_auc.value
    assert row["highest_auc_title"] == "loss"
    assert float(row["known_threshold_accuracy"]) == attack.known_threshold_accuracy.value
    assert float(row["tpr_at_fpr_0.01"]) == attack.tpr_at_fpr[1].value
    assert int(row["tpr_at_fpr_0.01_count"]) == attack.tpr_at_fpr[1].count
    assert (row["tpr_at_fpr_0.01_enough"], row["tnr_at_fnr_0.001_enough"]) == ("True", "False")
  best = [row for row in rows if (row["attack"], row["threshold"]) == ("loss", "per_class")]
  assert [float(row["auc"]) for row in best] == list(AUCS)
  assert [float(row["auc_low"]) for row in best] == pytest.approx([auc - 0.04 for auc in AUCS])
  assert (rows[0]["interval_low"], rows[0]["returned_raw"]) == ("", "")
  assert rows[0]["highest_auc_relative_change"] == ""
  second, row = results.predictors[1], rows[len(results.predictors[0].attacks)]
  assert (float(row["interval_low"]), float(row["interval_high"])) == second.interval
  assert float(row["returned_raw"]) == second.returned_raw
  assert float(row["highest_auc_relative_change"]) == second.highest_auc.relative_change


def test_csv_keeps_awkward_names_whole(tmp_path):
  write_csv(changed(experiment='a,"b"\nc'), tmp_path / "results.csv")
  with open(tmp_path / "results.csv", newline="") as handle:
    assert {row["experiment"] for row in csv.DictReader(handle)} == {'a,"b"\nc'}


@pytest.mark.parametrize("name", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1+1"])
def test_a_spreadsheet_runs_no_name(tmp_path, name):
  write_rows([{"id": name, name: -0.5}], tmp_path / "rows.csv")
  with open(tmp_path / "rows.csv", newline="") as handle:
    header, row = csv.reader(handle)
  assert header == ["id", f"'{name}"] and row == [f"'{name}", "-0.5"]
