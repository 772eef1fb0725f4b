"""The stage that attacks every predictor and measures what it costs."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffence_jax.attacks import View, run_attack
from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.chosen_target import with_chosen
from diffence_jax.audit.label_floor import LABELS_ALONE, floor_attacks, with_label_floor
from diffence_jax.audit.pool import Pool
from diffence_jax.audit.predictors import Defended, Predictor
from diffence_jax.audit.rows import PredictorRow, Scored, audit_predictors, score_name
from diffence_jax.audit.typed import from_plain, to_plain
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.stages.label_only import LabelOnly
from diffence_jax.experiment.stages.queries import Queries
from diffence_jax.experiment.stages.shadow_audit import ShadowAudit, fit_target
from diffence_jax.experiment.store import Store
from diffence_jax.named import Choice


@dataclasses.dataclass(frozen=True)
class Audit(Stage):
  """Attacks every predictor, and measures what it costs.

  Attributes:
    pool: the samples, without canaries.
    samples: the same, with their images.
    queries: the target's answers.
    label_only: scores of attacks that ask; None where there are none.
    shadow_audit: scores of attacks with shadow models; None where there are none.
    predictors: the undefended one first.
    output: a defense of the answers; None for none.
    attacks: all that are run.
    protocol: as in `audit.rows.audit_predictors`.
    num_candidates: M, that the defense draws for a query.
    seed: of the run.
  """

  name: ClassVar[str] = "audit"
  version: ClassVar[int] = 5

  pool: Pool
  samples: Samples
  queries: Queries
  label_only: LabelOnly | None
  shadow_audit: ShadowAudit | None
  predictors: tuple[Predictor, ...]
  output: Choice | None
  attacks: tuple[Choice, ...]
  protocol: str
  num_candidates: int
  seed: int

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `predictors.json`, `arrays.npz` for the figures, and `scores.npz`."""
    del compute
    record = self.queries.load(store, self.num_candidates)
    score = self._scorer(store, record.raw)
    audit = functools.partial(
      audit_predictors, record=record, pool=self.pool, score=score, protocol=self.protocol
    )
    rows, arrays, scores = audit(self.load_predictors(store), attacks=self.attacks)
    # A defense of the answers would have to keep the label, too.
    alone = dataclasses.replace(self, predictors=(LABELS_ALONE,), output=None)
    floor, *_ = audit(alone.load_predictors(store), attacks=floor_attacks(self.attacks))
    rows = with_label_floor(rows, floor[0].highest_auc)
    if self.shadow_audit:
      rows = with_chosen(rows, self.shadow_audit.load(store).samples)
    np.savez_compressed(folder / "arrays.npz", **arrays)
    np.savez_compressed(folder / "scores.npz", **scores)
    text = json.dumps(to_plain(rows), allow_nan=False)
    (folder / "predictors.json").write_text(text)

  def load_predictors(self, store: Store) -> tuple[Defended, ...]:
    """All predictors, fitted as they are audited."""
    return fit_target(self, self.queries.load(store, self.num_candidates))

  def load(self, store: Store) -> tuple[PredictorRow, ...]:
    """What a finished stage found, a row a predictor."""
    text = (store.open(self) / "predictors.json").read_text()
    return from_plain(tuple[PredictorRow, ...], json.loads(text))

  def load_arrays(self, store: Store) -> dict[str, np.ndarray]:
    """The arrays of the figures; see `audit.rows.audit_predictors`."""
    with np.load(store.open(self) / "arrays.npz", allow_pickle=False) as arrays:
      return dict(arrays)

  def load_scores(self, store: Store) -> Iterator[tuple[str, str, np.ndarray]]:
    """Predictor, attack and its scores f64[N] of the pool, NaN for samples not judged."""
    with np.load(store.open(self) / "scores.npz", allow_pickle=False) as scores:
      for predictor in self.predictors:
        for attack in self.attacks:
          name = score_name(predictor.name, attack.name)
          if name in scores:
            yield predictor.name, attack.name, scores[name]

  def cost(self) -> str:
    """How many queries there are to attack."""
    return f"{len(self.pool.ids)} recorded queries to attack"

  def _scorer(self, store, raw):
    everyone = np.arange(len(self.pool.ids))
    asked = self.label_only.load(store) if self.label_only else {}
    shadow = self.shadow_audit.load_scores(store) if self.shadow_audit else {}

    def score(defended: Defended, logits: np.ndarray, choice: Choice) -> Scored | None:
      needs = declaration_of(choice.name).needs
      if "ask" in needs:
        # The classifier was asked; what it said holds for all that give its labels.
        same = np.array_equal(np.argmax(logits, axis=-1), np.argmax(raw, axis=-1))
        if choice.name not in asked or not same:
          return None
        rows = np.flatnonzero(np.isin(self.pool.ids, self.label_only.pool.ids))
        return Scored(asked[choice.name], rows)
      if "shadows" in needs:
        scores = shadow.get(f"{defended.name}/{choice.name}")
        return None if scores is None else Scored(scores, everyone)
      view = View(
        logits[:, None],
        self.pool.labels,
        is_known=self.pool.is_known,
        is_member=self.pool.is_member,
        images=self.samples.images,
        ids=self.pool.ids,
        seed=self.seed,
        name=defended.predictor.stream,
      )
      published = self.protocol == "paper"
      return Scored(run_attack(choice, view, published=published), everyone)

    return score
