"""The best single attack on the target, chosen on its shadow models.

The highest figure of many attacks is picked on the very samples that it is reported on, and is
the higher for it. Shadow models are trained on halves that are drawn by chance: which attack is
strongest on them says nothing of who the target's members are. So its figure on the target is
that of one attack, chosen beforehand, and its interval covers as such an attack's does.
`audit.chosen` does the same for every shadow model in turn.
"""

import dataclasses
from collections.abc import Sequence

from diffence_jax.audit.rows import Highest, PredictorRow
from diffence_jax.audit.shadow import InTurnRow


def with_chosen(
  rows: Sequence[PredictorRow], in_turn: Sequence[InTurnRow]
) -> tuple[PredictorRow, ...]:
  """The rows with `chosen`, and its change to that of the first.

  Args:
    rows: about the target, the undefended predictor first.
    in_turn: every shadow model as the target in turn, behind the same predictors; none without
      shadow models.
  """
  found = [_chosen(row, in_turn) for row in rows]
  first, *others = found
  if first is not None and first.value > 0.0:
    changed = [
      one and dataclasses.replace(one, relative_change=one.value / first.value - 1.0)
      for one in others
    ]
    found = [first, *changed]
  return tuple(
    dataclasses.replace(row, chosen=one) for row, one in zip(rows, found, strict=True)
  )


def _chosen(row: PredictorRow, in_turn: Sequence[InTurnRow]) -> Highest | None:
  """Of the attacks on the target the one that is strongest on shadow models.

  These are asked as little as they are at all, which is once by default.
  """
  ran = {attack.name: attack for attack in row.attacks if attack.threshold == "global"}
  candidates = [one for one in in_turn if one.predictor == row.name and one.attack in ran]
  if not candidates:
    return None
  least = min(one.queries for one in candidates)
  candidates = [one for one in candidates if one.queries == least]
  best = ran[max(candidates, key=lambda one: one.auc.value).attack]
  return Highest(best.name, best.title, best.threshold, *best.auc)
