"""What a frontier is reported as: a table for the terminal, a plot, JSON and CSV."""

import json
from collections.abc import Sequence
from pathlib import Path

from diffence_jax.audit.frontier import Drawing, FrontierRow, is_dominated
from diffence_jax.audit.label_floor import LABELS_ALONE
from diffence_jax.audit.typed import to_plain
from diffence_jax.defense.policy import PUBLISHED
from diffence_jax.disk import write_atomically
from diffence_jax.report.cells import (
  LABEL_FLOOR_NOTE,
  WIDTH,
  Cell,
  auc_cell,
  definitions,
  flat,
  grid,
  mark_notes,
  rate_cell,
  write_rows,
)
from diffence_jax.report.figures import INK, draw_svg, plain

_SELECTION = {"scenario_1", "scenario_2", "scenario_3", *PUBLISHED.values()}
_BEST, _PUBLISHED, _DOMINATED = "#0072b2", "#d55e00", "#a0a0a0"


def format_frontier(rows: Sequence[FrontierRow], width: int = WIDTH) -> str:
  """The table.

  Args:
    rows: at least one.
    width: of a line.
  """
  told = rows[0].out_of_distribution is not None
  lines = [
    [
      Cell(row.name + ("" if is_dominated(row, rows) else " +")),
      *_figures(row),
      *([Cell(f"{row.out_of_distribution:.3f}")] if told else []),
    ]
    for row in rows
  ]
  notes = [
    (
      "AUC",
      "of the strongest attack, also on what an attacker who knows the policy computes from "
      "its answers (undone)",
    ),
    ("calibrated", "negative log-likelihood at the temperature that known non-members choose"),
    ("risk-", "risk-coverage: the mean error where only the surest are answered"),
    ("+", "no other is at least as useful (calibrated NLL) and leaves as little (AUC)"),
    *mark_notes([row.once.tpr.enough for row in rows]),
  ]
  if (floor := label_floor(rows)) is not None:
    notes.append((floor.name, f"the label floor: {LABEL_FLOOR_NOTE}"))
  headings = [*_headings("policy", rows), *([("others", "told apart")] if told else [])]
  if told:
    notes.append(
      ("others", "AUC of telling another data set's images by the largest probability")
    )
  table = grid(headings, lines, width)
  return "\n".join([*table, "", *definitions(notes, width)])


def label_floor(rows: Sequence[FrontierRow]) -> FrontierRow | None:
  """The row of the answer that tells the label alone; None where it is not there."""
  return next((row for row in rows if row.policy == LABELS_ALONE.policy.name), None)


def choice_lines(
  known: FrontierRow,
  target: FrontierRow,
  floor: FrontierRow | None = None,
  width: int = WIDTH,
) -> list[str]:
  """A choice's figures on known and on target samples, as lines of a table, and their floor.

  Args:
    known: on known samples.
    target: on target samples.
    floor: what `label_floor` finds among the rows of target samples.
    width: of a line.
  """
  rows = {"known": known, "target": target}
  if floor is not None:
    rows[f"target, {LABELS_ALONE.name}"] = floor
  lines = [[Cell(name), *_figures(row)] for name, row in rows.items()]
  table = grid(_headings("samples", (known, target)), lines, width)
  note = (LABELS_ALONE.name, f"the label floor: {LABEL_FLOOR_NOTE}")
  return table if floor is None else [*table, "", *definitions([note], width)]


def _headings(first, rows):
  return [
    ("", first), ("accuracy", ""), ("NLL", ""), ("calibrated", "NLL"), ("ECE", ""),
    ("risk-", "coverage"), ("AUC,", "one query"), ("AUC,", _asked(rows)),
    ("AUC,", "no limit"), ("TPR at 1% FPR,", "one query"), ("TPR at 1% FPR,", _asked(rows)),
  ]  # fmt: skip


def _figures(row):
  return [
    auc_cell(row.accuracy),
    auc_cell(row.nll),
    auc_cell(row.calibrated_nll),
    Cell(f"{row.ece:.3f}"),
    Cell(f"{row.risk_coverage:.3f}"),
    auc_cell(row.once.auc),
    auc_cell(row.often.auc),
    auc_cell(row.unlimited.auc),
    rate_cell(row.once.tpr),
    rate_cell(row.often.tpr),
  ]


def _asked(rows):
  return f"up to {rows[0].most_queries}"


def write_frontier(rows: Sequence[FrontierRow], folder: Path) -> None:
  """Writes `frontier.json`, `frontier.csv` and `frontier.svg`, each whole or not at all.

  Args:
    rows: at least one.
    folder: there already.

  Raises:
    ValueError: a figure is not finite, which JSON does not have.
  """
  content = [{**to_plain(row), "is_dominated": is_dominated(row, rows)} for row in rows]
  text = json.dumps(content, indent=2, allow_nan=False) + "\n"
  svg = draw_frontier(rows)
  write_atomically(folder / "frontier.json", text)
  write_rows([csv_row(row) for row in content], folder / "frontier.csv")
  write_atomically(folder / "frontier.svg", svg)


def csv_row(row: dict) -> dict:
  """A row of the CSV: every figure a column, options as JSON."""
  options = json.dumps(row["options"], sort_keys=True) if row["options"] else ""
  drawing = row["drawing"] or dict.fromkeys(Drawing._fields, "")
  return dict(flat({**row, "options": options, "drawing": drawing}))


def draw_frontier(rows: Sequence[FrontierRow]) -> bytes:
  """Usefulness across, what is left to an attacker upwards, with 95% intervals; gray ones lose.

  Args:
    rows: at least one.

  Returns:
    An SVG image.
  """

  def draw(figure):
    axes = figure.add_subplot()
    for row in rows:
      _draw_point(axes, row, is_dominated(row, rows))
    # Above one another in no place: only for the legend.
    for label, color, marker in (
      ("on the frontier", _BEST, "o"), ("another is better in both", _DOMINATED, "o"),
      ("the published selection", _PUBLISHED, "s"),
    ):  # fmt: skip
      axes.plot([], [], marker, color=color, markersize=5, label=label)
    axes.set_xlabel("negative log-likelihood, calibrated (left: more useful)")
    axes.set_ylabel(f"highest attack AUC, {_asked(rows)} queries")
    axes.grid(color=INK, alpha=0.15)
    axes.legend(frameon=False, fontsize=8)

  return draw_svg(draw, 4.6)


def _draw_point(axes, row: FrontierRow, dominated: bool) -> None:
  is_published = row.policy in _SELECTION
  color = _PUBLISHED if is_published else _DOMINATED if dominated else _BEST
  place = row.calibrated_nll.value, row.often.auc.value
  axes.errorbar(
    *place,
    xerr=_arms(row.calibrated_nll),
    yerr=_arms(row.often.auc),
    fmt="s" if is_published else "o",
    color=color,
    alpha=0.6 if dominated else 1.0,
    markersize=4.5,
    elinewidth=0.7,
  )
  axes.annotate(
    plain(row.name), place, xytext=(4, 4), fontsize=7, textcoords="offset points", color=INK
  )


def _arms(estimate):
  return [[max(estimate.value - estimate.low, 0.0)], [max(estimate.high - estimate.value, 0.0)]]
