"""The paper's main table of our own runs: every defense alone and behind Diffence, over seeds.

Text, CSV, HTML and LaTeX write down what `aggregate` found, and none computes a figure.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffence_jax.disk import write_atomically
from diffence_jax.report.cells import (
  WIDTH,
  Cell,
  definitions,
  grid,
  interval,
  is_rise,
  limit_name,
  percent,
  percent_interval,
  rate_text,
  relative_change,
  wrapped,
  write_rows,
)
from diffence_jax.report.page import svg_uri
from diffence_jax.report.template import render
from diffence_jax.tables.defense_figures import privacy_utility
from diffence_jax.tables.defense_notes import PAPER, caution, finding, notes, signed
from diffence_jax.tables.defense_rows import (
  COLUMNS,
  VERDICTS,
  aggregate,
  average,
  csv_rows,
  estimate,
)

_LATEX = str.maketrans(
  {character: f"\\{character}" for character in "&%$#_{}"}
  | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    # A line that begins with a bracket would be taken for an option of the line break before.
    "[": "{[}",
  }
)


class Panel(NamedTuple):
  """One table, whatever it is written in: the two lines of every heading, and the cells."""

  title: str
  headings: list[tuple[str, str]]
  rows: list[list[Cell]]


def panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
  """The tables, of the rows of `aggregate`: attacks, calibration, and what a defense costs."""
  shown = [*rows, average(rows)] if len(rows) > 1 else list(rows)
  limits = [r["limit"] for r in rows[0]["columns"]["alone"]["highest_tpr_at_fpr"]]
  delta = [("test", "accuracy"), ("accuracy", "delta, pp")]
  return [
    Panel(
      "Highest attack AUC",
      [("", "defense"), *delta, *(("", name) for name in COLUMNS)],
      _attacked(shown, "highest_auc", "auc", with_delta=True),
    ),
    _floors(shown),
    Panel(
      "Highest attack accuracy", _headings(), _attacked(shown, "highest_accuracy", "accuracy")
    ),
    *(
      Panel(
        f"Highest TPR at {limit_name(limit)} FPR",
        _headings(),
        _wide(shown, lambda column, i=i: _rate(column["highest_tpr_at_fpr"][i])),
      )
      for i, limit in enumerate(limits)
    ),
    Panel("Expected calibration error", _headings(), _calibration(shown)),
    _costs(rows),
  ]


def strongest(rows: Sequence[Mapping[str, Any]]) -> Panel:
  """The attacks with the highest AUC, one name for all seeds where it is the same attack."""

  def names(column):
    seeds = column["highest_auc"]["seeds"]
    return Cell(", ".join(dict.fromkeys(seed["title"] for seed in seeds)))

  return Panel("Strongest attack", _headings(), _wide(rows, names))


def _headings():
  return [("", "defense"), *(("", name) for name in COLUMNS)]


def _wide(rows, cell):
  return [
    [Cell(row["title"]), *(cell(row["columns"][name]) for name in COLUMNS)] for row in rows
  ]


def _attacked(rows, figure, published, *, with_delta=False):
  """Lines of ours, each followed by one of the paper's where it has that defense."""

  def cell(column):
    mark, _ = VERDICTS[column.get("verdict", "below")] if figure == "highest_auc" else ("", "")
    values = column[figure]
    text, change = (
      f"{values['value']:.3f}{mark}",
      relative_change(values.get("relative_change")),
    )
    return Cell(text, change, _ends(values, interval), is_rise(change))

  lines = []
  for row, line in zip(rows, _wide(rows, cell), strict=True):
    tested, delta = (row["columns"]["alone"][f] for f in ("test_accuracy", "accuracy_delta"))
    accuracy = [
      Cell(percent(tested["value"]), below=_ends(tested, percent_interval)),
      Cell(signed(100 * delta["value"], 1), below=_ends(delta, percent_interval)),
    ]
    lines.append([line[0], *(accuracy if with_delta else []), *line[1:]])
    theirs = row["published"]
    if theirs:
      alone, *defended = theirs[published]
      accuracy = [Cell(""), Cell(signed(theirs["accuracy_delta"], 2))] if with_delta else []
      changes = (Cell(f"{x / 100:.3f}", relative_change(x / alone - 1.0)) for x in defended)
      lines.append([Cell(PAPER), *accuracy, Cell(f"{alone / 100:.3f}"), *changes])
  return lines


def _floors(rows):
  """What the labels alone leave, of the defense alone, and what is left above that."""
  above = [("above,", name) for name in COLUMNS]
  headings = [("", "defense"), ("gap", "floor"), ("label", "floor"), *above]
  cell = lambda column, name: Cell(_known(column[name], "{:.3f}"))
  lines = []
  left = _wide(rows, lambda column: cell(column, "above_label_floor"))
  for row, (title, *of_columns) in zip(rows, left, strict=True):
    floors = (cell(row["columns"]["alone"], name) for name in ("gap", "label_floor"))
    lines.append([title, *floors, *of_columns])
  return Panel("Floors, and the highest attack AUC above the label floor", headings, lines)


def _calibration(rows):
  lines = []
  ours = _wide(rows, lambda column: Cell(f"{column['ece']['value']:.3f}"))
  for row, line in zip(rows, ours, strict=True):
    lines.append(line)
    theirs = (row["published"] or {}).get("ece", ())
    if any(theirs):
      shown = ["" if ece is None else f"{ece:.3f}" for ece in theirs]
      lines.append([Cell(text) for text in (PAPER, *shown)])
  return lines


def _costs(rows):
  headings = [
    ("", "defense"), ("training,", "seconds"), ("relative to", "undefended"),
    ("inference,", "ms a sample"), ("relative to", "undefended"),
    ("with Diffence,", "ms a sample"), ("relative", "to alone"),
  ]  # fmt: skip
  private = any(row["epsilon"] for row in rows)
  if private:
    headings.append(("epsilon", "(delta)"))
  lines = []
  for row in rows:
    ms = {name: _known(figure, "{:,.2f}") for name, figure in row["inference_ms"].items()}
    line = _cost_line(row["title"], _known(row["train_seconds"], "{:,.1f}"), ms, row)
    spent = row["epsilon"]
    delta = f" ({spent['seeds'][0]['delta']:g})" if spent else ""
    lines.append([*line, Cell(_known(spent, "{:,.4g}") + delta)] if private else line)
    theirs = row["published"] or {}
    hours = theirs.get("train_hours")
    ms = {name: _range(theirs.get(f"{name}_ms")) for name in ("alone", "diffence")}
    if hours or any(ms.values()):
      line = _cost_line(PAPER, f"{hours:g} h" if hours else "", ms, theirs)
      lines.append([*line, Cell("")] if private else line)
  return Panel("Cost", headings, lines)


def _cost_line(title, training, ms, ratios):
  texts = (
    title,
    training,
    _times(ratios["training_ratio"]),
    ms["alone"],
    _times(ratios["inference_alone_ratio"]),
    ms["diffence"],
    _times(ratios["inference_ratio"]),
  )
  return [Cell(text) for text in texts]


def _ends(figure, write):
  return "" if figure["low"] is None else write(estimate(figure))


def _rate(rate):
  return Cell(rate_text(rate["value"], rate["enough"]), below=_ends(rate, percent_interval))


def _known(figure, form):
  return "" if figure is None else form.format(figure["value"])


def _range(ends):
  return "{:g} to {:g}".format(*ends) if ends else ""


def _times(ratio):
  return "" if ratio is None else f"{ratio:.{0 if ratio >= 9.95 else 1}f}x"


def format_defense_table(
  title: str, cells: Sequence[Mapping[str, Any]], width: int = WIDTH
) -> str:
  """The tables for a terminal.

  Args:
    title: of the experiment.
    cells: as `aggregate` takes them.
    width: of the terminal, in columns; tables that are wider are cut between columns.

  Returns:
    Plain text, ASCII but for what `title` and the defenses' titles bring along: the tables, how
    to read them, and the finding in one sentence; see `caution` for where there is none.
  """
  return _text(title, (), aggregate(cells), caution(cells), width)


def _text(title, facts, rows, warned, width=WIDTH):
  lines = [*wrapped(warned, width), ""] if warned else []
  lines += [title, ""]
  if facts:
    lines += [*definitions(facts, width), ""]
  for panel in panels(rows):
    lines += [panel.title, *grid(panel.headings, panel.rows, width), ""]
  told = warned or finding(rows)
  return "\n".join([*lines, *definitions(notes(rows), width), "", *wrapped(told, width)])


def write_defense_table(
  title: str,
  cells: Sequence[Mapping[str, Any]],
  facts: Sequence[tuple[str, str]],
  folder: Path,
) -> None:
  """Writes `defense_table` as .txt, .html, .tex, .json and .csv, each whole or not at all.

  The CSV file is described at `csv_rows`; the JSON file has the rows of `aggregate`, their
  averages, and the cells.

  Args:
    title: of the experiment.
    cells: as `aggregate` takes them, with the `caution` of each.
    facts: names and sentences on data, classifier, settings, machine and versions.
    folder: made if it is not there.
  """
  rows, warned = aggregate(cells), caution(cells)
  record = {
    "title": title, "facts": [list(fact) for fact in facts], "caution": warned,
    "finding": "" if warned else finding(rows),
    "rows": rows, "mean": average(rows)["columns"], "cells": list(cells),
  }  # fmt: skip
  # Rendered before anything is written: a failure leaves the old table, not half of each.
  texts = {
    "txt": _text(title, facts, rows, warned) + "\n",
    "html": _html(title, facts, rows, warned),
    "tex": _latex(title, facts, rows, warned),
    "json": json.dumps(record, indent=2, allow_nan=False) + "\n",
  }
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for suffix, text in texts.items():
    write_atomically(folder / f"defense_table.{suffix}", text)
  write_rows(list(csv_rows(rows)), folder / "defense_table.csv")


def _html(title, facts, rows, warned):
  return render(
    Path(__file__).with_name("defense_table.html.jinja"),
    title=title,
    facts=facts,
    caution=warned,
    finding=finding(rows),
    panels=[*panels(rows), strongest(rows)],
    notes=notes(rows),
    paper=PAPER,
    titles=", ".join(row["title"] for row in rows),
    plot=svg_uri(privacy_utility(rows)),
  )


def _latex(title, facts, rows, warned):
  told = _tex(warned or finding(rows))
  lines = [
    "% Needs \\usepackage{booktabs}.",
    *([told] if warned else []),
    *_latex_definitions(facts),
  ]
  for panel in panels(rows):
    lines += [
      r"\begin{table*}",
      r"\centering\small",
      rf"\caption{{{_tex(title)}: {_tex(panel.title)}}}",
      rf"\begin{{tabular}}{{{'l' * len(panel.headings)}}}",
      r"\toprule",
      *(_latex_line(line) for line in zip(*panel.headings, strict=True) if any(line)),
      r"\midrule",
    ]
    for row in panel.rows:
      indent = r"\quad " if row[0].text == PAPER else ""
      lines.append(indent + _latex_line(f"{c.text} {c.change}" for c in row))
      if any(cell.below for cell in row):
        lines.append(_latex_line((c.below for c in row), r"{\scriptsize %s}"))
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}"]
  return "\n".join([*lines, *_latex_definitions(notes(rows)), told]) + "\n"


def _latex_definitions(pairs):
  if not pairs:
    return []
  items = (rf"\item[{{{_tex(name)}}}] {_tex(text)}" for name, text in pairs)
  return [r"\begin{description}", *items, r"\end{description}"]


def _latex_line(texts, form="%s"):
  return " & ".join(form % _tex(text) if text else "" for text in texts) + r" \\"


def _tex(text):
  """Text that LaTeX prints as it is; a figure's sign becomes a minus."""
  escaped = " ".join(text.split()).translate(_LATEX)
  return re.sub(r"(?<![\w.])-(?=\d)", "$-$", escaped)
