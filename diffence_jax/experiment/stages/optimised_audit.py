"""The stage that scores what is answered to optimised queries."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffence_jax.audit.answers import Answers, DefendedEnsemble
from diffence_jax.audit.optimised import SENT, Asked, OptimisedRow, optimised_rows
from diffence_jax.audit.predictors import ModelRecord, answers_defense
from diffence_jax.audit.typed import from_plain, to_plain
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.stages.optimised_queries import OptimisedQueries
from diffence_jax.experiment.stages.shadow_audit import ShadowAudit, fit_target
from diffence_jax.experiment.store import Store


@dataclasses.dataclass(frozen=True)
class OptimisedAudit(Stage):
  """The main attack by optimised queries, on the target and on the models that answer.

  Attributes:
    asked: the queries and the answers to them.
    audit: whose predictors and main attack they are, and how they are asked.
  """

  name: ClassVar[str] = "optimised_audit"
  version: ClassVar[int] = 2

  asked: OptimisedQueries
  audit: ShadowAudit

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `rows.json`."""
    del compute
    asked = {sent: self._asked(store, number - 1) for number, sent in enumerate(SENT)}
    rows = optimised_rows(asked, self.audit.main_attack)
    (folder / "rows.json").write_text(json.dumps(to_plain(rows), allow_nan=False))

  def load(self, store: Store) -> tuple[OptimisedRow, ...]:
    """What a finished stage found."""
    text = (store.open(self) / "rows.json").read_text()
    return from_plain(tuple[OptimisedRow, ...], json.loads(text))

  def cost(self) -> str:
    """How many models' answers are attacked."""
    num = len(self.audit.shadow_queries.shadow.models) - self.asked.settings.num_models
    return f"{num} models' answers to attack, {len(SENT)} ways"

  def _asked(self, store: Store, kind: int) -> Asked:
    """The answers to one kind of query, or with -1 to the samples themselves."""
    audit, first = self.audit, self.asked.settings.num_models
    chosen, known = np.array(self.asked.rows), np.flatnonzero(audit.pool.natural.is_known)
    rows = np.concatenate([known, chosen])
    pool = audit.pool.take(rows)

    def record(whole: ModelRecord, answers: Callable[[], ModelRecord]) -> ModelRecord:
      # The known samples, on which policies are fitted, are always asked about as they are.
      if kind < 0:
        return ModelRecord(*(values[rows, :1] for values in whole))
      pairs = zip(whole, answers(), strict=True)
      return ModelRecord(*(np.concatenate([own[known, :1], new]) for own, new in pairs))

    def read(model: int) -> ModelRecord:
      queries = audit.shadow_queries
      whole = queries.load_model(store, first + model, queries.num_versions)
      return record(whole, lambda: self.asked.load_answers(store, kind, model))

    # A query more often is of use to few: once, and as often as any.
    numbers = tuple(sorted({1, max(audit.num_queries)}))
    name = lambda model: f"shadow/{first + model}"
    ensemble = DefendedEnsemble(
      read,
      pool,
      audit.shadow_queries.shadow.membership(store)[first:, rows],
      audit.predictors,
      num_candidates=audit.num_candidates,
      queries=numbers,
      seed=audit.seed,
      fit_answers=lambda model: answers_defense(audit.output, audit.seed, name(model)),
    )
    of_target = record(
      audit.queries.load_model(store), lambda: self.asked.load_answers(store, kind)
    )
    target = {}
    for defended in fit_target(audit, audit.queries.load(store, audit.num_candidates)):
      repeated = defended.answer_repeatedly(
        of_target, num_candidates=audit.num_candidates, num_queries=max(numbers)
      )
      target[defended.name] = Answers(repeated.logits, pool.labels, repeated.reused)
    return Asked(ensemble, target)
