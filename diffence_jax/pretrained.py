"""Saved models that a config names by their folders, in the place of trained ones."""

from ml_collections import ConfigDict, FrozenConfigDict

from diffence_jax import saved_model
from diffence_jax.artifacts import Stage
from diffence_jax.data import Dataset

# Section to the role that its saved model must have.
_ROLES = {"classifier": "classifier", "diffusion": "denoiser"}


def resolve(config: FrozenConfigDict, dataset: Dataset) -> FrozenConfigDict:
  """Takes the architectures from the saved models that the config names.

  Args:
    config: all settings.
    dataset: the images that the models are for.

  Returns:
    The config, with `model` and `fields` of "classifier" and "diffusion" those of the saved
    models; and `diffusion.image_shape` set where the network is for other channels than the
    images have.

  Raises:
    FileNotFoundError: there is no such saved model.
    ValueError: a saved model is damaged, or is not for this.
  """
  resolved = ConfigDict(config).unlock()
  for section in _ROLES:
    if not config[section].checkpoint:
      continue
    manifest = _manifest(config, section)
    fields = dict(manifest.fields)
    size = "num_classes" if section == "classifier" else "out_channels"
    given = fields.pop(size)
    resolved[section].model = manifest.name
    resolved[section].fields = ConfigDict(fields)
    if section == "classifier":
      _check_classifier(config, manifest, given, dataset)
      _check_normalisation(config, fields)
    elif not config.diffusion.image_shape and given != dataset.images.shape[-1]:
      resolved.diffusion.image_shape = (*dataset.images.shape[1:3], given)
    elif config.diffusion.image_shape and given != config.diffusion.image_shape[-1]:
      raise ValueError(
        f"diffusion.image_shape is {tuple(config.diffusion.image_shape)}, and the network in "
        f"{config.diffusion.checkpoint} is for images of {given} channels."
      )
  return FrozenConfigDict(resolved)


def stage(config: FrozenConfigDict, section: str) -> Stage | None:
  """The stage that stands for a saved model, None where the config names none."""
  if not config[section].checkpoint:
    return None
  return Stage(section, {"saved_model": _manifest(config, section).digest})


def _manifest(config, section):
  path = config[section].checkpoint
  manifest = saved_model.read_manifest(path)
  if manifest.role != _ROLES[section]:
    raise ValueError(
      f"{section}.checkpoint is {path}, the {manifest.role} {manifest.name}; expected a "
      f"{_ROLES[section]}."
    )
  return manifest


def _check_classifier(config, manifest, num_classes, dataset):
  path = config.classifier.checkpoint
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
  if not config.data.index_file:
    raise ValueError(
      f"classifier.checkpoint is {path}, and nothing says which samples it was trained on; "
      "name them in data.index_file."
    )
  if config.classifier.defense != "undefended":
    raise ValueError(
      f"classifier.defense is {config.classifier.defense!r}, and classifier.checkpoint names a "
      "trained classifier, which is taken as it is; leave one of them out."
    )
  if config.shadow.num_canaries:
    raise ValueError(
      "shadow.num_canaries asks for canaries that the target is trained on, and "
      "classifier.checkpoint names one that is trained already; set it to 0."
    )


def _check_normalisation(config, fields):
  """Its weights do not tell what a classifier was trained with: the config is not overruled."""
  for name in ("mean", "std"):
    asked, saved = config.classifier.fields.get(name), fields.get(name)
    if asked is None or saved is None:
      continue
    channels = max(len(asked), len(saved))
    # One number is for all channels.
    asked, saved = (tuple(v) * channels if len(v) == 1 else tuple(v) for v in (asked, saved))
    if asked != saved:
      raise ValueError(
        f"classifier.fields.{name} is {asked}, and the saved model "
        f"{config.classifier.checkpoint} has {saved}. Import it again with "
        f"--set {name}=..., or set classifier.fields.{name} to what it was trained with."
      )
