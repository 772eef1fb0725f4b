"""The gap floor and the label floor in tables over several runs: theirs, or none at all."""

import csv
import dataclasses
import json

import pytest
from report.page_reader import Page
from report.report_example import with_predictors
from tables.defense_example import FACTS, make_cells
from tables.runs_example import real, write_run

from diffence_jax.tables.comparison import csv_rows, format_comparison
from diffence_jax.tables.defense_rows import aggregate, average
from diffence_jax.tables.defense_table import format_defense_table, write_defense_table
from diffence_jax.tables.runs import read_run
from diffence_jax.tables.seeds import averages, format_seeds

TITLE = "Floors, and the highest attack AUC above the label floor"
# Of every defense, at the first seed and at the second.
FLOORS = {"undefended": (0.55, 0.57), "selena": (0.53, 0.54), "own": (0.58, 0.56)}


def cells_with(floors=FLOORS, without=()):
  """Cells with these label floors; none for the defense, seed and predictor of `without`."""
  cells = make_cells()
  for cell in cells:
    for row in cell["predictors"]:
      value = floors[cell["defense"]][cell["seed"]]
      row["label_floor"] = {**row["highest_auc"], "value": value, "low": value - 0.05,
                            "high": value + 0.05}  # fmt: skip
      if (cell["defense"], cell["seed"], row["name"]) in without:
        row["label_floor"] = None
  return cells


def lines_of(text, title=TITLE):
  """The figures of one table, by defense."""
  table = text.partition(title)[2].partition("\n\n")[0].splitlines()[4:]
  return {line.split("  ")[0]: line.partition("  ")[2].split() for line in table}


def test_every_defense_has_the_floor_of_its_own_labels():
  cells = cells_with()
  lines = lines_of(format_defense_table("t", cells))
  # Means over seeds of the highest AUCs of `AUCS`, less those of the floors.
  assert lines["undefended"] == ["0.520", "0.560", "0.190", "0.030", "0.050", "0.060"]
  assert lines["SELENA"] == ["0.520", "0.535", "0.075", "0.025", "0.080", "0.095"]
  assert lines["50% & $_own"] == ["0.520", "0.570", "0.140", "0.040", "0.095", "0.090"]
  assert lines["mean"] == ["0.520", "0.555", "0.135", "0.032", "0.075", "0.082"]
  row = aggregate(cells)[0]["columns"]["alone"]
  assert [row["label_floor"][key] for key in ("low", "high")] == [0.55, 0.57]
  assert row["above_label_floor"]["low"] == pytest.approx(0.19)
  one = aggregate([cell for cell in cells if cell["seed"] == 0])[0]["columns"]["alone"]
  assert one["label_floor"]["low"] == pytest.approx(0.50)
  assert one["above_label_floor"]["low"] is None


def test_where_a_label_is_changed_there_is_no_label_floor():
  without = [("selena", 1, "scenario 2"), ("own", 0, "undefended")]
  rows = aggregate(cells_with(without=without))
  selena, own = (row["columns"] for row in rows[1:])
  assert selena["scenario 2"]["label_floor"] is None
  assert selena["scenario 2"]["above_label_floor"] is None
  assert own["alone"]["label_floor"] is None
  text = format_defense_table("t", cells_with(without=without))
  lines = lines_of(text)
  assert lines["SELENA"] == ["0.520", "0.535", "0.075", "0.025", "0.095"]
  assert lines["50% & $_own"] == ["0.520", "0.040", "0.095", "0.090"]
  # A mean of fewer defenses would be of others than the column beside it.
  means = average(rows)["columns"]
  assert means["alone"]["label_floor"] is means["scenario 2"]["above_label_floor"] is None
  assert means["scenario 3"]["label_floor"]["value"] == pytest.approx((0.56 + 0.535 + 0.57) / 3)
  assert lines["mean"] == ["0.520", "0.032", "0.082"]


def test_floors_are_in_every_file_and_explained(tmp_path):
  cells = cells_with(without=[("selena", 1, "scenario 2")])
  write_defense_table("t", cells, FACTS, tmp_path)
  read = lambda suffix: (tmp_path / f"defense_table.{suffix}").read_text()
  lines = {
    (line["defense"], line["column"], line["seed"]): line
    for line in csv.DictReader(read("csv").splitlines())
  }
  found = lines["own", "scenario 1", "0"]
  assert found["label_floor"] == "0.58"
  assert float(found["label_floor_low"]) == pytest.approx(0.53)
  assert float(found["above_label_floor"]) == pytest.approx(0.02)
  assert float(lines["own", "scenario 1", "all"]["label_floor"]) == pytest.approx(0.57)
  blank = lines["selena", "scenario 2", "all"]
  assert (blank["label_floor"], blank["above_label_floor"]) == ("", "")
  rows = json.loads(read("json"))["rows"]
  assert rows[2]["columns"]["scenario 3"]["label_floor"]["value"] == pytest.approx(0.57)
  assert r"SELENA & 0.520 & 0.535 & 0.075 & 0.025 &  & 0.095 \\" in read("tex")
  page = Page(read("html")).text
  assert "gap floor label floor above, alone above, scenario 1" in page
  assert "SELENA 0.520 0.535 0.075 0.025 0.095" in page
  for text in (read("txt"), page):
    words = " ".join(text.split())
    assert "what is left at best where labels are kept" in words
    assert "empty where labels were changed at any seed" in words


def test_the_floors_of_a_narrow_terminal_are_in_one_block():
  text = format_defense_table("t", cells_with(), 80)
  assert lines_of(text) == lines_of(format_defense_table("t", cells_with()))
  assert max(map(len, text.splitlines())) <= 80


def run_with(folder, label, floors):
  """A run whose predictors have these label floors."""

  def change(row, value):
    floor = value and dataclasses.replace(row.highest_auc, value=value)
    return dataclasses.replace(row, label_floor=floor)

  return read_run(write_run(folder, with_predictors(real(), change, floors)), label)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp("floors")
  return [
    run_with(folder / "0", "seed 0", (0.551, 0.552, 0.553, 0.554, None)),
    run_with(folder / "1", "seed 1", (0.571, 0.572, None, 0.574, None)),
  ]


def test_means_over_seeds_show_both_floors(runs):
  text = format_seeds(runs, 400)
  heading = next(line for line in text.splitlines() if line.startswith("predictor"))
  at = heading.index("undefended's")
  assert heading[at:].split() == [
    "undefended's", "floor", "floor", "gap", "floor", "0.1%", "FPR", "1%", "FPR", "NLL", "ECE",
    "an", "image",
  ]  # fmt: skip
  first, _, second, *_ = averages(runs)
  line = next(line for line in text.splitlines() if line.startswith("undefended"))
  gap, excess = (f"{first.figures[name].value:.3f}" for name in ("gap", "excess"))
  assert f"{gap} 0.561 {excess}" in " ".join(line.split())
  # One of the seeds changes labels there.
  assert "label_floor" not in second.figures
  line = next(line for line in text.splitlines() if line.startswith("scenario 2"))
  gap, excess = (f"{second.figures[name].value:.3f}" for name in ("gap", "excess"))
  assert f"{gap} {excess}" in " ".join(line.split())
  assert "labels were changed at any seed" in " ".join(text.split())


def test_runs_beside_each_other_show_both_floors(runs):
  text = format_comparison(runs, (), 400)
  for run, shown in zip(runs, ("0.553", "-"), strict=True):
    line = next(one for one in text.splitlines() if one.startswith(f"{run.label}: scenario 2"))
    auc, gap = (figure.value for figure in (run.rows[2].highest_auc, run.rows[2].gap))
    assert f"{auc:.3f} {gap:.3f} {shown} " in " ".join(line.split())
  assert "what is left at best where labels are kept" in " ".join(text.split())
  assert max(map(len, format_comparison(runs, (), 80).splitlines())) <= 80
  values = [line["value"] for line in csv_rows(runs) if line["metric"] == "label_floor"]
  assert values == [0.551, 0.552, 0.553, 0.554, 0.571, 0.572, 0.574]
