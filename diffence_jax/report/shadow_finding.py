"""What attacks with shadow models found, in one plain sentence."""

from collections.abc import Sequence

from diffence_jax.audit.predictors import name_undone
from diffence_jax.audit.shadow import InTurnRow
from diffence_jax.report.cells import NO_CHANGE, interval, of_100, percent
from diffence_jax.report.results import Results
from diffence_jax.report.shadow_rows import in_turn, main_attack, recovered_share


def finding(results: Results) -> str:
  """What attacks with shadow models get, before and behind the defense, in one sentence.

  It is about every shadow model as the target in turn: the target alone has too few samples to
  tell what more queries get back. The predictor is `Results.told_of`, the attack the one that
  is strongest on the undefended predictor at one query. Should another attack reach more on
  the defended one, or one on what comes out where its policy is undone, that comes first.
  What repeated queries get is about the main attack, at the number of queries that gets the
  most.

  Args:
    results: as `write_report` takes it, the undefended predictor first.

  Returns:
    The sentence, ASCII.
  """
  row = results.told_of
  before = max(in_turn(results, predictor=results.undefended.name, queries=1), key=_value)
  text = (
    f"With each of {results.shadow.num_models:,} shadow models as the target in turn, the "
    f"strongest attack at one query, {before.title}, gets {_of_100(before)} of 100 guesses "
    "right"
  )
  if row is None:
    return f"{text}; no policy was audited."
  (after,) = in_turn(results, predictor=row.name, attack=before.attack, queries=1)
  names = (row.name, name_undone(row.name))
  behind = [one for name in names for one in in_turn(results, predictor=name, queries=1)]
  strongest = max(behind, key=_value)
  if _value(strongest) > _value(after) + NO_CHANGE:
    undone = "" if strongest.predictor == row.name else " where the policy is undone,"
    text += (
      f" without Diffence; the strongest behind {row.name}, {strongest.title},{undone} gets "
      f"{_of_100(strongest)}, and {before.title} itself {_of_100(after)} ({_difference(after)})"
    )
  else:
    text += f" without Diffence and {_of_100(after)} behind {row.name} ({_difference(after)})"
  (level,) = in_turn(
    results, predictor=results.undefended.name, attack=main_attack(results), queries=1
  )
  once, *again = sorted(
    in_turn(results, predictor=row.name, attack=main_attack(results)),
    key=lambda one: one.queries,
  )
  return f"{text}; {_asked_again(again, once, level)}."


def _value(row):
  return row.auc.value


def _of_100(row):
  return of_100(_value(row), 1)


def _difference(row):
  """The difference of the AUCs with its interval, and what it says."""
  change = row.auc_change
  remark = ""
  if change.low <= 0.0 <= change.high:
    remark = ", which may be chance"
  elif change.value > 0.0:
    remark = ", worse than without"
  return f"AUC {change.value:+.3f} {interval(change)}{remark}"


def _overlap(one, other):
  (a, b) = (row.auc for row in (one, other))
  return ", 95% intervals overlap" if a.low <= b.high and b.low <= a.high else ""


def _asked_again(rows: Sequence[InTurnRow], once: InTurnRow, level: InTurnRow) -> str:
  """What repeated queries reach, as the end of a sentence.

  Args:
    rows: of the main attack on the predictor at more than one query.
    once: at one query.
    level: on the undefended predictor.

  Returns:
    The words.
  """
  if not rows:
    return "repeated queries were not tried"
  best = max(rows, key=_value)
  if _value(best) - _value(once) < NO_CHANGE:
    return f"asking up to {rows[-1].queries} times gains nothing"
  text = (
    f"asking {best.queries} times {best.title} gets {_of_100(best)} instead of {_of_100(once)}"
  )
  share = recovered_share(best.auc, once.auc, level.auc)
  back = ""
  if share is not None:
    back = f"{'all' if share >= 1.0 else percent(share, 0)} of the difference to "
    back += f"{_of_100(level)} without Diffence"
  remarks = (back, _overlap(best, once).removeprefix(", "))
  remark = "; ".join(filter(None, remarks))
  return f"{text} ({remark})" if remark else text
