"""The rows about attacks with shadow models that tables, figures and the finding show."""

from collections.abc import Mapping
from typing import Any

from diffence_jax.report.cells import limit_name

SHADOW_ATTACKS = ("lira_online", "lira_offline", "rmia_online", "rmia_offline")
# The attack of the figures, and of the tables' further columns.
MAIN_ATTACK = "lira_online"
NEAR = "near duplicates"
# Of a smaller difference in AUC a regained share would be a share of chance.
LEAST_DIFFERENCE = 0.01
# The ways of asking that have a line in the figure, from inputs and shadow models.
_WAYS = {
  ("same", "defended"): "same image",
  ("same", "raw"): "same image, raw shadow models",
  (NEAR, "defended"): NEAR,
}


def repeated(results: Mapping[str, Any]) -> list[int]:
  """The numbers of queries above one, rising."""
  return sorted({row["queries"] for row in results["shadow"]["adaptive"]} - {1})


def has_near_duplicates(results: Mapping[str, Any]) -> bool:
  """Whether near-duplicates of the images were sent as well."""
  return bool(adaptive(results, inputs=NEAR))


def adaptive(results: Mapping[str, Any], **wanted: Any) -> list[Mapping[str, Any]]:
  """The rows about the target whose entries are the wanted ones."""
  rows = results["shadow"]["adaptive"]
  return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def pooled_sizes(results: Mapping[str, Any]) -> tuple[int, int]:
  """How many members and non-members of a model the figures of all models in turn rest on."""
  shadow = results["shadow"]
  row = shadow["samples"][0]
  nonmembers = row["tpr_at_fpr"][0]["num"]
  num_samples = shadow["num_examples"] - shadow["num_canaries"]
  return row["num_models"] * num_samples - nonmembers, nonmembers


def repeated_series(results: Mapping[str, Any]) -> dict[str, dict[str, dict[str, list]]]:
  """What the figure of repeated queries shows.

  Args:
    results: as `write_report` takes it.

  Returns:
    Figure to predictor to way of asking to points (k, value, low, high), of online LiRA on the
    undefended predictor and on those that can be asked again; empty where none was.
  """
  undefended = results["predictors"][0]["name"]
  again = [row["name"] for row in results["predictors"] if _can_repeat(results, row["name"])]
  if not again:
    return {}
  *_, limit = (r["limit"] for r in results["shadow"]["adaptive"][0]["tpr_at_fpr"])
  of_row = {
    "attack AUC": lambda row: row["auc"],
    f"TPR at {limit_name(limit)} FPR": lambda row: row["tpr_at_fpr"][-1],
  }
  found = {}
  for figure, read in of_row.items():
    found[figure] = {}
    for name in (undefended, *again):
      ways = {}
      for row in adaptive(results, predictor=name, attack=MAIN_ATTACK):
        way = _WAYS.get((row["inputs"], row["shadow_models"]))
        if way:
          value = read(row)
          point = (row["queries"], *(value[key] for key in ("value", "low", "high")))
          ways.setdefault(way, []).append(point)
      found[figure][name] = {way: sorted(ways[way]) for way in _WAYS.values() if way in ways}
  return found


def _can_repeat(results: Mapping[str, Any], predictor: str) -> bool:
  return any(row["queries"] > 1 for row in adaptive(results, predictor=predictor))
