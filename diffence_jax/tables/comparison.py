"""The table of several runs: as text, as a page, and in files."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffence_jax.audit.typed import to_plain
from diffence_jax.disk import write_atomically
from diffence_jax.report import cells
from diffence_jax.report.cells import Cell
from diffence_jax.report.curves import Curve
from diffence_jax.report.figures import roc_curves
from diffence_jax.report.page import svg_uri
from diffence_jax.report.results import Results
from diffence_jax.report.results_csv import predictor_figures
from diffence_jax.report.template import render
from diffence_jax.tables.runs import Run, cautions, changed_settings

HTML, CSV, JSON = "comparison.html", "comparison.csv", "comparison.json"


def headings(runs: Sequence[Run]) -> list[tuple[str, str]]:
  """The two lines of every heading of the table."""
  return [
    ("run:", "predictor"),
    ("test", "accuracy"),
    ("highest", "attack AUC"),
    ("gap", "floor"),
    ("label", "floor"),
    *cells.rate_headings(runs[0].rows[0].highest_tpr_at_fpr),
    ("", "NLL"),
    ("", "ECE"),
    ("ms", "an image"),
    ("strongest", "attack"),
  ]


def rows(runs: Sequence[Run]) -> list[list[Cell]]:
  """The table, a line a run and predictor, the columns as in `headings`."""
  shown = []
  for run in runs:
    for row in run.rows:
      time, accuracy = run.milliseconds(row), row.test_accuracy
      shown.append(
        [
          Cell(f"{run.label}: {row.name}"),
          Cell(cells.percent(accuracy.value), "", cells.percent_interval(accuracy)),
          cells.auc_cell(row.highest_auc),
          Cell(f"{row.gap.value:.3f}"),
          cells.floor_cell(row.label_floor),
          *map(cells.rate_cell, row.highest_tpr_at_fpr),
          Cell(f"{row.nll:.3f}"),
          Cell(f"{row.ece:.3f}"),
          Cell("" if time is None else f"{time:.3g}"),
          Cell(f"{row.highest_auc.title}, {row.highest_auc.threshold.replace('_', ' ')}"),
        ]
      )
  return shown


def facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
  """What every run is, and the settings in which experiments differ."""
  told = []
  for run in runs:
    results, (members, nonmembers) = run.results, run.sizes
    what = "audit of recorded answers"
    if isinstance(results, Results):
      variant = f" ({results.variant})" if results.variant else ""
      what = (
        f"{results.experiment}{variant}, seed {results.seed}, protocol {results.protocol}, "
        f"data {results.data.source}"
      )
    told.append(
      (run.label, f"{what}; {members:,} members and {nonmembers:,} non-members reported")
    )
  for name, values in changed_settings(runs).items():
    each = (f"{value or '-'} ({run.label})" for run, value in zip(runs, values, strict=True))
    told.append((name, ", ".join(each)))
  return told


def notes(runs: Sequence[Run]) -> list[tuple[str, str]]:
  """How to read the table: pairs of a term and its meaning."""
  return [
    (
      "highest, TPR",
      "each the most that any attack of the run reaches, picked on the reported samples "
      "themselves, in the attacker's favour",
    ),
    (
      "[low, high]",
      "95% interval, about other samples of the same source; not about another training",
    ),
    ("gap floor", cells.GAP_FLOOR_NOTE),
    ("label floor", f"{cells.LABEL_FLOOR_NOTE}; none where labels were changed"),
    ("ms an image", "timed on each run's machine, which may differ; empty: not timed"),
    *cells.mark_notes(
      rate.enough for run in runs for row in run.rows for rate in row.highest_tpr_at_fpr
    ),
  ]


def format_comparison(
  runs: Sequence[Run], warned: Sequence[str], width: int = cells.WIDTH
) -> str:
  """The comparison for a terminal.

  Args:
    runs: at least one.
    warned: sentences that stand first, as `all_cautions` makes them.
    width: of the terminal, in columns.
  """
  lines = [line for text in warned for line in (*cells.wrapped(text, width), "")]
  lines += [*cells.definitions(facts(runs), width), ""]
  lines += [*cells.grid(headings(runs), rows(runs), width), ""]
  return "\n".join([*lines, *cells.definitions(notes(runs), width)])


def all_cautions(runs: Sequence[Run], left_out: Sequence[str]) -> list[str]:
  """Sentences on what was left out, on what does not compare, and on curves that lack."""
  lacking = [run.label for run in runs if not run.curves]
  told = [*left_out, *cautions(runs)]
  if lacking:
    told.append(
      f"No ROC curves of {', '.join(lacking)}: there is no curves.npz beside the results. The "
      "command that made them writes it, if it is run again."
    )
  return told


def write_comparison(
  runs: Sequence[Run], warned: Sequence[str], folder: str | os.PathLike
) -> None:
  """Writes `comparison.html`, `.csv` and `.json`, each whole or not at all.

  The CSV file has a figure a line, as `results.csv`, after the run's label; the JSON file the
  cautions, the settings that differ, and of every run its rows and curves.

  Args:
    runs: at least one.
    warned: as of `format_comparison`.
    folder: made if it is not there.
  """
  folder = Path(folder)
  # Rendered before anything is written: a failure leaves the old files, not half of each.
  content = {
    "cautions": list(warned),
    "settings": {name: list(values) for name, values in changed_settings(runs).items()},
    "runs": [_plain(run) for run in runs],
  }
  texts = {
    HTML: render_runs(runs, f"{len(runs)} runs beside each other", warned),
    JSON: json.dumps(content, indent=2, allow_nan=False) + "\n",
  }
  write_files(folder, texts, CSV, csv_rows(runs))


def render_runs(
  runs: Sequence[Run], title: str, warned: Sequence[str], averages: Any = None
) -> str:
  """The page about several runs.

  Args:
    runs: at least one.
    title: of the page.
    warned: sentences that stand first.
    averages: a table of means with its `headings`, `rows` and `notes`; None without.
  """
  return render(
    Path(__file__).with_name("comparison.html.jinja"),
    title=title,
    warned=warned,
    averages=averages,
    facts=facts(runs),
    headings=headings(runs),
    rows=rows(runs),
    notes=notes(runs),
    plots=[(name, svg_uri(plot)) for name, plot in roc_plots(runs).items()],
  )


def write_files(
  folder: Path, texts: Mapping[str, str], csv_name: str, lines: Iterable[Mapping[str, Any]]
) -> None:
  """Writes texts and a CSV file, each whole or not at all; the folder is made if need be."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in texts.items():
    write_atomically(folder / name, text)
  cells.write_rows(list(lines), folder / csv_name)


def csv_rows(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
  """Every figure of every run, a line each."""
  for run in runs:
    for row in run.rows:
      for figure in predictor_figures(row):
        yield {"run": run.label, **figure}
      time = run.milliseconds(row)
      if time is not None:
        named = {"run": run.label, "predictor": row.name}
        yield {**named, "metric": "milliseconds_an_image", "value": time}


def roc_plots(runs: Sequence[Run]) -> dict[str, bytes]:
  """The curves of every run overlaid: a plot for each predictor that several runs have.

  Returns:
    What a plot is of to an SVG image; what one run alone has is in one plot together.
  """
  groups: dict[str, dict[str, Curve]] = {}
  known = [name for run in runs for name in run.curves]
  for run in runs:
    for name in [row.name for row in run.rows if row.name in run.curves]:
      curve = run.curves[name]
      if known.count(name) > 1:
        groups.setdefault(name, {})[run.label] = curve
      else:
        groups.setdefault("in one run only", {})[f"{run.label}: {name}"] = curve
  members, nonmembers = (max(sizes) for sizes in zip(*(run.sizes for run in runs), strict=True))
  return {name: roc_curves(curves, members, nonmembers) for name, curves in groups.items()}


def _plain(run: Run) -> Mapping[str, Any]:
  return {
    "label": run.label,
    "predictors": to_plain(run.rows),
    "milliseconds": {row.name: run.milliseconds(row) for row in run.rows},
    "curves": {
      name: {"fpr": curve.fpr.tolist(), "tpr": curve.tpr.tolist()}
      for name, curve in run.curves.items()
    },
  }
