"""The stage of the attacks with shadow models."""

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffence_jax.attacks import run_attack
from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.answers import Answers, DefendedEnsemble
from diffence_jax.audit.in_turn import is_in_turn
from diffence_jax.audit.in_turn_file import (
  SCORES_IN_TURN,
  ScoresInTurn,
  read_in_turn,
  written_in_turn,
)
from diffence_jax.audit.jackknife import ENOUGH_MODELS, LEAST_MODELS
from diffence_jax.audit.label_floor import LABELS_ALONE, floor_attacks
from diffence_jax.audit.pool import Pool
from diffence_jax.audit.predictors import (
  Defended,
  ModelRecord,
  Predictor,
  answers_defense,
  fit_predictors,
)
from diffence_jax.audit.rows import score_name
from diffence_jax.audit.shadow import (
  ShadowTables,
  in_turn_tables,
  samples_in_turn,
  target_rows,
  target_view,
)
from diffence_jax.audit.typed import from_plain, to_plain
from diffence_jax.defense.policy import RankPolicy
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.stages.host_shadows import ProcedureShadows
from diffence_jax.experiment.stages.queries import Queries
from diffence_jax.experiment.stages.shadow_queries import (
  NearDuplicates,
  ShadowQueries,
  TargetQueries,
)
from diffence_jax.experiment.store import Store
from diffence_jax.named import Choice


@dataclasses.dataclass(frozen=True)
class ShadowAudit(Stage):
  """Attacks with shadow models: on the target, and on every model in turn.

  Attributes:
    pool: all samples, canaries last.
    canaries: the titles of their kinds, which follow one another, each with as many.
    queries: the target's answers, on which its policies are fitted.
    shadow_queries: the shadow models' answers.
    target_queries: the target's to all versions of the images; None where there is one version.
    near_duplicates: the target's to near-duplicates; None where they are not asked about.
    predictors: the undefended one first.
    output: a defense of the answers; None for none.
    attacks: those that need shadow models, or are run with every model in turn.
    main_attack: of figures, single examples and bounds on epsilon.
    protocol: as in `Pool.reported`.
    num_candidates: M, that the defense draws for a query.
    num_queries: the numbers k of repeated queries.
    seed: of the run.
    has_epsilon: whether jax-privacy is there: with it there is a bound on epsilon.
  """

  name: ClassVar[str] = "shadow_audit"
  version: ClassVar[int] = 5

  pool: Pool
  canaries: tuple[str, ...]
  queries: Queries
  shadow_queries: ShadowQueries | ProcedureShadows
  target_queries: TargetQueries | None
  near_duplicates: NearDuplicates | None
  predictors: tuple[Predictor, ...]
  output: Choice | None
  attacks: tuple[Choice, ...]
  main_attack: Choice
  protocol: str
  num_candidates: int
  num_queries: tuple[int, ...]
  seed: int
  has_epsilon: bool

  def ensemble(self, store: Store) -> DefendedEnsemble:
    """The shadow models behind every policy, of stages that are computed."""
    versions = self.shadow_queries.num_versions
    return DefendedEnsemble(
      lambda model: self.shadow_queries.load_model(store, model, versions),
      self.pool,
      self.shadow_queries.shadow.membership(store),
      self.predictors,
      num_candidates=self.num_candidates,
      queries=self.num_queries,
      seed=self.seed,
      versions=versions,
      fit_answers=lambda model: answers_defense(self.output, self.seed, f"shadow/{model}"),
      images=self.shadow_queries.samples.images,
    )

  def masks_of_canaries(self) -> dict[str, np.ndarray]:
    """Kind to bool[N], which samples of the pool are canaries of it."""
    places = np.flatnonzero(self.pool.is_canary)
    each = np.split(places, len(self.canaries)) if self.canaries else []
    of_pool = np.arange(len(self.pool.ids))
    return {kind: np.isin(of_pool, own) for kind, own in zip(self.canaries, each, strict=True)}

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `tables.json`, the scores in turn, `scores.npz`, and `arrays.npz` for figures."""
    del compute
    ensemble = self.ensemble(store)
    # The target's policies are those of the defense as it is deployed.
    known = self.queries.load(store, self.num_candidates)
    record = self._target_record(store)
    target = self._answers(fit_target(self, known), record)
    in_turn = [choice for choice in self.attacks if is_in_turn(choice)]
    # Slow ones too, as there is one target. Attacks that ask of themselves see labels alone.
    on_target = [c for c in self.attacks if "ask" not in declaration_of(c.name).needs]
    reported = self.pool.natural.reported(self.protocol)
    rows = target_rows(target, ensemble, on_target, reported=reported)
    near = self._near_answers(store, known, record)
    if near:
      plain = ensemble.first_version()
      rows += target_rows(near, plain, on_target, reported=reported, inputs="near duplicates")
    reported = self.pool.reported(self.protocol)
    with written_in_turn(
      folder / SCORES_IN_TURN, self.pool, ensemble.membership, reported
    ) as keep:
      tables, arrays = in_turn_tables(
        ensemble,
        in_turn,
        self.main_attack,
        canaries=self.masks_of_canaries(),
        reported=reported,
        has_epsilon=self.has_epsilon,
        keep=keep,
      )
      floor, of_labels = self._label_floor(store, known, record, in_turn, keep)
    scores = self._target_scores(target, ensemble, self.attacks)
    shares = {name: {"target": answers.reused, "shadow": ensemble.reused(name)}
              for name, answers in target.items()}  # fmt: skip
    for name, answers in near.items():
      shares[name]["near_duplicates"] = answers.reused
    shadow_tables = ShadowTables(
      main_attack=self.main_attack.name,
      main_title=declaration_of(self.main_attack.name).title,
      adaptive=tuple(rows),
      **{name: tuple(table) for name, table in tables.items()},
      label_floor=floor,
      reused=shares,
    )
    (folder / "tables.json").write_text(json.dumps(to_plain(shadow_tables), allow_nan=False))
    np.savez_compressed(folder / "arrays.npz", **arrays)
    np.savez_compressed(folder / "scores.npz", **scores, **of_labels)

  def load(self, store: Store) -> ShadowTables:
    """What a finished stage found."""
    text = (store.open(self) / "tables.json").read_text()
    return from_plain(ShadowTables, json.loads(text))

  def load_scores(self, store: Store) -> dict[str, np.ndarray]:
    """The target's scores f64[N] by "predictor/attack", of the pool without canaries."""
    with np.load(store.open(self) / "scores.npz", allow_pickle=False) as scores:
      return dict(scores)

  def in_turn_file(self, store: Store) -> Path:
    """The file of all scores with every model in turn; see `audit.in_turn_file`."""
    return store.open(self) / SCORES_IN_TURN

  def load_in_turn(self, store: Store) -> ScoresInTurn:
    """What is in it, by policy."""
    policies = {predictor.name: predictor.policy.name for predictor in self.predictors}
    return read_in_turn(self.in_turn_file(store), policies)

  def load_arrays(self, store: Store) -> dict[str, np.ndarray]:
    """The arrays of the figures; see `audit.shadow.in_turn_tables`."""
    with np.load(store.open(self) / "arrays.npz", allow_pickle=False) as arrays:
      return dict(arrays)

  def cost(self) -> str:
    """How many models' answers are attacked, and what their scores take on the disk."""
    num_models = len(self.shadow_queries.shadow.models)
    # Float64, of every predictor and of the labels alone.
    size = 8 * num_models * len(self.pool.ids) * (len(self.predictors) + 1)
    size *= sum(map(is_in_turn, self.attacks))
    again = ""
    if LEAST_MODELS <= num_models < ENOUGH_MODELS:
      again = f", again without each of {-(-num_models // 2)} pairs"
    text = f"{num_models} models' answers to attack{again}, {size / 2**20:,.1f} MiB of scores"
    if self.output is None:
      return text
    once = len(self.pool.ids) * self.shadow_queries.num_versions * (num_models + 1)
    most = once * (2 + 3 * min(max(self.num_queries), self.queries.num_recorded))
    return f"{text}, {5 * once} to {most} of them through {self.output.name} first"

  def _target_record(self, store: Store) -> ModelRecord:
    versions = self.shadow_queries.num_versions
    return (self.target_queries or self.queries).load_model(store, versions=versions)

  def _answers(self, fitted, record, num_candidates=None) -> dict[str, Answers]:
    labels, answers = self.pool.natural.labels, {}
    for defended in fitted:
      repeated = defended.answer_repeatedly(
        record,
        num_candidates=num_candidates or self.num_candidates,
        num_queries=max(self.num_queries),
      )
      answers[defended.name] = Answers(repeated.logits, labels, repeated.reused)
    return answers

  def _target_scores(self, target, ensemble, attacks) -> dict[str, np.ndarray]:
    """The scores f64[N] of attacks that need shadow models, by "predictor/attack"."""
    return {
      score_name(name, choice.name): run_attack(choice, target_view(answers, ensemble, name, 0))
      for name, answers in target.items()
      for choice in attacks
      if "shadows" in declaration_of(choice.name).needs
    }

  def _label_floor(self, store, known, record, in_turn, keep):
    """The rows over all models in turn and the target's scores, both of the labels alone."""
    # A defense of the answers would have to keep the label, too.
    stage = dataclasses.replace(self, predictors=(LABELS_ALONE,), output=None, num_queries=(1,))
    ensemble = stage.ensemble(store)
    reported = self.pool.reported(self.protocol)
    rows = samples_in_turn(ensemble, LABELS_ALONE.name, in_turn, reported, keep)
    target = stage._answers(fit_target(stage, known), record)
    scores = self._target_scores(target, ensemble, floor_attacks(self.attacks))
    return tuple(rows), scores

  def _near_answers(self, store, known, record) -> dict[str, Answers]:
    """The answers of the policies that select, to near-duplicates; empty without."""
    if self.near_duplicates is None:
      return {}
    near = self.near_duplicates.load(store, record.raw[:, :1])
    selecting = [d for d in fit_target(self, known) if isinstance(d.policy, RankPolicy)]
    return self._answers(selecting, near, min(self.num_candidates, max(self.num_queries)))


def fit_target(stage: Any, known) -> tuple[Defended, ...]:
  """The predictors of a stage, fitted on the known samples of the target's record.

  Args:
    stage: with `predictors`, `output`, `pool` and `seed`.
    known: the record of the pool without canaries.
  """
  members, nonmembers = (
    type(known)(*(values[rows] for values in known)) for rows in stage.pool.natural.known()
  )
  fit_answers = answers_defense(stage.output, stage.seed, "target")
  return fit_predictors(stage.predictors, members, nonmembers, fit_answers)
