"""What attacks with shadow models found, in one plain sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffence_jax.report.cells import NO_CHANGE, attack_name, percent
from diffence_jax.report.shadow_rows import LEAST_DIFFERENCE, NEAR, SHADOW_ATTACKS, adaptive


def finding(results: Mapping[str, Any]) -> str:
  """What the defense takes off attacks with shadow models, in one plain sentence.

  It is about the target and the predictor with the lowest strongest attack at one query,
  among those that change no label. "Strongest" is picked on the reported samples, among LiRA
  and RMIA, online and offline, with defended and raw shadow models; of repeated queries also
  among all their numbers and near-duplicates.

  Args:
    results: as `write_report` takes it, the undefended predictor first.

  Returns:
    The sentence, ASCII.
  """
  undefended, *defended = results["predictors"]
  keeping = [row for row in defended if row["label_changes"] == 0]
  once = {
    row["name"]: _strongest(adaptive(results, predictor=row["name"], queries=1, inputs="same"))
    for row in results["predictors"]
  }
  name = min((row["name"] for row in keeping or defended), key=lambda n: _value(once[n]))
  before, after = once[undefended["name"]], once[name]
  gain = _value(before) - _value(after)
  relative = gain / _value(before) if _value(before) > 0.0 else 0.0
  if relative < NO_CHANGE:
    which = "that keeps the labels " if keeping else ""
    text = (
      f"Nothing was gained against shadow models: no defended predictor {which}lowers the AUC "
      f"of the strongest attack at one query (undefended {_attacked(before)}, best {name} "
      f"{_attacked(after)})"
    )
  else:
    text = (
      f"With {results['shadow']['num_models']:,} shadow models, {name} takes "
      f"{percent(relative)} off the AUC of the strongest attack at one query "
      f"({_attacked(before)} -> {_then(after, before)}{_overlap(after, before)})"
    )
  rows = [row for row in adaptive(results, predictor=name) if row["queries"] > 1]
  return f"{text}; {_regained(rows, after, gain)}."


def _strongest(rows):
  attacked = [row for row in rows if row["attack"] in SHADOW_ATTACKS]
  return max(attacked, key=_value)


def _value(row):
  return row["auc"]["value"]


def _attacked(row):
  return f"{attack_name(row['attack'])} {_value(row):.3f}"


def _then(row, before):
  """A figure after another one, the attack named where it is not the same."""
  return f"{_value(row):.3f}" if row["attack"] == before["attack"] else _attacked(row)


def _overlap(one, other):
  (a, b) = (row["auc"] for row in (one, other))
  return ", 95% intervals overlap" if a["low"] <= b["high"] and b["low"] <= a["high"] else ""


def _regained(rows: Sequence[Mapping[str, Any]], once: Mapping[str, Any], gain: float) -> str:
  """What repeated queries get back, as the end of a sentence.

  Args:
    rows: of all repeated queries to the predictor.
    once: the strongest attack at one query.
    gain: what the defense takes off the strongest attack's AUC at one query.

  Returns:
    The words.
  """
  if not rows:
    return "repeated queries were not tried"
  best = _strongest(rows)
  most = max(row["queries"] for row in rows)
  if _value(best) - _value(once) < NO_CHANGE:
    return f"asking up to {most} times gains nothing"
  of = f" about {NEAR}" if best["inputs"] == NEAR else ""
  reached = f"{_attacked(best)}{_overlap(best, once)}"
  if gain < LEAST_DIFFERENCE:
    return f"{best['queries']} queries{of} reach more than one does ({reached})"
  share = (_value(best) - _value(once)) / gain
  back = "all" if share >= 1.0 else percent(share, 0)
  return f"{best['queries']} queries{of} get {back} of that back ({reached})"
