"""An experiment from its config to its stages; nothing is computed.

data - split -+- classifier -+- queries - shadow models - audit - report
+- diffusion --+- samples ------------------------^
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from diffence_jax import data, models
from diffence_jax.audit.pool import Pool
from diffence_jax.audit.predictors import answers_defense, is_served
from diffence_jax.data import SOURCES, Dataset, Split
from diffence_jax.defense.candidates import check_settings
from diffence_jax.defense.policy import headline
from diffence_jax.diffusion.sampler import ddim_timesteps
from diffence_jax.experiment.architectures import resolve
from diffence_jax.experiment.config import validate
from diffence_jax.experiment.plan_audit import (
  plan_attacks,
  plan_canaries,
  plan_label_only,
  plan_optimised,
  plan_output,
  plan_predictors,
  plan_shadow_audit,
  plan_shadow_stages,
)
from diffence_jax.experiment.plan_models import (
  plan_classifier,
  plan_diffusion,
  plan_purification,
)
from diffence_jax.experiment.purification import Purification
from diffence_jax.experiment.samples import (
  Samples,
  draw_canaries,
  make_pool,
  samples_of,
  with_canaries,
)
from diffence_jax.experiment.sections import Settings
from diffence_jax.experiment.stage import Stage
from diffence_jax.experiment.stages.audit import Audit
from diffence_jax.experiment.stages.classifier import TrainedClassifier
from diffence_jax.experiment.stages.diffusion import SavedDiffusion, TrainedDiffusion
from diffence_jax.experiment.stages.host_classifier import HostClassifier
from diffence_jax.experiment.stages.inference_time import InferenceTime
from diffence_jax.experiment.stages.optimised_audit import OptimisedAudit
from diffence_jax.experiment.stages.queries import Queries
from diffence_jax.experiment.stages.sample_images import SampleImages
from diffence_jax.experiment.stages.shadow_audit import ShadowAudit
from diffence_jax.experiment.stages.split import SplitStage
from diffence_jax.experiment.stages.target import Target
from diffence_jax.named import section

# Images whose answers are timed.
_TIMED_IMAGES = 64


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
    optimised: attacks by optimised queries; None without.
    audit: all attacks.
    inference_time: what an answer takes; None where no policy is audited.
    stages: name to stage, these and all others, in the order they run.
  """

  settings: Settings
  dataset: Dataset
  split: Split
  left_out: Mapping[str, tuple[str, ...]]
  classifier: Target
  diffusion: TrainedDiffusion | SavedDiffusion
  queries: Queries
  samples: SampleImages
  shadow_audit: ShadowAudit | None
  optimised: OptimisedAudit | None
  audit: Audit
  inference_time: InferenceTime | None
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
  seed, split = settings.seed, _split(settings, dataset)
  groups = {name: samples_of(dataset, ids) for name, ids in split.groups().items()}
  pool, everyone, members = _pool_and_members(settings, dataset, split)
  asked = Samples(dataset, pool.natural.ids, pool.natural.labels)
  classifier = plan_classifier(settings, groups["reference"], members, saved.get("classifier"))
  diffusion = plan_diffusion(settings, dataset, groups, saved.get("diffusion"))
  purification = plan_purification(settings)
  recording = {
    "diffusion": diffusion,
    "purification": purification,
    "num_recorded": settings.shadow.num_recorded or settings.purify.num_candidates,
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
  attacks, left_out = plan_attacks(settings, pool)
  judged = {
    "queries": queries,
    "predictors": plan_predictors(settings),
    "output": plan_output(settings),
    "protocol": settings.audit.protocol,
    "num_candidates": settings.purify.num_candidates,
    "seed": seed,
  }
  shadow_stages = plan_shadow_stages(settings, everyone, asked, groups, classifier, recording)
  shadow_audit = plan_shadow_audit(settings, pool, attacks, judged, shadow_stages)
  optimised = plan_optimised(settings, asked, classifier, recording, shadow_audit)
  label_only = plan_label_only(
    settings, classifier, asked, pool.natural, attacks, shadow_stages
  )
  audit = Audit(
    pool=pool.natural,
    samples=asked,
    label_only=label_only,
    shadow_audit=shadow_audit,
    attacks=attacks,
    **judged,
  )
  inference_time = _inference_time(dataset, split, audit)
  ordered = [SplitStage(groups), classifier, diffusion, queries, samples, *shadow_stages,
             shadow_audit, optimised and optimised.asked, optimised, label_only, audit,
             inference_time]  # fmt: skip
  experiment = Experiment(
    settings, dataset, split, left_out, classifier, diffusion, queries, samples, shadow_audit,
    optimised, audit, inference_time,
    {stage.name: stage for stage in ordered if stage is not None},
  )  # fmt: skip
  _check(experiment)
  return experiment


def _split(settings: Settings, dataset: Dataset) -> Split:
  data_settings = settings.data
  if data_settings.index_file:
    return data.read_index_file(data_settings.index_file, dataset, seed=settings.seed)
  names = ("num_members", "num_nonmembers", "num_reference", "known_fraction",
           "nonmembers_from")  # fmt: skip
  with section("data", names):
    chosen = {name: getattr(data_settings, name) for name in names}
    return data.make_split(dataset, seed=settings.seed, **chosen)


def _pool_and_members(
  settings: Settings, dataset: Dataset, split: Split
) -> tuple[Pool, Samples, Samples]:
  """All that models are asked about, its samples, and those that the target is trained on."""
  shadow = settings.shadow
  if shadow.total_canaries > len(split.reference):
    raise ValueError(
      f"shadow.num_canaries is {shadow.num_canaries} of each of {len(shadow.canaries)} kinds, "
      f"and the split has {len(split.reference)} reference samples; raise data.num_reference."
    )
  kinds = plan_canaries(settings)
  canaries, images = draw_canaries(
    dataset, split.reference, kinds, shadow.num_canaries, settings.seed
  )
  pool = make_pool(dataset, split, canaries)
  everyone = Samples(with_canaries(dataset, pool, images), pool.ids, pool.labels)
  trained = canaries.take(canaries.is_member)
  members = samples_of(everyone.dataset, split.members).join(
    Samples(everyone.dataset, trained.ids, trained.labels)
  )
  return pool, everyone, members


def _shown(dataset: Dataset, split: Split, num_images: int) -> Samples:
  """Targets of both sides, to re-generate and look at."""
  half = -(-num_images // 2)
  return samples_of(
    dataset, np.concatenate([split.target_members[:half], split.target_nonmembers[:half]])
  )


def _inference_time(dataset: Dataset, split: Split, audit: Audit) -> InferenceTime | None:
  served = [predictor for predictor in audit.predictors[1:] if is_served(predictor.name)]
  policy = headline([predictor.policy.name for predictor in served])
  if policy is None:
    return None
  timed = samples_of(dataset, split.target_nonmembers[:_TIMED_IMAGES])
  return InferenceTime(audit, timed, policy)


def _check(experiment: Experiment) -> None:
  """Raises ValueError now for what would fail only after some training."""
  settings, purify = experiment.settings, experiment.purification
  full = purify.full_schedule()
  with section("purify", [field.name for field in dataclasses.fields(settings.purify)]):
    check_settings(
      purify.sampler_schedule(),
      experiment.dataset.images.shape[1:],
      settings.purify.num_candidates,
      settings.compute.chunk_size,
      **purify.sampler,
    )
  with section("samples", ("num_ddim_steps",)):
    ddim_timesteps(full.num_steps - 1, settings.samples.num_ddim_steps)
  answers_defense(experiment.audit.output, settings.seed, "target")
  # Shapes that do not fit are errors here.
  _ = experiment.classifier.num_parameters
  _check_conditional(experiment, purify.network(experiment.diffusion.bound).module)
  _check_batches(experiment)


def _check_conditional(experiment: Experiment, denoiser: nn.Module) -> None:
  """Raises ValueError where a class-conditional diffusion model does not go with the rest."""
  if not models.is_conditional(denoiser):
    return
  if denoiser.num_classes != experiment.dataset.num_classes:
    raise ValueError(
      f"The diffusion model is for {denoiser.num_classes} classes, and the data have "
      f"{experiment.dataset.num_classes}; expected as many (diffusion.fields.num_classes), as "
      "images are re-generated under the label that the classifier predicts."
    )
  if isinstance(experiment.classifier, HostClassifier) or experiment.settings.classifier.train:
    raise ValueError(
      "The diffusion model is class-conditional, and classifier.train or classifier.predictor "
      "is asked outside of JAX, which cannot tell it the label; expected a diffusion model "
      "without classes."
    )
  if experiment.settings.audit.num_optimised:
    raise ValueError(
      "audit.num_optimised asks for queries that are optimised through the diffusion model, "
      "and a class-conditional one re-generates under a label that jumps; set it to 0."
    )


def _check_batches(experiment: Experiment) -> None:
  """Raises ValueError where a batch cannot be split over the devices."""
  settings = experiment.settings
  num_devices = jax.device_count()  # of all processes of a pod
  sizes = {"diffusion": [np.zeros(settings.diffusion.batch_size)], "classifier": []}
  if isinstance(experiment.classifier, TrainedClassifier):
    recipe = experiment.classifier.recipe
    groups = {
      "members": len(experiment.classifier.members),
      "reference": len(experiment.split.reference),
    }
    batches = [next(kind.batches(groups, 0, 0)) for kind in recipe.kinds.values()]
    sizes["classifier"] = [rows for groups in batches for rows in groups.values()]
  for name, of_section in sizes.items():
    # Batches that are filled up anyway are filled up to a multiple.
    if any(len(rows) % num_devices and rows[-1] >= 0 for rows in of_section):
      raise ValueError(
        f"{name}.batch_size is {getattr(settings, name).batch_size}; expected a multiple of "
        f"the number of devices, {num_devices}, and for advreg of twice as much."
      )
