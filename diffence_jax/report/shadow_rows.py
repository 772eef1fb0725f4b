"""The rows about attacks with shadow models that tables, figures and the finding show."""

from typing import Any

from diffence_jax.audit.shadow import InTurnRow, TargetRow
from diffence_jax.metrics import Estimate
from diffence_jax.report.cells import limit_name
from diffence_jax.report.results import Results

NEAR = "near duplicates"
# Of a smaller difference in AUC a recovered share would be a share of chance.
LEAST_DIFFERENCE = 0.01
# The ways of asking the target that have a line in the figure, from inputs and shadow models.
_WAYS = {
  ("same", "defended"): "same image",
  ("same", "raw"): "same image, raw shadow models",
  (NEAR, "defended"): NEAR,
}


def main_attack(results: Results) -> str:
  """The attack of the figures, and of the tables' further columns, as the config has it."""
  return results.shadow.main_attack


def column_attacks(results: Results) -> dict[str, str]:
  """The attacks that have a column of their own, as the config has them, and their titles.

  The main attack, then the first one of every other family; but each of those that belong to
  none. Thresholds have a column together.
  """
  shadow = results.shadow
  titles = {shadow.main_attack: shadow.main_title}
  families = {
    "thresholds",
    *(row.family for row in in_turn(results, attack=shadow.main_attack)),
  }
  for row in in_turn(results, predictor=results.undefended.name, queries=1):
    if row.family == "others" or row.family not in families:
      titles[row.attack] = row.title
      families.add(row.family)
  return titles


def repeated(results: Results) -> list[int]:
  """The numbers of queries above one, rising."""
  return sorted({row.queries for row in results.shadow.adaptive} - {1})


def has_near_duplicates(results: Results) -> bool:
  """Whether near-duplicates of the images were sent as well."""
  return bool(adaptive(results, inputs=NEAR))


def adaptive(results: Results, **wanted: Any) -> list[TargetRow]:
  """The rows about the target whose entries are the wanted ones."""
  return _matching(results.shadow.adaptive, wanted)


def in_turn(results: Results, **wanted: Any) -> list[InTurnRow]:
  """The rows about every shadow model in turn whose entries are the wanted ones."""
  return _matching(results.shadow.samples, wanted)


def recovered_share(again: Estimate, once: Estimate, before: Estimate) -> float | None:
  """The share of what a defense takes off an attack that more queries get back.

  Args:
    again: the attack's AUC at more than one query.
    once: its AUC at one query.
    before: its AUC on the undefended predictor.

  Returns:
    (again - once) / (before - once), which may lie outside of [0, 1]; None where the defense
    takes off less than `LEAST_DIFFERENCE`.
  """
  gain = before.value - once.value
  return (again.value - once.value) / gain if gain >= LEAST_DIFFERENCE else None


def pooled_sizes(results: Results) -> tuple[int, int]:
  """How many members and non-members the figures of all models in turn rest on.

  They are equal: the two models of a pair were trained on complementary halves.
  """
  num = results.shadow.samples[0].tpr_at_fpr[0].num
  return num, num


def judged_samples(results: Results) -> int:
  """On how many samples every shadow model is attacked in turn."""
  return sum(pooled_sizes(results)) // results.shadow.samples[0].num_models


def repeated_series(results: Results) -> dict[str, dict[str, dict[str, list]]]:
  """What the figure of repeated queries shows.

  Args:
    results: as `write_report` takes it.

  Returns:
    Figure to predictor to way of asking to points (k, value, low, high), of the main attack on
    the undefended predictor and on those that are asked again: its AUC and TPR over all shadow
    models in turn, and its AUC on the target, which is asked in more ways. Empty where none is
    asked again.
  """
  undefended = results.undefended.name
  again = [
    row.name
    for row in results.predictors
    if any(figure.queries > 1 for figure in in_turn(results, predictor=row.name))
  ]
  if not again:
    return {}
  same = _WAYS["same", "defended"]
  models, target = {}, {}
  for name in (undefended, *again):
    models[name] = {same: in_turn(results, predictor=name, attack=main_attack(results))}
    rows = adaptive(results, predictor=name, attack=main_attack(results))
    target[name] = {
      way: [row for row in rows if (row.inputs, row.shadow_models) == asked]
      for asked, way in _WAYS.items()
    }
  limit = results.shadow.samples[0].tpr_at_fpr[-1].limit
  auc = lambda row: row.auc
  return {
    "AUC,\nall models": _points(models, auc),
    f"TPR at {limit_name(limit)} FPR,\nall models": _points(
      models, lambda row: row.tpr_at_fpr[-1]
    ),
    "AUC,\nthe target": _points(target, auc),
  }


def _matching(rows, wanted):
  return [
    row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())
  ]


def _points(series, read):
  """Every predictor's and way's points in the order of k; no way without any."""
  point = lambda row: (
    row.queries,
    *(getattr(read(row), key) for key in ("value", "low", "high")),
  )
  return {
    name: {way: sorted(map(point, rows)) for way, rows in ways.items() if rows}
    for name, ways in series.items()
  }
