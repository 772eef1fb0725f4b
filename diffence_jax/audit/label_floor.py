"""The label-only floor: what the strongest attack finds behind an answer that tells the label.

The gap attack calls every right answer a member. Whoever knows how often each label is right,
or which samples shadow models get right, sees more in the same labels. No policy that keeps
labels can leave him less: his answer to anything such a policy adds may be to ignore it.
"""

import dataclasses
from collections.abc import Sequence

from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.predictors import Predictor
from diffence_jax.audit.rows import Highest, PredictorRow
from diffence_jax.named import Choice

# Answers each label with its accuracy among known non-members (`defense.blend.constant`).
LABELS_ALONE = Predictor("labels alone", Choice("constant", {}))


def floor_attacks(attacks: Sequence[Choice]) -> tuple[Choice, ...]:
  """Those of the attacks that are run on the labels alone.

  All but those that train on known samples: of K answers there is little to learn that
  thresholds by class do not tell, and they take long.
  """
  trained = "trained on known samples"
  return tuple(one for one in attacks if declaration_of(one.name).family != trained)


def with_label_floor(rows: Sequence[PredictorRow], floor: Highest) -> tuple[PredictorRow, ...]:
  """The rows with this floor, but for those that change a label: theirs is another."""
  return tuple(
    dataclasses.replace(row, label_floor=None if row.label_changes else floor) for row in rows
  )
