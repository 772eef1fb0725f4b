"""The main table's attack that was chosen on other models, wherever it is written."""

import csv
import dataclasses
import json

import pytest
from page_reader import Page
from report_example import (
  STAGES,
  stored,
  stored_arrays,
  with_aucs,
  with_predictors,
  with_shadow_aucs,
  without_shadow,
)

from diffence_jax.audit.rows import Highest
from diffence_jax.report import format_table, read_results, write_csv
from diffence_jax.report.page import render_page
from diffence_jax.report.results import SCHEMA, to_json
from diffence_jax.report.summary import sentences

# Of every predictor; the highest are 0.74, 0.58, 0.62, 0.61 and 0.63, of another attack.
CHOSEN = (0.71, 0.56, 0.72, 0.55, None)


def with_chosen(values=CHOSEN, results=None):
  """Results whose attacks, chosen on other models, reach so much on the target."""

  def change(row, value):
    if value is None:
      return dataclasses.replace(row, chosen=None)
    name, title = (
      ("loss", "loss") if row.name == "scenario 1" else ("lira_online", "LiRA online")
    )
    relative = None if row.name == "undefended" else value / values[0] - 1.0
    chosen = Highest(name, title, "global", value, value - 0.04, value + 0.04, relative)
    return dataclasses.replace(row, chosen=chosen)

  return with_predictors(results or with_shadow_aucs(), change, values)


def words(text):
  return " ".join(text.split())


def row_of(text, name):
  """The first line of a predictor, and that of its intervals."""
  lines = text.splitlines()
  at = next(i for i, line in enumerate(lines) if line.startswith(name))
  return words(lines[at]), words(lines[at + 1])


def test_it_stands_beside_the_highest_and_is_explained():
  text = format_table(with_chosen(), 400)
  first, below = row_of(text, "undefended")
  assert "0.740 0.710 0.520" in first and "[0.700, 0.780] [0.670, 0.750]" in below
  second, below = row_of(text, "scenario 1")
  assert "0.580 -21.6% 0.560 -21.1% 0.520" in second
  assert "[0.540, 0.620] [0.520, 0.600]" in below
  assert "0.630 -14.9% - 0.520" in row_of(text, "average")[0]
  heading = next(line for line in text.splitlines() if line.startswith("predictor"))
  assert "attack AUC other models floor" in words(heading)
  assert (
    "no figure is picked on the samples that it is reported on (LiRA online on undefended, "
    "scenario 2, scenario 3; loss on scenario 1)"
  ) in words(text)


def test_without_shadow_models_there_is_no_such_column():
  for results in (without_shadow(), with_chosen([None] * 5)):
    text = words(format_table(results, 400).partition("TPR at FPR")[0])
    assert "other models" not in text and "reported on" not in text


@pytest.mark.parametrize("width", [60, 80, 118])
def test_it_fits_the_terminal(width):
  text = format_table(with_chosen(), width)
  assert max(map(len, text.splitlines())) <= width
  assert "0.710" in text and text.isascii()


def test_the_page_has_it_and_marks_a_rise():
  page = render_page(with_chosen(), stored_arrays(), STAGES)
  text = Page(page).text
  assert "highest attack AUC chosen on other models gap floor" in text
  assert "0.580 -21.6% [0.540, 0.620] 0.560 -21.1% [0.520, 0.600]" in text
  assert "chosen on other models AUC 0.560 [0.520, 0.600], loss" in text
  assert '<span class="change worse">+1.4%</span>' in page
  assert '<span class="change">-21.1%</span>' in page


def test_the_csv_file_has_it_and_no_row_where_there_is_none(tmp_path):
  write_csv(with_chosen(), tmp_path / "results.csv")
  with open(tmp_path / "results.csv", newline="") as file:
    rows = [row for row in csv.DictReader(file) if row["metric"].startswith("chosen")]
  alone = [row for row in rows if row["metric"] == "chosen"]
  assert [row["predictor"] for row in alone] == [row.name for row in stored().predictors[:4]]
  assert [row["attack"] for row in alone[:2]] == ["lira_online", "loss"]
  assert {row["threshold"] for row in rows} == {"global"}
  figures = [float(alone[1][key]) for key in ("value", "low", "high")]
  assert figures == pytest.approx([0.56, 0.52, 0.6])
  changes = [row for row in rows if row["metric"] == "chosen_relative_change"]
  assert [row["predictor"] for row in changes] == ["scenario 1", "scenario 2", "scenario 3"]


def test_the_first_sentences_are_not_about_it():
  assert sentences(with_chosen()) == sentences(with_chosen([None] * 5))
  assert sentences(with_chosen(results=with_aucs())) == sentences(with_aucs())


def test_results_from_before_it_are_read_without(tmp_path):
  content = json.loads(to_json(with_chosen()))
  for row in content["predictors"]:
    del row["chosen"]
  file = tmp_path / "results.json"
  file.write_text(json.dumps(content | {"schema": SCHEMA - 1}))
  found = read_results(file)
  assert found == with_chosen([None] * 5) and found.schema == SCHEMA
  file.write_text(json.dumps(content))
  with pytest.raises(ValueError, match="PredictorRow has other fields than expected: chosen"):
    read_results(file)
  for damaged in (None, 3, [None]):
    file.write_text(json.dumps(content | {"schema": SCHEMA - 1, "predictors": damaged}))
    with pytest.raises(ValueError, match="is damaged: predictors"):
      read_results(file)
