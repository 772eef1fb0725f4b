"""What optimised queries reach beside the samples themselves, as a table and in words."""

from diffence_jax.audit.optimised import SENT, OptimisedRow
from diffence_jax.report.cells import Cell, auc_cell, interval, limit_name, rate_cell
from diffence_jax.report.results import Results

TITLE = "Optimised queries: what is sent instead of the sample"


def headings(results: Results) -> list[tuple[str, str]]:
  """The two lines of every heading of the table."""
  first = results.shadow.optimised[0]
  most = _numbers(results)[-1]
  again = [("AUC,", f"k = {most}")] if most > 1 else []
  limit = limit_name(first.tpr_at_fpr[0].limit)
  return [
    ("", "predictor"),
    (first.title, "AUC"),
    ("difference to", "the sample"),
    ("TPR at", f"{limit} FPR"),
    *again,
    ("AUC on", "the target"),
  ]


def rows(results: Results) -> list[list[Cell]]:
  """The table, as in `headings`: every predictor sent the sample, then what else is sent."""
  numbers, table = _numbers(results), []
  for row in results.shadow.optimised:
    if row.queries > 1:
      continue
    change = row.auc_change
    cells = [auc_cell(row.auc), Cell("") if change is None else _difference(change)]
    cells.append(rate_cell(row.tpr_at_fpr[0]))
    for k in numbers[1:]:
      often = [other for other in _of(results, row) if other.queries == k]
      cells.append(auc_cell(often[0].auc) if often else Cell("-"))
    name = row.predictor if row.sent == SENT[0] else f"- {row.sent}"
    table.append([Cell(name), *cells, auc_cell(row.target_auc)])
  return table


def note(results: Results) -> str:
  """What was done, and how to read it."""
  first = results.shadow.optimised[0]
  settings = results.settings["optimised"]
  return (
    f"An attacker may send another image than the sample itself. For {first.num_samples} "
    f"target samples it looks, within {settings['radius']} of 255 levels a pixel, for the one "
    f"that {settings['num_models']} shadow models with and without the sample answer most "
    "differently: with its models bare (optimised), or behind the re-generation, as a mean "
    f"over {settings['num_draws']} fresh draws at each of {settings['num_steps']} steps "
    f"(optimised through re-generation). {first.title} then scores the answers of the other "
    f"{first.num_models} models, each as the target in turn, and of the target itself, about "
    "the same samples each time. The gradient goes through one re-generation, not through what "
    "a policy selects among several."
  )


def _difference(change):
  # More for the attacker is worse.
  return Cell(f"{change.value:+.3f}", below=interval(change), worse=change.low > 0.0)


def _numbers(results: Results) -> list[int]:
  return sorted({row.queries for row in results.shadow.optimised})


def _of(results: Results, row: OptimisedRow) -> list[OptimisedRow]:
  return [
    other
    for other in results.shadow.optimised
    if (other.predictor, other.sent) == (row.predictor, row.sent)
  ]
