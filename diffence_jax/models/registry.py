"""Models by name, or a user's own class as "module:Class", with their fields checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from diffence_jax.models.adm_unet import ADMUNet
from diffence_jax.models.ddpm_unet import DDPMUNet
from diffence_jax.models.densenet121 import DenseNet121
from diffence_jax.models.fields import field_value
from diffence_jax.models.resnet18 import ResNet18
from diffence_jax.models.resnet50 import ResNet50
from diffence_jax.models.small_resnet import SmallResNet
from diffence_jax.models.vgg16_bn import VGG16BN
from diffence_jax.models.vit import ViT
from diffence_jax.named import import_function, source_of, unknown_name

CLASSIFIERS: Mapping[str, type[nn.Module]] = {
  "resnet18": ResNet18,
  "resnet50": ResNet50,
  "densenet121": DenseNet121,
  "vgg16_bn": VGG16BN,
  "vit": ViT,
  "small_resnet": SmallResNet,
}
DENOISERS: Mapping[str, type[nn.Module]] = {"adm_unet": ADMUNet, "ddpm_unet": DDPMUNet}

# Flax adds these, which are no settings.
_FLAX_FIELDS = ("parent", "name")
# What every class of a role has to be told.
NEEDED = {"classifier": "num_classes", "denoiser": "out_channels"}


class OwnModel(str):
  """The name "module:Class" of a user's own class, as a stage's field.

  Attributes:
    fingerprint: the name, and the SHA-256 of the file that the class is imported from.
  """

  fingerprint: str


def versioned(name: str) -> str:
  """A model's name as a stage's field has it, which tells versions of a user's own class apart.

  Args:
    name: a key of `CLASSIFIERS` or `DENOISERS`, or "module:Class".

  Raises:
    ValueError: there is no such class.
  """
  if ":" not in name:
    return name
  model = OwnModel(name)
  model.fingerprint = f"{name} {source_of(name)}"
  return model


def make_classifier(name: str, *, num_classes: int, **fields: Any) -> nn.Module:
  """Builds a classifier.

  Args:
    name: a key of `CLASSIFIERS`, or "module:Class" of a user's own, which has `num_classes`.
    num_classes: classes K.
    **fields: the module's other fields; lists may stand for tuples, a dtype's name for a dtype.

  Returns:
    A module, `(images f32[N,H,W,C] in [0,1], *, train=False) -> logits f32[N,K]`; one of a
    user's own may do without `train`.

  Raises:
    ValueError: no classifier has this name, it has no such field, or one is out of its range;
      a user's own is no class of Flax linen's modules.
  """
  return _make("classifier", CLASSIFIERS, name, {"num_classes": num_classes, **fields})


def make_denoiser(name: str, *, out_channels: int, **fields: Any) -> nn.Module:
  """Builds a noise-prediction network.

  Args:
    name: a key of `DENOISERS`, or "module:Class" of a user's own, which has `out_channels`.
    out_channels: channels C of the images.
    **fields: the module's other fields; lists may stand for tuples, a dtype's name for a dtype.

  Returns:
    A module, `(x f32[N,H,W,C] in model units, t i32[N], *, train=False) -> f32[N,H,W,C]`,
    or f32[N,H,W,2C] where it has learned variances, which come second.

  Raises:
    ValueError: no network has this name, it has no such field, or one is out of its range;
      a user's own is no class of Flax linen's modules.
  """
  return _make("denoiser", DENOISERS, name, {"out_channels": out_channels, **fields})


def build(what: str, name: str, model: type[nn.Module], fields: Mapping[str, Any]) -> nn.Module:
  """Builds a module of a class, with the fields of a config.

  Args:
    what: "classifier" or "denoiser".
    name: of the class, for errors.
    model: the class, one of the registry or a user's own; the ranges of the latter's fields are
      its own business.
    fields: `num_classes` or `out_channels`, and others.

  Raises:
    ValueError: it is no class of Flax linen's modules, has no such field, or one is out of its
      range.
  """
  if not (isinstance(model, type) and issubclass(model, nn.Module)):
    kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
    raise ValueError(f"The {what} {name!r} is {kind}; expected a class of flax.linen.Module.")
  valid = {f.name: f for f in dataclasses.fields(model) if f.name not in _FLAX_FIELDS}
  if (needed := NEEDED[what]) not in valid:
    raise ValueError(
      f"The {what} {name!r} has no field {needed}, which tells it how many there are; add "
      f"`{needed}: int` to the class."
    )
  for field in fields:
    if field not in valid:
      raise unknown_name(f"field of {name!r} called", field, valid)
  is_ours = model in (*CLASSIFIERS.values(), *DENOISERS.values())
  checked = {
    field: field_value(what, name, valid[field], value, in_range=is_ours)
    for field, value in fields.items()
  }
  try:
    return model(**checked)
  except TypeError as error:  # a field without a default that is not given
    raise ValueError(f"The {what} {name!r} cannot be made: {error}.") from error


def _make(
  what: str, models: Mapping[str, type[nn.Module]], name: str, fields: Mapping[str, Any]
) -> nn.Module:
  """Looks up `name` and builds it with `fields`."""
  if ":" not in name and name not in models:
    raise unknown_name(what, name, models)
  return build(what, name, import_function(name) if ":" in name else models[name], fields)
