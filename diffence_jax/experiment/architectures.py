"""Saved models that a config names by their folders, in the place of trained ones."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffence_jax.data import Dataset
from diffence_jax.diffusion import linear_schedule
from diffence_jax.experiment.sections import Settings
from diffence_jax.experiment.stages.network import SavedModel, find_saved_model
from diffence_jax.models.saved import Manifest
from diffence_jax.named import defaults_of

# Section to the role that its saved model must have.
_ROLES = {"classifier": "classifier", "diffusion": "denoiser"}


def resolve(settings: Settings, dataset: Dataset) -> tuple[Settings, Mapping[str, SavedModel]]:
  """Takes the architectures from the saved models that the config names.

  Args:
    settings: all of them.
    dataset: the images that the models are for.

  Returns:
    The settings, with `model` and `fields` of "classifier" and "diffusion" those of the saved
    models, `diffusion.schedule` that of its saved model where that is known, and
    `diffusion.image_shape` set where the network is for other channels than the images have;
    and section to saved model, where there is one.

  Raises:
    FileNotFoundError: there is no such saved model.
    ValueError: a saved model is damaged, or is not for this.
  """
  saved_models = {}
  for name, role in _ROLES.items():
    network = getattr(settings, name)
    if not network.saved_model:
      continue
    saved_models[name] = find_saved_model(name, network.saved_model, role, network.model)
    manifest = saved_models[name].manifest
    fields = dict(manifest.fields)
    given = fields.pop("num_classes" if name == "classifier" else "out_channels")
    changed = {"model": saved_models[name].model or manifest.name, "fields": fields}
    if name == "classifier":
      _check_classifier(settings, manifest, given, dataset)
      _check_normalisation(settings, fields)
    else:
      changed |= {
        "image_shape": _image_shape(settings, given, dataset),
        "schedule": _schedule(settings, manifest),
      }
    settings = dataclasses.replace(settings, **{name: dataclasses.replace(network, **changed)})
  return settings, saved_models


def _check_classifier(
  settings: Settings, manifest: Manifest, num_classes: int, dataset: Dataset
):
  path = settings.classifier.saved_model
  if num_classes != dataset.num_classes:
    raise ValueError(
      f"The classifier in {path} tells {num_classes} classes apart, and the data have "
      f"{dataset.num_classes}."
    )
  if manifest.image_channels != dataset.images.shape[-1]:
    raise ValueError(
      f"The classifier in {path} is for images of {manifest.image_channels} channels, and the "
      f"data have {dataset.images.shape[-1]}."
    )
  check_fixed(settings, "saved_model")


def check_fixed(settings: Settings, name: str) -> None:
  """Raises ValueError where settings do not go with a target that is trained already.

  Args:
    settings: all of them.
    name: of the setting of the classifier that names the target.
  """
  classifier = settings.classifier
  if not settings.data.index_file:
    raise ValueError(
      f"classifier.{name} is {getattr(classifier, name)}, and nothing says which samples it "
      "was trained on; name them in data.index_file."
    )
  if classifier.defense != "undefended":
    raise ValueError(
      f"classifier.defense is {classifier.defense!r}, and classifier.{name} names a trained "
      "classifier, which is taken as it is; leave one of them out."
    )
  if settings.shadow.num_canaries:
    raise ValueError(
      "shadow.num_canaries asks for canaries that the target is trained on, and "
      f"classifier.{name} names one that is trained already; set it to 0."
    )


def _image_shape(settings: Settings, channels: int, dataset: Dataset) -> tuple[int, ...]:
  """(H,W,C) of the images that the network is for; () for that of the data."""
  diffusion = settings.diffusion
  if not diffusion.image_shape and channels != dataset.images.shape[-1]:
    return (*dataset.images.shape[1:3], channels)
  if diffusion.image_shape and channels != diffusion.image_shape[-1]:
    raise ValueError(
      f"diffusion.image_shape is {tuple(diffusion.image_shape)}, and the network in "
      f"{diffusion.saved_model} is for images of {channels} channels."
    )
  return diffusion.image_shape


def _schedule(settings: Settings, manifest: Manifest) -> Mapping[str, Any]:
  """The noise schedule: the saved model's, or where that is not known the config's."""
  asked, saved = settings.diffusion.schedule, manifest.schedule
  if saved is None:
    return asked
  if asked not in (saved, defaults_of(linear_schedule, 0)):
    raise ValueError(
      f"diffusion.schedule is {dict(asked)}, and the network in "
      f"{settings.diffusion.saved_model} is for another one: {_shown(saved)}. "
      "Leave it out; the saved model's is taken."
    )
  return saved


def _shown(schedule: Mapping[str, Any]) -> str:
  """A schedule in words, without its numbers where these are one a step."""
  return ", ".join(
    f"{name} {f'({len(value)} numbers)' if isinstance(value, list) else value}"
    for name, value in schedule.items()
  )


def _check_normalisation(settings: Settings, fields: Mapping) -> None:
  """Its weights do not tell what a classifier was trained with: the config is not overruled."""
  for name in ("mean", "std"):
    asked, saved = settings.classifier.fields.get(name), fields.get(name)
    if asked is None or saved is None:
      continue
    channels = max(len(asked), len(saved))
    # One number is for all channels.
    asked, saved = (tuple(v) * channels if len(v) == 1 else tuple(v) for v in (asked, saved))
    if asked != saved:
      raise ValueError(
        f"classifier.fields.{name} is {asked}, and the saved model "
        f"{settings.classifier.saved_model} has {saved}. Import it again with "
        f"--set {name}=..., or set classifier.fields.{name} to what it was trained with."
      )
