"""Every shadow model of a record in turn as the target of the others."""

import importlib.util
from collections.abc import Sequence

import numpy as np

from diffence_jax.attacks.attack import ATTACKS, declaration_of
from diffence_jax.attacks.ensemble import Ensemble, ensemble_of
from diffence_jax.audit.pool import Pool
from diffence_jax.audit.shadow import in_turn_tables, is_in_turn
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
    order, nobody = partners_first(record.shadow_membership), np.zeros(len(record.labels), bool)
    self.pool = Pool(
      ids=np.arange(len(record.labels)),
      labels=record.labels,
      is_member=record.is_member,
      is_known=nobody if record.is_known is None else record.is_known,
      is_canary=nobody,
    )
    self.seed = seed
    self.membership = record.shadow_membership[order]
    self._ensembles = {
      recorded.name: ensemble_of(
        recorded.shadows, record.shadow_membership, record.labels
      ).take(order)
      for recorded in record.predictors
      if recorded.shadows is not None
    }
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


def audit_in_turn(
  record: LogitRecord, choices: Sequence[Choice], main_attack: str, *, seed: int
) -> tuple[dict[str, list], dict[str, np.ndarray], dict[str, str]]:
  """Every shadow model as the target.

  Args:
    record: as `read_record` returns it.
    choices: attacks; those that are quick enough and that the record allows are run.
    main_attack: of figures, single examples and bounds.
    seed: of what attacks draw.

  Returns:
    Tables and arrays as of `shadow.in_turn_tables`, the tables empty where there are too few
    models; and what was left out, to what it would need.
  """
  empty = {name: [] for name in ("samples", "vulnerability", "epsilon")}
  has_answers = any(recorded.shadows is not None for recorded in record.predictors)
  num_models = len(record.shadow_membership) if has_answers else 0
  if num_models < LEAST_MODELS:
    reason = f"needs the answers of {LEAST_MODELS} shadow models or more, not {num_models}"
    return empty, {}, {_WHAT: reason}
  attacks, left_out = [], {}
  for choice in filter(is_in_turn, choices):
    declared = declaration_of(choice.name)
    if "known" in declared.needs and record.is_known is None:
      left_out[f"{declared.title} on {_WHAT}"] = "need is_known"
    elif "images" not in declared.needs:
      attacks.append(choice)
  models = ModelsInTurn(record, seed)
  try:
    tables, arrays = in_turn_tables(
      models,
      attacks,
      ATTACKS.choose(main_attack),
      reported=models.pool.reported("disjoint"),
      has_epsilon=importlib.util.find_spec("jax_privacy") is not None,
    )
  except ValueError as error:
    return empty, {}, {_WHAT: str(error)}
  return tables, arrays, left_out
