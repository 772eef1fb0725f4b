"""What attacks with shadow models found, in one plain sentence."""

from collections.abc import Sequence

from diffence_jax.audit.shadow import InTurnRow
from diffence_jax.report.cells import NO_CHANGE, interval, percent
from diffence_jax.report.results import Results
from diffence_jax.report.shadow_rows import in_turn, main_attack, recovered_share


def finding(results: Results) -> str:
  """What the defense takes off attacks with shadow models, in one plain sentence.

  It is about every shadow model as the target in turn: the target alone has too few samples to
  tell what more queries get back. The attack is the one that is strongest on the undefended
  predictor at one query; the predictor the one that leaves it the lowest AUC, among those that
  change no label. Both are picked on the reported samples. Should another attack reach more
  on that predictor, the sentence says so. What repeated queries get back is about the main
  attack, at the number of queries that gets the most.

  Args:
    results: as `write_report` takes it, the undefended predictor first.

  Returns:
    The sentence, ASCII.
  """
  undefended, *defended = results.predictors
  keeping = [row for row in defended if row.label_changes == 0]
  before = max(in_turn(results, predictor=undefended.name, queries=1), key=_value)
  models = f"each of {results.shadow.num_models:,} shadow models as the target in turn"
  if not defended:
    return (
      f"No policy was audited; with {models}, the strongest attack at one query is "
      f"{_attacked(before)}."
    )
  attacked = {"attack": before.attack, "queries": 1}
  ((after,), *_) = sorted(
    (in_turn(results, predictor=row.name, **attacked) for row in keeping or defended),
    key=lambda rows: _value(rows[0]),
  )
  name = after.predictor
  strongest = max(in_turn(results, predictor=name, queries=1), key=_value)
  other = f"; {_attacked(strongest)}" if _value(strongest) > _value(after) + NO_CHANGE else ""
  gain = _value(before) - _value(after)
  relative = gain / _value(before) if _value(before) > 0.0 else 0.0
  if relative < NO_CHANGE:
    which = "that keeps the labels " if keeping else ""
    text = (
      f"With {models}, nothing was gained: no defended predictor {which}lowers the AUC of the "
      f"strongest attack at one query ({undefended.name} {_attacked(before)}, best {name} "
      f"{_value(after):.3f}{_difference(after)}{other})"
    )
  else:
    text = (
      f"With {models}, {name} takes {percent(relative)} off the AUC of the strongest attack at "
      f"one query ({_attacked(before)} -> {_value(after):.3f}{_difference(after)}{other})"
    )
  (level,) = in_turn(results, predictor=undefended.name, attack=main_attack(results))
  once, *again = sorted(
    in_turn(results, predictor=name, attack=main_attack(results)), key=lambda row: row.queries
  )
  same = relative >= NO_CHANGE and before.attack == main_attack(results)
  taken = "that" if same else f"what is taken off {results.shadow.main_title}"
  return f"{text}; {_regained(again, once, level, taken)}."


def _value(row):
  return row.auc.value


def _attacked(row):
  return f"{row.title} {_value(row):.3f}"


def _difference(row):
  """The difference to the undefended predictor with its interval."""
  change = row.auc_change
  chance = ", which includes 0" if change.low <= 0.0 <= change.high else ""
  return f", difference {change.value:+.3f} {interval(change)}{chance}"


def _overlap(one, other):
  (a, b) = (row.auc for row in (one, other))
  return ", 95% intervals overlap" if a.low <= b.high and b.low <= a.high else ""


def _regained(
  rows: Sequence[InTurnRow],
  once: InTurnRow,
  level: InTurnRow,
  taken: str,
) -> str:
  """What repeated queries get back, as the end of a sentence.

  Args:
    rows: of the main attack on the predictor at more than one query.
    once: at one query.
    level: on the undefended predictor.
    taken: what the defense takes off that attack, in words.

  Returns:
    The words.
  """
  if not rows:
    return "repeated queries were not tried"
  best = max(rows, key=_value)
  if _value(best) - _value(once) < NO_CHANGE:
    return f"asking up to {rows[-1].queries} times gains nothing"
  reached = f"{_attacked(best)} {interval(best.auc)}{_overlap(best, once)}"
  share = recovered_share(best.auc, once.auc, level.auc)
  if share is None:
    return f"{best.queries} queries reach more than one does ({reached})"
  back = "all" if share >= 1.0 else percent(share, 0)
  return f"{best.queries} queries get {back} of {taken} back ({reached})"
