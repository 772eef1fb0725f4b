"""The column of the attack on the target that was chosen on its shadow models."""

from collections.abc import Sequence

from diffence_jax.audit.rows import PredictorRow
from diffence_jax.report.cells import Cell, auc_cell, relative_change


def headings(rows: Sequence[PredictorRow]) -> list[tuple[str, str]]:
  """The heading of the column; none where nothing was chosen, without shadow models."""
  return [("chosen on", "other models")] if any(row.chosen for row in rows) else []


def cells(row: PredictorRow, rows: Sequence[PredictorRow]) -> list[Cell]:
  """A row's cell of the column, a dash where nothing was chosen; none without the column."""
  if not headings(rows):
    return []
  if row.chosen is None:
    return [Cell("-")]
  return [auc_cell(row.chosen, relative_change(row.chosen.relative_change))]


def notes(rows: Sequence[PredictorRow]) -> list[tuple[str, str]]:
  """What the column has, and which attacks they are."""
  if not headings(rows):
    return []
  names: dict[str, list[str]] = {}
  for row in rows:
    if row.chosen is not None:
      names.setdefault(row.chosen.title, []).append(row.name)
  which = "; ".join(f"{title} on {', '.join(of_title)}" for title, of_title in names.items())
  text = (
    "on other models: AUC of the attack that is best on the shadow models, each the target in "
    "turn behind the same policy, of all that are quick enough to be run so; no figure is "
    f"picked on the samples that it is reported on ({which})"
  )
  return [("chosen", text)]
