"""An experiment from its config to its stages; nothing is computed.

data - split -+- classifier -+- queries - shadow models - audit - report
+- diffusion --+- samples ------------------------^
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from diffence_jax import data
from diffence_jax.attacks.attack import ATTACKS, declaration_of
from diffence_jax.audit.pool import Pool
from diffence_jax.audit.predictors import Predictor, answers_defense, policy_title
from diffence_jax.data import SOURCES, Dataset, Split
from diffence_jax.defense.candidates import check_settings
from diffence_jax.defense.output import OUTPUT_DEFENSES
from diffence_jax.defense.policy import POLICIES, UNDEFENDED
from diffence_jax.diffusion.sampler import ddim_timesteps
from diffence_jax.experiment.config import Settings, validate
from diffence_jax.experiment.purification import Purification
from diffence_jax.experiment.samples import Samples, draw_canaries, make_pool, samples_of
from diffence_jax.experiment.saved import resolve
from diffence_jax.experiment.stage import Stage
from diffence_jax.experiment.stages.audit import Audit
from diffence_jax.experiment.stages.classifier import (
  SavedClassifier,
  TrainedClassifier,
  Training,
)
from diffence_jax.experiment.stages.diffusion import SavedDiffusion, TrainedDiffusion
from diffence_jax.experiment.stages.label_only import LabelOnly
from diffence_jax.experiment.stages.queries import Queries
from diffence_jax.experiment.stages.samples import SampleImages
from diffence_jax.experiment.stages.shadow_audit import ShadowAudit
from diffence_jax.experiment.stages.shadow_models import ShadowModel, ShadowModels
from diffence_jax.experiment.stages.shadow_queries import (
  NearDuplicates,
  ShadowQueries,
  TargetQueries,
)
from diffence_jax.experiment.stages.split import SplitStage
from diffence_jax.named import Choice, section
from diffence_jax.training.registry import DEFENSES


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
  """An experiment before anything is computed.

  Attributes:
    settings: all of them, with the architectures of saved models filled in.
    dataset: the images, in memory or on disk.
    split: who is a member.
    left_out: attack to what it needs and the experiment has not.
    classifier: the target.
    diffusion: the diffusion model.
    queries: the target's answers.
    samples: images to look at.
    shadow_audit: attacks with shadow models; None without.
    audit: all attacks.
    stages: name to stage, these and all others, in the order they run.
  """

  settings: Settings
  dataset: Dataset
  split: Split
  left_out: Mapping[str, tuple[str, ...]]
  classifier: TrainedClassifier | SavedClassifier
  diffusion: TrainedDiffusion | SavedDiffusion
  queries: Queries
  samples: SampleImages
  shadow_audit: ShadowAudit | None
  audit: Audit
  stages: Mapping[str, Stage]

  @property
  def purification(self) -> Purification:
    """How images are re-generated."""
    return self.queries.purification


def plan(config: ConfigDict | Mapping[str, Any], dataset: Dataset | None = None) -> Experiment:
  """Validates the config, loads the data and names every stage, without computing any.

  Args:
    config: as a file in `configs/` makes it, or a mapping of what differs from
      `config.base_config()`.
    dataset: what the config's source loads, where it is loaded already.

  Returns:
    The experiment.

  Raises:
    ValueError: a setting or the data are not right.
    FileNotFoundError: the data are not there.
  """
  settings = validate(config)
  if dataset is None:
    dataset = data.load(SOURCES.choose(settings.data.source, settings.data.options))
  settings, saved = resolve(settings, dataset)
  seed, shadow = settings.seed, settings.shadow
  split = _split(settings, dataset)
  groups = {name: samples_of(dataset, ids) if len(ids) else Samples(dataset, ids, ids)
            for name, ids in split.groups().items()}  # fmt: skip
  if shadow.num_canaries > len(split.reference):
    raise ValueError(
      f"shadow.num_canaries is {shadow.num_canaries} and the split has "
      f"{len(split.reference)} reference samples; raise data.num_reference."
    )
  canaries = draw_canaries(dataset, split.reference, shadow.num_canaries, seed)
  pool = make_pool(dataset, split, canaries)
  members = samples_of(dataset, split.members)
  trained = canaries.take(canaries.is_member)
  members = members.join(Samples(dataset, trained.ids, trained.labels))
  training = _training(settings, groups["reference"], len(members))

  splits = SplitStage(groups)
  if "classifier" in saved:
    classifier = SavedClassifier(saved["classifier"], members)
  else:
    classifier = TrainedClassifier(training, members, seed)
  diffusion = _diffusion(settings, dataset, groups, saved)
  purification = _purification(settings)
  asked = Samples(dataset, pool.natural.ids, pool.natural.labels)
  recording = {
    "diffusion": diffusion,
    "purification": purification,
    "num_recorded": shadow.num_recorded or settings.purify.num_candidates,
    "seed": seed,
  }
  queries = Queries(samples=asked, classifier=classifier, **recording)
  samples = SampleImages(
    diffusion,
    purification,
    shown=_shown(dataset, split, settings.samples.num_images),
    **dataclasses.asdict(settings.samples),
    seed=seed,
  )
  attacks, left_out = _attacks(settings, pool)
  judged = {
    "queries": queries,
    "predictors": _predictors(settings),
    "output": _output(settings),
    "protocol": settings.audit.protocol,
    "num_candidates": settings.purify.num_candidates,
    "seed": seed,
  }
  shadow_audit, shadow_stages = None, []
  if shadow.num_models:
    shadow_training = _training(settings, groups["reference"], -(-len(pool.ids) // 2))
    shadow_stages = _shadow_stages(
      settings, Samples(dataset, pool.ids, pool.labels), asked, shadow_training, classifier,
      recording,
    )  # fmt: skip
    shadow_audit = _shadow_audit(settings, pool, attacks, judged, shadow_stages)
  label_only = _label_only(settings, classifier, asked, pool.natural, attacks)
  audit = Audit(
    pool=pool.natural,
    samples=asked,
    label_only=label_only,
    shadow_audit=shadow_audit,
    attacks=attacks,
    **judged,
  )
  ordered = [splits, classifier, diffusion, queries, samples, *shadow_stages, shadow_audit]
  ordered = [stage for stage in (*ordered, label_only, audit) if stage is not None]
  experiment = Experiment(
    settings, dataset, split, left_out, classifier, diffusion, queries, samples, shadow_audit,
    audit, {stage.name: stage for stage in ordered},
  )  # fmt: skip
  _check(experiment)
  return experiment


def _split(settings: Settings, dataset: Dataset) -> Split:
  own = settings.data
  if own.index_file:
    return data.read_index_file(own.index_file, dataset, seed=settings.seed)
  names = ("num_members", "num_nonmembers", "num_reference", "known_fraction",
           "nonmembers_from")  # fmt: skip
  with section("data", names):
    chosen = {name: getattr(own, name) for name in names}
    return data.make_split(dataset, seed=settings.seed, **chosen)


def _training(settings: Settings, reference: Samples, num_members: int) -> Training:
  """How classifiers of so many members are trained."""
  own, num_canaries = settings.classifier, settings.shadow.num_canaries
  defense = DEFENSES.choose(own.defense, settings.options("defenses", own.defense))
  training = Training(own.model, own.fields, defense, own.settings(num_members), None)
  with section("classifier", [field.name for field in dataclasses.fields(own)]):
    recipe = training.recipe(reference.num_classes)
  if not recipe.needs_reference:
    return training
  if len(reference) <= num_canaries:
    raise ValueError(
      f"{own.defense} trains with the reference samples, and the split has none besides "
      "canaries; raise data.num_reference."
    )
  return dataclasses.replace(training, reference=reference.take(slice(num_canaries, None)))


def _diffusion(settings, dataset, groups, saved) -> TrainedDiffusion | SavedDiffusion:
  own = settings.diffusion
  if "diffusion" in saved:
    return SavedDiffusion(saved["diffusion"])
  trained_on = groups["reference"]
  if own.trained_on == "members":
    trained_on = groups["known_members"].join(groups["target_members"])
  if not len(trained_on):
    raise ValueError(
      "diffusion.trained_on is 'reference' and the split has no reference samples; raise "
      "data.num_reference."
    )
  return TrainedDiffusion(
    own.model,
    own.fields,
    own.schedule,
    tuple(own.image_shape) or dataset.images.shape[1:],
    own.settings,
    trained_on,
    own.trained_on,
    settings.seed,
  )


def _purification(settings: Settings) -> Purification:
  own = settings.purify
  return Purification(
    schedule=settings.diffusion.schedule,
    step=own.step,
    num_ddim_steps=own.num_ddim_steps,
    respacing=own.respacing,
    clip=own.clip,
    to_clean=own.to_clean,
    dtype=own.dtype,
    model_shape=tuple(settings.diffusion.image_shape) or None,
  )


def _shown(dataset: Dataset, split: Split, num_images: int) -> Samples:
  """Targets of both sides, to re-generate and look at."""
  half = -(-num_images // 2)
  return samples_of(
    dataset, np.concatenate([split.target_members[:half], split.target_nonmembers[:half]])
  )


def _output(settings: Settings) -> Choice | None:
  name = settings.output.defense
  if name == "none":
    return None
  return OUTPUT_DEFENSES.choose(name, settings.options("defenses", name))


def _predictors(settings: Settings) -> tuple[Predictor, ...]:
  """One for each policy, the undefended one first, with names of their own."""
  is_bare = (settings.classifier.defense, settings.output.defense) == ("undefended", "none")
  found = [Predictor("undefended" if is_bare else "alone", POLICIES.choose(UNDEFENDED))]
  for name in settings.purify.policies:
    if name == UNDEFENDED:
      continue
    chosen = name
    if settings.audit.protocol == "paper" and f"{name}_published" in POLICIES.known:
      chosen = f"{name}_published"
    policy = POLICIES.choose(chosen, settings.options("policies", chosen))
    found.append(Predictor(policy_title(chosen), policy))
  names = [predictor.name for predictor in found]
  for name in names:
    if names.count(name) > 1:
      raise ValueError(
        f"purify.policies is {settings.purify.policies}; two of them are called {name!r}."
      )
  return tuple(found)


def _attacks(
  settings: Settings, pool: Pool
) -> tuple[tuple[Choice, ...], dict[str, tuple[str, ...]]]:
  """The attacks that can be run, the gap attack first; and what the others lack."""
  found, left_out = [], {}
  for name in dict.fromkeys(("correctness", *settings.audit.attacks)):
    choice = ATTACKS.choose(name, settings.options("attacks", name))
    declared, lacking = declaration_of(name), []
    if "shadows" in declared.needs and not settings.shadow.num_models:
      lacking.append("shadow models (shadow.num_models)")
    if "ask" in declared.needs and not settings.audit.num_label_only:
      lacking.append("many queries about single images (audit.num_label_only)")
    sides = [len(rows) for rows in pool.known()]
    if "known" in declared.needs and min(sides) < declared.least_known:
      raise ValueError(
        f"The attack {name!r} needs at least {declared.least_known} known members and as many "
        f"known non-members, and the split has {sides[0]} and {sides[1]}; leave it out of "
        "audit.attacks, or raise data.num_members and data.num_nonmembers."
      )
    if lacking:
      left_out[name] = tuple(lacking)
    else:
      found.append(choice)
  return tuple(found), left_out


def _label_only(settings, classifier, asked, pool, attacks) -> LabelOnly | None:
  asking = tuple(c for c in attacks if "ask" in declaration_of(c.name).needs)
  if not asking:
    return None
  groups = [pool.is_known == known for known in (True, False)]
  rows = np.sort(np.concatenate([
    np.flatnonzero(known & side)[: settings.audit.num_label_only]
    for known in groups for side in (pool.is_member, ~pool.is_member)
  ]))  # fmt: skip
  return LabelOnly(classifier, asked.take(rows), pool.take(rows), asking, settings.seed)


def _shadow_stages(settings, pool, asked, training, classifier, recording) -> list[Stage]:
  """The shadow models, and what they and the target are asked."""
  own = settings.shadow
  shadow = ShadowModels(
    tuple(
      ShadowModel(training, pool, number, settings.seed) for number in range(own.num_models)
    )
  )
  found = [
    shadow,
    ShadowQueries(samples=pool, shadow=shadow, augmentation=own.augmentation, **recording),
  ]
  target = {**recording, "samples": asked, "classifier": classifier}
  if own.augmentation != "none":
    # Else the target's record is that of the stage "queries".
    found.append(TargetQueries(augmentation=own.augmentation, **target))
  if own.near_duplicates:
    one_each = {**target, "num_recorded": 1}
    found.append(NearDuplicates(num_queries=max(own.queries), **one_each))
  return found


def _shadow_audit(settings, pool, attacks, judged, stages: Sequence[Stage]) -> ShadowAudit:
  own = settings.shadow
  by_name = {stage.name: stage for stage in stages}
  main = ATTACKS.choose(own.main_attack, settings.options("attacks", own.main_attack))
  declared = declaration_of(main.name)
  if not declared.in_turn:
    raise ValueError(
      f"shadow.main_attack is {main.name!r}, which is not run with every model in turn; "
      "expected another, such as 'lira_online'."
    )
  declared = {choice.name: declaration_of(choice.name) for choice in attacks}
  used = [c for c in attacks if declared[c.name].in_turn or "shadows" in declared[c.name].needs]
  if main.name not in declared:
    used.append(main)
  return ShadowAudit(
    pool=pool,
    shadow_queries=by_name[ShadowQueries.name],
    target_queries=by_name.get(TargetQueries.name),
    near_duplicates=by_name.get(NearDuplicates.name),
    attacks=tuple(used),
    main_attack=main,
    num_queries=own.queries,
    num_resamples=own.num_resamples,
    **judged,
  )


def _check(experiment: Experiment) -> None:
  """Raises ValueError now for what would fail only after some training."""
  settings, purify = experiment.settings, experiment.purification
  schedule, full = purify.sampler_schedule(), purify.full_schedule()
  with section("purify", [field.name for field in dataclasses.fields(settings.purify)]):
    check_settings(
      schedule,
      experiment.dataset.images.shape[1:],
      settings.purify.num_candidates,
      settings.compute.chunk_size,
      **purify.sampler,
    )
  with section("samples", ("num_ddim_steps",)):
    ddim_timesteps(full.num_steps - 1, settings.samples.num_ddim_steps)
  answers_defense(experiment.audit.output, settings.seed, "target")
  # Shapes that do not fit are errors here.
  _ = experiment.classifier.bound, experiment.diffusion.bound
  _check_batches(experiment)


def _check_batches(experiment: Experiment) -> None:
  """Raises ValueError where a batch cannot be split over the devices."""
  settings, num_devices = experiment.settings, jax.local_device_count()
  sizes = {"diffusion": [np.zeros(settings.diffusion.batch_size)], "classifier": []}
  if isinstance(experiment.classifier, TrainedClassifier):
    recipe = experiment.classifier.recipe
    groups = {
      "members": len(experiment.classifier.members),
      "reference": len(experiment.split.reference),
    }
    batches = [next(kind.batches(groups, 0, 0)) for kind in recipe.kinds.values()]
    sizes["classifier"] = [rows for groups in batches for rows in groups.values()]
  for name, own in sizes.items():
    # Batches that are filled up anyway are filled up to a multiple.
    if any(len(rows) % num_devices and rows[-1] >= 0 for rows in own):
      raise ValueError(
        f"{name}.batch_size is {getattr(settings, name).batch_size}; expected a multiple of "
        f"the number of devices, {num_devices}, and for advreg of twice as much."
      )
