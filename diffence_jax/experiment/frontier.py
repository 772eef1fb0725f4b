"""The frontier of a finished audit: all policies before its shadow models.

Also at other numbers of diffusion steps and of candidates, before the same shadow models. Other
steps are other re-generations, which are recorded once more; other numbers of candidates are
read off the same record.
"""

import dataclasses
import itertools
from collections.abc import Collection, Sequence

import numpy as np
from ml_collections import ConfigDict

from diffence_jax import rng
from diffence_jax.attacks import ATTACKS
from diffence_jax.audit.canaries import CANARIES, make_canaries
from diffence_jax.audit.frontier import Drawing, FrontierRow, frontier_row, score_all
from diffence_jax.audit.predictors import Predictor, policy_title, undone
from diffence_jax.data import Dataset
from diffence_jax.defense.policy import POLICIES, PUBLISHED, UNDEFENDED
from diffence_jax.disk import private_files
from diffence_jax.experiment.finished import FinishedRun
from diffence_jax.experiment.plan import Experiment, plan
from diffence_jax.experiment.run import compute, compute_stages, usual_jax
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.sections import Settings
from diffence_jax.experiment.stages.queries import Queries
from diffence_jax.experiment.stages.shadow_audit import ShadowAudit
from diffence_jax.experiment.stages.shadow_queries import ShadowQueries
from diffence_jax.experiment.store import Store, locked
from diffence_jax.named import option_key
from diffence_jax.rng import MAX_ID

# One by thresholds and two with shadow models; trees and networks over these take much longer.
ATTACKS_IN_TURN = ("confidence", "lira_online", "rmia_online")
# Of the calibrated mean in a blend; a weight of 0 is the policy "constant".
WEIGHTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def compared_predictors(settings: Settings, undefended: Predictor) -> tuple[Predictor, ...]:
  """All policies there are and the config's own, `blend` with every weight.

  Args:
    settings: the experiment's.
    undefended: the first.
  """
  left_out = {UNDEFENDED, "blend", *PUBLISHED.values()}
  names = [name for name in dict.fromkeys([*POLICIES.known, *settings.purify.policies])
           if name not in left_out]  # fmt: skip
  policies = [
    Predictor(policy_title(name), POLICIES.choose(name, settings.options("policies", name)))
    for name in names
  ]
  blends = [
    Predictor(f"blend {weight:g}", POLICIES.choose("blend", {"weight": weight}))
    for weight in WEIGHTS
  ]
  return (undefended, *policies, *blends)


def plan_grid(
  config: ConfigDict, steps: Sequence[int] = (), candidates: Sequence[int] = ()
) -> list[Experiment]:
  """The experiments that differ in how candidates are drawn, checked before any is computed.

  Args:
    config: of the finished run.
    steps: values of `purify.step`; none for the config's.
    candidates: values of `purify.num_candidates`, of a record as long as the config's; none for
      the config's.

  Returns:
    One for each pair of values; that of the config's own values is the first, if it is there.

  Raises:
    ValueError: a setting is not right, or the config trains no shadow models.
  """
  first = plan(config)
  own = drawing_of(first)
  recorded = shadow_audit_of(first).queries.num_recorded
  grid = [
    Drawing(*pair)
    for pair in itertools.product(
      dict.fromkeys(steps) or (own.step,), dict.fromkeys(candidates) or (own.num_candidates,)
    )
  ]
  experiments = []
  for drawing in sorted(grid, key=lambda drawing: drawing != own):
    same = drawing == own
    experiments.append(
      first if same else plan(_redrawn(config, drawing, recorded), first.dataset)
    )
  return experiments


def _redrawn(config, drawing, recorded):
  """The config with other candidates, of a record as long as before."""
  other = config.copy_and_resolve_references().unlock()
  other.purify.update(drawing._asdict())
  other.shadow.num_recorded = recorded
  return other


def drawing_of(experiment: Experiment) -> Drawing:
  """How an experiment's candidates are drawn."""
  return Drawing(experiment.purification.step, experiment.settings.purify.num_candidates)


def other_images(experiment: Experiment, source: str) -> ShadowQueries:
  """The stage that records what the shadow models answer to images of another data set.

  They are as many as the target's non-members, of the samples' shape.

  Args:
    experiment: as `plan_grid` makes it.
    source: as `audit.canaries.out_of_distribution` takes it.

  Raises:
    ValueError: there is no such data set, it is the experiment's, or has too few images; or the
      shadow models are not kept.
  """
  stage = shadow_audit_of(experiment)
  if source == experiment.settings.data.source:
    raise ValueError(
      f"--out_of_distribution is {source!r}, as data.source is; expected another data set, "
      "such as 'digits' or 'photographs'."
    )
  if not isinstance(stage.shadow_queries, ShadowQueries):
    raise ValueError(
      "--out_of_distribution asks shadow models again, and those of a procedure of your own "
      "are not kept; leave it out."
    )
  natural = stage.pool.natural
  num = int(np.sum(~natural.is_known & ~natural.is_member))
  shape, num_classes = experiment.queries.samples.image_shape, experiment.dataset.num_classes
  kind = CANARIES.choose("out_of_distribution", {"source": source})
  blank = np.zeros((num, *shape), np.uint8)
  draw = np.random.default_rng(rng.numpy_seed(experiment.settings.seed, "other_images"))
  images, labels = make_canaries(kind, blank, np.zeros(num, np.int32), num_classes, draw)
  # No sample's ids: their noise is their own.
  ids = MAX_ID - np.arange(num)
  dataset = Dataset(images, labels, ids, num_classes, np.zeros(num, np.int8))
  return dataclasses.replace(
    stage.shadow_queries,
    samples=Samples(dataset, ids, labels),
    num_recorded=experiment.settings.purify.num_candidates,
    augmentation="none",
  )


def record_grid(
  experiments: Sequence[Experiment], store: Store, others: str | None = None
) -> None:
  """Records what the shadow models of a finished run answer to other re-generations.

  Args:
    experiments: as `plan_grid` makes them.
    store: as `open_store` makes it.
    others: a data set whose images they are asked about too; see `other_images`.

  Raises:
    FileNotFoundError: the run has not trained its shadow models.
    ValueError: they are of a procedure of the user's own, which have to be trained again.
    ArtifactError: the workdir is in use, or something in it is damaged.
  """
  beside = [other_images(experiment, others) for experiment in experiments] if others else []
  missing = []
  for experiment in experiments:
    record = shadow_audit_of(experiment).shadow_queries
    if store.is_done(record):
      continue
    if not isinstance(record, ShadowQueries):
      raise ValueError(
        f"There is no record of T = {experiment.purification.step}, and shadow models of a "
        "procedure of your own are not kept: run diffence with --config.purify.step first."
      )
    store.open(record.shadow)
    missing.append(experiment)
  beside = [stage for stage in beside if not store.is_done(stage)]
  if missing or beside:
    with private_files(), locked(store.workdir):
      for experiment in missing:
        compute(experiment, store, (ShadowQueries.name,))
      for stage in beside:
        compute_stages({stage.name: stage}, store, experiments[0].settings.compute)


@usual_jax()
def measure_grid(
  experiments: Sequence[Experiment],
  store: Store,
  groups: Sequence[str] = ("target",),
  others: str | None = None,
) -> dict[str, tuple[FrontierRow, ...]]:
  """`measure_frontier` of several experiments; what draws no candidates is measured once.

  Args:
    experiments: as `plan_grid` makes them, recorded.
    store: as `measure_frontier` takes it.
    groups: as above.
    others: as `record_grid` took it.

  Returns:
    A group to its rows; where there are several experiments, names tell T and N.
  """
  rows = {group: [] for group in groups}
  for experiment in experiments:
    still = {row.name for row in rows[groups[0]] if row.drawing is None}
    measured = measure_frontier(experiment, store, groups, leave_out=still, others=others)
    for group, of_group in measured.items():
      rows[group] += of_group if len(experiments) == 1 else map(_named, of_group)
  return {group: tuple(of_group) for group, of_group in rows.items()}


def _named(row):
  """A row whose name tells how its candidates are drawn."""
  if row.drawing is None:
    return row
  step, num_candidates = row.drawing
  return dataclasses.replace(row, name=f"{row.name}, T={step}, N={num_candidates}")


@usual_jax()
def measure_frontier(
  experiment: Experiment,
  store: Store,
  groups: Sequence[str] = ("target",),
  leave_out: Collection[str] = (),
  others: str | None = None,
) -> dict[str, tuple[FrontierRow, ...]]:
  """Measures all policies on the record of a finished audit.

  Args:
    experiment: as `plan` makes it.
    store: as `open_store` makes it.
    groups: "target", the samples that reports are about; "known", those that policies were
      fitted on.
    leave_out: names of rows that are not wanted.
    others: a data set that images are told from by how sure the answers are, recorded.

  Returns:
    A group to its rows.

  Raises:
    FileNotFoundError: the audit is not finished.
    ValueError: the config trains no shadow models, or there are too few samples or models.
    ArtifactError: an artifact is damaged.
  """
  stage = shadow_audit_of(experiment)
  predictors = compared_predictors(experiment.settings, stage.predictors[0])
  # Before anything is computed: all that is read.
  needed = [stage.shadow_queries.shadow, stage.shadow_queries]
  read_others = None
  if others:
    beside = other_images(experiment, others)
    needed.append(beside)
    read_others = lambda model: beside.load_model(store, model)
  for artifact in needed:
    store.open(artifact)
  pool = stage.pool
  samples = {"target": pool.reported(stage.protocol), "known": pool.is_known & ~pool.is_canary}
  chosen = {group: samples[group] for group in groups}
  attacks = [ATTACKS.choose(name) for name in ATTACKS_IN_TURN]
  rows = {group: [] for group in groups}
  drawing = drawing_of(experiment)
  ensemble_of = lambda predictor: dataclasses.replace(stage, predictors=(predictor,)).ensemble(
    store
  )
  attacked = {}  # what comes out where a policy is undone is the same for many
  for predictor in predictors:
    if predictor.name in leave_out:
      continue
    # One at a time: what is read off all models' answers stays in memory.
    other = undone(predictor)
    comes_out = other and (other.policy.name, tuple(sorted(other.policy.options.items())))
    if comes_out not in attacked:
      attacked[comes_out] = other and score_all(ensemble_of(other), attacks, other.name, chosen)
    measured = frontier_row(
      ensemble_of(predictor), predictor, attacks, chosen, drawing, read_others,
      undone=attacked[comes_out],
    )  # fmt: skip
    for group, row in measured.items():
      rows[group].append(row)
  return {group: tuple(of_group) for group, of_group in rows.items()}


def finish_choice(
  config: ConfigDict, row: FrontierRow, experiment: Experiment, store: Store
) -> FinishedRun:
  """The run that answers as a row does, its policy fitted on known samples.

  Args:
    config: as `plan_grid` takes it.
    row: of the frontier.
    experiment: one that `plan_grid` made of the config.
    store: as `open_store` makes it; what the target answers is recorded if it is not yet.
  """
  drawing = row.drawing or drawing_of(experiment)
  chosen = _redrawn(config, drawing, experiment.queries.num_recorded)
  chosen.purify.policies = (row.policy,)
  chosen.policies[option_key(row.policy)] = ConfigDict(dict(row.options))
  experiment = plan(chosen, experiment.dataset)
  if not store.is_done(experiment.queries):
    with private_files(), locked(store.workdir):
      compute(experiment, store, (Queries.name,))
  return FinishedRun(experiment, store)


def shadow_audit_of(experiment: Experiment) -> ShadowAudit:
  """The stage of an experiment's attacks with shadow models.

  Raises:
    ValueError: it has none.
  """
  num_models = experiment.settings.shadow.num_models
  if experiment.shadow_audit is None:
    raise ValueError(
      f"shadow.num_models is {num_models}; the frontier is about every shadow model in turn: "
      "expected at least 6, as configs/digits.py:audit has, and a finished run."
    )
  return experiment.shadow_audit
