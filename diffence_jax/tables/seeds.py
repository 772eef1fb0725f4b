"""One experiment at several seeds: means, and how far they may be from those of all seeds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffence_jax.audit.rows import PredictorRow
from diffence_jax.audit.typed import to_plain
from diffence_jax.metrics import Estimate, t_interval
from diffence_jax.report import cells
from diffence_jax.report.cells import Cell
from diffence_jax.tables import comparison
from diffence_jax.tables.runs import Run

HTML, CSV, JSON = "seeds.html", "seeds.csv", "seeds.json"
# Figures that cannot leave [0, 1], at whose ends their intervals are cut.
_SHARES = ("test_accuracy", "highest_auc", "gap", "label_floor", "ece")
# Figures that cannot fall below 0.
_AMOUNTS = ("label_changes", "nll", "milliseconds")


class Average(NamedTuple):
  """A predictor's figures over seeds.

  Attributes:
    predictor: as tables write it.
    figures: name to mean and 95% t-interval over seeds.
    each: name to the figure of every seed, in order.
    enough: limit of a rate to whether every seed's samples are enough for it.
  """

  predictor: str
  figures: Mapping[str, Estimate]
  each: Mapping[str, tuple[float, ...]]
  enough: Mapping[float, bool]


class _Panel(NamedTuple):
  headings: list[tuple[str, str]]
  rows: list[list[Cell]]
  notes: list[tuple[str, str]]


def averages(runs: Sequence[Run]) -> list[Average]:
  """The means of all predictors.

  Args:
    runs: of one experiment, a seed each, at least two; of the same predictors.

  Returns:
    A predictor each. `change` is the highest AUC less the undefended predictor's of the same
    seed; the undefended one has none. `milliseconds` is there where it was timed.
  """
  return [_average(runs, at) for at in range(len(runs[0].rows))]


def _average(runs, at):
  each = [_figures(run, run.rows[at]) for run in runs]
  names = [name for name in each[0] if all(name in figures for figures in each)]
  values = {name: tuple(figures[name] for figures in each) for name in names}
  return Average(
    predictor=runs[0].rows[at].name,
    figures={name: _estimate(name, of_seeds) for name, of_seeds in values.items()},
    each=values,
    enough={
      rate.limit: all(run.rows[at].highest_tpr_at_fpr[i].enough for run in runs)
      for i, rate in enumerate(runs[0].rows[at].highest_tpr_at_fpr)
    },
  )


def _figures(run: Run, row: PredictorRow) -> dict[str, float]:
  figures = {
    "test_accuracy": row.test_accuracy.value,
    "label_changes": float(row.label_changes),
    "highest_auc": row.highest_auc.value,
    "excess": row.excess,
    "gap": row.gap.value,
    "nll": row.nll,
    "ece": row.ece,
  }
  figures |= {_rate_name(rate.limit): rate.value for rate in row.highest_tpr_at_fpr}
  if row.label_floor is not None:
    figures["label_floor"] = row.label_floor.value
  if row is not run.rows[0]:
    figures["change"] = row.highest_auc.value - run.rows[0].highest_auc.value
  time = run.milliseconds(row)
  return figures if time is None else figures | {"milliseconds": time}


def _rate_name(limit):
  return f"highest_tpr_at_fpr_{limit:g}"


def _estimate(name, values):
  mean, low, high = t_interval(values)
  if name in _SHARES or name.startswith("highest_tpr"):
    return Estimate(mean, max(low, 0.0), min(high, 1.0))
  return Estimate(mean, max(low, 0.0) if name in _AMOUNTS else low, high)


def panel(runs: Sequence[Run]) -> _Panel:
  """The table of means, and how to read it."""
  rows = averages(runs)
  rates = runs[0].rows[0].highest_tpr_at_fpr
  headings = [
    ("", "predictor"),
    ("test", "accuracy"),
    ("labels", "changed"),
    ("highest", "attack AUC"),
    ("less", "undefended's"),
    ("gap", "floor"),
    ("label", "floor"),
    ("above", "gap floor"),
    *cells.rate_headings(rates),
    ("", "NLL"),
    ("", "ECE"),
    ("ms", "an image"),
  ]
  shown = [
    [
      Cell(row.predictor),
      _share(row, "test_accuracy"),
      _number(row, "label_changes", ".1f"),
      _number(row, "highest_auc", ".3f"),
      _number(row, "change", "+.3f"),
      _number(row, "gap", ".3f"),
      _number(row, "label_floor", ".3f"),
      _number(row, "excess", ".3f"),
      *(_share(row, _rate_name(rate.limit), row.enough[rate.limit]) for rate in rates),
      _number(row, "nll", ".3f"),
      _number(row, "ece", ".3f"),
      _number(row, "milliseconds", ".3g"),
    ]
    for row in rows
  ]
  return _Panel(headings, shown, _notes(runs, rows))


def _share(row, name, enough=True):
  figure = row.figures[name]
  return Cell(cells.rate_text(figure.value, enough), below=_ends(figure, "percent"))


def _number(row, name, form):
  figure = row.figures.get(name)
  return (
    Cell("") if figure is None else Cell(f"{figure.value:{form}}", below=_ends(figure, form))
  )


def _ends(figure, form):
  """The interval; empty where all seeds agree, of which a spread says nothing."""
  if figure.low == figure.high:
    return ""
  if form == "percent":
    return cells.told_interval(figure)
  return f"[{figure.low:{form}}, {figure.high:{form}}]"


def _notes(runs, rows):
  seeds = ", ".join(str(run.results.seed) for run in runs)
  few = " With so few it is wide: it is what they tell." if len(runs) < 5 else ""
  return [
    (
      "mean",
      f"over the seeds {seeds}; each draws its own split, models and noise",
    ),
    (
      "[low, high]",
      f"95% t-interval of the mean over {len(runs)} seeds, cut at the ends of what a figure "
      f"can be; about other seeds on the same data.{few} None where all seeds have the same "
      "figure, and of a percentage where it is wider than 50 points",
    ),
    (
      f"less {runs[0].rows[0].name}'s",
      "mean of the seeds' own differences: what a seed's split does to both is not in it",
    ),
    (
      "highest, TPR",
      "each the most that any attack reaches at that seed, in the attacker's favour",
    ),
    ("gap floor", cells.GAP_FLOOR_NOTE),
    ("label floor", f"{cells.LABEL_FLOOR_NOTE}; empty where labels were changed at any seed"),
    *cells.mark_notes(enough for row in rows for enough in row.enough.values()),
  ]


def cautions(runs: Sequence[Run]) -> list[str]:
  """Why the figures measure nothing; none where they do."""
  return list(dict.fromkeys(filter(None, (run.caution for run in runs))))


def format_seeds(runs: Sequence[Run], width: int = cells.WIDTH) -> str:
  """Means and single seeds for a terminal."""
  shown = panel(runs)
  lines = [line for text in cautions(runs) for line in (*cells.wrapped(text, width), "")]
  lines += [*cells.grid(shown.headings, shown.rows, width), ""]
  lines += [*cells.definitions(shown.notes, width), "", "Single seeds", ""]
  lines += [*cells.grid(comparison.headings(runs), comparison.rows(runs), width), ""]
  return "\n".join([*lines, *cells.definitions(comparison.notes(runs), width)])


def write_seeds(runs: Sequence[Run], folder: Path) -> None:
  """Writes `seeds.html`, `seeds.csv` and `seeds.json`, each whole or not at all.

  Args:
    runs: as of `averages`.
    folder: made if it is not there.
  """
  results = runs[0].results
  seeds = ", ".join(str(run.results.seed) for run in runs)
  content = {
    "experiment": results.experiment,
    "variant": results.variant,
    "seeds": [run.results.seed for run in runs],
    "cautions": cautions(runs),
    "averages": to_plain(averages(runs)),
  }
  title = f"{results.experiment}, seeds {seeds}"
  texts = {
    HTML: comparison.render_runs(runs, title, cautions(runs), panel(runs)),
    JSON: json.dumps(content, indent=2, allow_nan=False) + "\n",
  }
  comparison.write_files(folder, texts, CSV, csv_rows(runs))


def csv_rows(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
  """A line a predictor, figure and seed; and one with seed "mean" and the t-interval."""
  for row in averages(runs):
    for name, figure in row.figures.items():
      named = {"predictor": row.predictor, "metric": name}
      for run, value in zip(runs, row.each[name], strict=True):
        yield {**named, "seed": run.results.seed, "value": value, "low": "", "high": ""}
      yield {**named, "seed": "mean", **figure._asdict()}
