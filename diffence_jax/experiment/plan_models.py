"""The models of an experiment: how they are trained, and how images are re-generated."""

import dataclasses
from collections.abc import Mapping

from diffence_jax import models
from diffence_jax.data import Dataset
from diffence_jax.experiment.architectures import check_fixed
from diffence_jax.experiment.purification import Purification
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.sections import Settings
from diffence_jax.experiment.stages.classifier import (
  SavedClassifier,
  TrainedClassifier,
  Training,
)
from diffence_jax.experiment.stages.diffusion import SavedDiffusion, TrainedDiffusion
from diffence_jax.experiment.stages.host_classifier import FixedClassifier, ProcedureClassifier
from diffence_jax.experiment.stages.network import SavedModel
from diffence_jax.experiment.stages.target import Target
from diffence_jax.named import Choice, section
from diffence_jax.training.procedure import PREDICTORS, PROCEDURES, choose_function
from diffence_jax.training.registry import DEFENSES


def plan_procedure(settings: Settings) -> Choice | None:
  """What trains classifiers in another framework; None where networks of Flax are trained.

  Raises:
    ValueError: a setting of the classifier does not go with it.
  """
  classifier = settings.classifier
  if not classifier.train:
    return None
  if classifier.defense != "undefended":
    raise ValueError(
      f"classifier.defense is {classifier.defense!r}, which trains networks of Flax, and "
      f"classifier.train names {classifier.train}; leave one of them out. A defense of its "
      "training is the procedure's business."
    )
  return choose_function(
    PROCEDURES, "classifier.train", classifier.train, classifier.train_options
  )


def plan_classifier(
  settings: Settings, reference: Samples, members: Samples, saved: SavedModel | None
) -> Target:
  """The target.

  Args:
    settings: the experiment's.
    reference: the reference samples; some defenses train with them.
    members: what it is trained on.
    saved: the model of `classifier.saved_model`, if there is one.

  Raises:
    ValueError: a setting is not right, or two of them name a target.
  """
  classifier = settings.classifier
  if classifier.saved_model and classifier.predictor:
    raise ValueError(
      "classifier.saved_model and classifier.predictor both name a target; leave one out."
    )
  procedure = plan_procedure(settings)
  if saved is not None:
    return SavedClassifier(saved, members)
  if classifier.predictor:
    check_fixed(settings, "predictor")
    name, options = classifier.predictor, classifier.predictor_options
    return FixedClassifier(
      choose_function(PREDICTORS, "classifier.predictor", name, options), members
    )
  if procedure is not None:
    return ProcedureClassifier(procedure, members, settings.seed)
  training = plan_training(settings, reference, len(members))
  return TrainedClassifier(training, members, settings.seed)


def plan_training(settings: Settings, reference: Samples, num_members: int) -> Training:
  """How classifiers are trained.

  Args:
    settings: the experiment's.
    reference: the reference samples; some defenses train with them.
    num_members: how many members each is trained on.

  Raises:
    ValueError: a setting is not right, or the defense lacks reference samples.
  """
  classifier, num_canaries = settings.classifier, settings.shadow.total_canaries
  defense = DEFENSES.choose(
    classifier.defense, settings.options("defenses", classifier.defense)
  )
  training = Training(
    models.versioned(classifier.model),
    classifier.fields,
    defense,
    classifier.settings(num_members),
    None,
  )
  with section("classifier", [field.name for field in dataclasses.fields(classifier)]):
    recipe = training.recipe(reference.num_classes)
  if not recipe.needs_reference:
    return training
  if len(reference) <= num_canaries:
    raise ValueError(
      f"{classifier.defense} trains with the reference samples, and the split has none besides "
      "canaries; raise data.num_reference."
    )
  return dataclasses.replace(training, reference=reference.take(slice(num_canaries, None)))


def plan_diffusion(
  settings: Settings,
  dataset: Dataset,
  groups: Mapping[str, Samples],
  saved: SavedModel | None,
) -> TrainedDiffusion | SavedDiffusion:
  """The diffusion model.

  Args:
    settings: the experiment's.
    dataset: the experiment's; its image shape is the model's unless the settings name one.
    groups: group of the split to its samples.
    saved: the model of `diffusion.from_export`; None trains one.

  Raises:
    ValueError: it is to be trained on reference samples and there are none.
  """
  if saved is not None:
    return SavedDiffusion(saved)
  diffusion = settings.diffusion
  trained_on = groups["reference"]
  if diffusion.trained_on == "members":
    trained_on = groups["known_members"].join(groups["target_members"])
  if not len(trained_on):
    raise ValueError(
      "diffusion.trained_on is 'reference' and the split has no reference samples; raise "
      "data.num_reference."
    )
  return TrainedDiffusion(
    models.versioned(diffusion.model),
    diffusion.fields,
    diffusion.schedule,
    tuple(diffusion.image_shape) or dataset.images.shape[1:],
    diffusion.settings,
    trained_on,
    diffusion.trained_on,
    settings.seed,
  )


def plan_purification(settings: Settings) -> Purification:
  """How candidates are made."""
  purify = settings.purify
  return Purification(
    schedule=settings.diffusion.schedule,
    step=purify.step,
    num_ddim_steps=purify.num_ddim_steps,
    respacing=purify.respacing,
    clip=purify.clip,
    to_clean=purify.to_clean,
    dtype=purify.dtype,
    model_shape=tuple(settings.diffusion.image_shape) or None,
  )
