"""Every shadow model of a record in turn as the target of the others."""

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from diffence_jax.attacks.attack import declaration_of
from diffence_jax.attacks.ensemble import Ensemble
from diffence_jax.audit.in_turn import is_in_turn
from diffence_jax.audit.label_floor import LABELS_ALONE
from diffence_jax.audit.shadow import InTurnRow, in_turn_tables, samples_in_turn
from diffence_jax.named import Choice
from diffence_jax.recorded.record import LogitRecord

# Pairs of fewer models say too little about other models.
LEAST_MODELS = 8
_WHAT = "every model in turn"


class ModelsInTurn:
  """Shadow models behind every defense of a record, as `shadow.in_turn_tables` takes them."""

  versions, images, queries = 1, None, (1,)

  def __init__(self, record: LogitRecord, seed: int):
    """Orders the models so that partners, of complementary members, stand beside each other."""
    order = partners_first(record.shadow_membership)
    self.pool, self.seed = record.pool, seed
    self.membership = record.shadow_membership[order]
    self._ensembles = {name: models.take(order) for name, models in record.ensembles.items()}
    self.names = tuple(self._ensembles)

  def num_queries(self, name: str) -> int:
    """One number of queries: all that were recorded."""
    del name
    return 1

  def at(self, name: str, at: int) -> Ensemble:
    """The models behind a defense."""
    del at
    return self._ensembles[name]


def partners_first(membership: np.ndarray) -> np.ndarray:
  """An order i[S] in which models of complementary members are at places 2i and 2i + 1.

  Models without a partner come last, in their order.
  """
  open_places: dict[bytes, int] = {}
  pairs, paired = [], set()
  for model, row in enumerate(membership):
    partner = open_places.pop((~row).tobytes(), None)
    if partner is None:
      open_places.setdefault(row.tobytes(), model)
    else:
      pairs += [partner, model]
      paired |= {partner, model}
  return np.array(pairs + [m for m in range(len(membership)) if m not in paired], int)


class InTurn(NamedTuple):
  """Every shadow model as the target.

  Attributes:
    tables: as of `shadow.in_turn_tables`; empty where there are too few models.
    arrays: of figures, the same.
    main_title: the attack that arrays, single examples and bounds are of, as reports write it;
      "" where there is none.
    left_out: what was not run, to what it would need.
  """

  tables: dict[str, list]
  arrays: dict[str, np.ndarray]
  main_title: str
  left_out: dict[str, str]


def audit_in_turn(
  record: LogitRecord, choices: Sequence[Choice], main_attack: str, *, seed: int
) -> InTurn:
  """Attacks every shadow model by the others.

  Args:
    record: as `read_record` returns it.
    choices: attacks; those that are quick enough and that the record allows are run.
    main_attack: of figures, single examples and bounds, if it is run; else the last that is.
    seed: of what attacks draw.
  """
  num_models = len(record.shadow_membership) if record.ensembles else 0
  if num_models < LEAST_MODELS:
    return _nothing(
      f"needs the answers of {LEAST_MODELS} shadow models or more, not {num_models}"
    )
  attacks, left_out = [], {}
  for choice in filter(is_in_turn, choices):
    declared = declaration_of(choice.name)
    if "known" in declared.needs and record.is_known is None:
      left_out[f"{declared.title} on {_WHAT}"] = "need is_known"
    elif "images" not in declared.needs:
      attacks.append(choice)
  if not attacks:
    return _nothing("needs an attack that is quick enough, such as lira_online")
  main = next((choice for choice in attacks if choice.name == main_attack), attacks[-1])
  models = ModelsInTurn(record, seed)
  try:
    tables, arrays = in_turn_tables(
      models,
      attacks,
      main,
      reported=models.pool.reported("disjoint"),
      has_epsilon=importlib.util.find_spec("jax_privacy") is not None,
    )
  except ValueError as error:
    return _nothing(str(error))
  return InTurn(tables, arrays, declaration_of(main.name).title, left_out)


def labels_in_turn(
  alone: LogitRecord, in_turn: InTurn, choices: Sequence[Choice], *, seed: int
) -> list[InTurnRow]:
  """The attacks that were run over all models in turn, on the labels alone.

  Args:
    alone: of the labels, as `labels_alone` returns it.
    in_turn: what came of `audit_in_turn` of the whole record.
    choices: those that it was given.
    seed: the same.

  Returns:
    Their rows; none where there were none, or no shadow model of the undefended classifier.
  """
  ran = {row.attack for row in in_turn.tables["samples"]}
  if not ran or not alone.ensembles:
    return []
  models = ModelsInTurn(alone, seed)
  attacks = [choice for choice in choices if choice.name in ran]
  return samples_in_turn(models, LABELS_ALONE.name, attacks, models.pool.reported("disjoint"))


def _nothing(reason):
  tables = {name: [] for name in ("samples", "vulnerability", "chosen", "named", "epsilon")}
  return InTurn(tables, {}, "", {_WHAT: reason})
