"""`results.csv`: every figure about the target in a row of its own."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffence_jax.audit.rows import PredictorRow
from diffence_jax.audit.typed import to_plain
from diffence_jax.report.cells import run_columns, write_rows
from diffence_jax.report.results import Results


def write_csv(results: Results, path: str | os.PathLike) -> None:
  """Writes every figure about the target, one a row, atomically.

  The columns are the run's (`experiment`, `variant`, `seed`, `protocol`), then `predictor`,
  `attack` and `threshold` (both empty for what is of the predictor alone; for "highest_..." the
  attack that reaches it), `metric`, `value`, and `low` and `high`, the ends of its 95%
  interval, empty where it has none. A metric is named by its place in `results`; what stands
  beside a rate is a metric too (`tpr_at_fpr_0.001`, `tpr_at_fpr_0.001_count`).

  Args:
    results: as `write_report` takes it.
    path: the file, replaced if it is there.
  """
  run = run_columns(results)
  rows = [{**run, **figure} for row in results.predictors for figure in predictor_figures(row)]
  write_rows(rows, Path(path))


def predictor_figures(row: PredictorRow) -> Iterator[dict[str, Any]]:
  """Every figure of a predictor: the columns of `write_csv` but for the run's."""
  plain = to_plain(row)
  name, attacks, ends = (plain.pop(key) for key in ("name", "attacks", "interval"))
  for end, value in zip(("interval_low", "interval_high"), ends or (), strict=False):
    plain[end] = value
  for attack in [plain, *attacks]:
    named = {"attack": attack.pop("name", ""), "threshold": attack.pop("threshold", "")}
    for figure in figures(attack):
      yield {"predictor": name, **named, **figure}


def figures(plain: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
  """Name to a number, an estimate or rates, as `to_plain` has them: a row each; no text."""
  for metric, value in plain.items():
    if isinstance(value, list):
      for rate in value:
        yield from _of_estimate(f"{metric}_{rate['limit']:g}", rate)
    elif isinstance(value, Mapping):
      yield from _of_estimate(metric, value)
    elif isinstance(value, int | float):
      yield _figure(metric, value)


def _of_estimate(metric, figure):
  """An estimate or a rate, and what stands beside it."""
  named = {key: figure[key] for key in ("attack", "threshold") if key in figure}
  yield {**named, **_figure(metric, figure["value"], figure["low"], figure["high"])}
  for key, value in figure.items():
    if key not in ("value", "low", "high", "limit", "title", *named) and value is not None:
      yield {**named, **_figure(f"{metric}_{key}", value)}


def _figure(metric, value, low="", high=""):
  return {"metric": metric, "value": value, "low": low, "high": high}
