"""The terminal table, and what goes into CSV files."""

import csv
import dataclasses
import re

import pytest
from report_example import (
  NAMES,
  changed,
  defended_alone,
  paper_protocol,
  stored,
  with_aucs,
  with_enough,
  with_predictors,
  with_shadow_aucs,
  without_shadow,
)

from diffence_jax.report import finding, format_table
from diffence_jax.report.cells import Cell, grid, write_rows
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
    f"{first.label_floor.value:.3f}", "0.220", "0.692", f"{low[0]}*", f"{high[0]}*",
  ]  # fmt: skip
  low, high = (_shares(rate) for rate in second.highest_tpr_at_fpr)
  assert _row(text, "scenario 1").split()[1:] == [
    "1", *_shares(second.test_accuracy), "0", f"{second.ece:.3f}", "0.580", "-21.6%", "0.520",
    f"{second.label_floor.value:.3f}", "0.060", "0.564", "-21.6%", f"{low[0]}*", f"{high[0]}*",
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
  floor = "-" if name == "average" else f"{row.label_floor.value:.3f}"
  assert line == [
    *_shares(row.test_accuracy), str(row.label_changes), f"{row.ece:.3f}", f"{auc.value:.3f}",
    *changes, f"{row.gap.value:.3f}", floor, f"{row.excess:.3f}", f"{accuracy.value:.3f}",
    *more,
    *(f"{share}*" for share in _shares(*row.highest_tpr_at_fpr)),
  ]  # fmt: skip


def test_table_fits_a_terminal_of_120_columns():
  results = with_aucs(label_changes=(0, 0, 0, 0, 123456))
  results = without_shadow(changed(results, protocol="paper"))
  text = format_table(results)
  assert max(map(len, text.splitlines())) <= 120
  assert text.isascii()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_table_is_as_wide_as_the_terminal(width):
  for results in (without_shadow(with_aucs()), with_shadow_aucs()):
    text = format_table(results, width)
    assert max(map(len, text.splitlines())) <= width
    # Columns that do not fit stand below, each beside its predictor's name.
    figures = re.findall(r"\d\.\d{3}", format_table(results))
    assert sorted(re.findall(r"\d\.\d{3}", text)) == sorted(figures)


def test_a_grid_that_is_cut_has_its_first_column_everywhere():
  headings = [("", "name"), ("one", "a"), ("two", "b"), ("three", "c")]
  rows = [[Cell("first"), Cell("1111"), Cell("2222"), Cell("3333")]]
  assert grid(headings, rows, 17) == [
    "       one   two",
    "name   a     b",
    "-----  ----  ----",
    "first  1111  2222",
    "",
    "       three",
    "name   c",
    "-----  -----",
    "first  3333",
  ]
  # Narrower than two columns there is nothing to cut.
  assert len(grid(headings, rows, 3)) == 3 * 4 + 2


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
  assert _words(text).endswith(finding(without_shadow()))
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


@pytest.mark.parametrize("name", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1+1"])
def test_a_spreadsheet_runs_no_name(tmp_path, name):
  write_rows([{"id": name, name: -0.5}], tmp_path / "rows.csv")
  with open(tmp_path / "rows.csv", newline="") as handle:
    header, row = csv.reader(handle)
  assert header == ["id", f"'{name}"] and row == [f"'{name}", "-0.5"]
