"""Models by name, with their fields checked."""

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
from diffence_jax.named import unknown_name

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


def make_classifier(name: str, *, num_classes: int, **fields: Any) -> nn.Module:
  """Builds a classifier.

  Args:
    name: a key of `CLASSIFIERS`.
    num_classes: classes K.
    **fields: the module's other fields; lists may stand for tuples, a dtype's name for a dtype.

  Returns:
    A module, `(images f32[N,H,W,C] in [0,1], *, train=False) -> logits f32[N,K]`.

  Raises:
    ValueError: no classifier has this name, it has no such field, or one is out of its range.
  """
  return _make("classifier", CLASSIFIERS, name, {"num_classes": num_classes, **fields})


def make_denoiser(name: str, *, out_channels: int, **fields: Any) -> nn.Module:
  """Builds a noise-prediction network.

  Args:
    name: a key of `DENOISERS`.
    out_channels: channels C of the images.
    **fields: the module's other fields; lists may stand for tuples, a dtype's name for a dtype.

  Returns:
    A module, `(x f32[N,H,W,C] in model units, t i32[N], *, train=False) -> f32[N,H,W,C]`,
    or f32[N,H,W,2C] where it has learned variances, which come second.

  Raises:
    ValueError: no network has this name, it has no such field, or one is out of its range.
  """
  return _make("denoiser", DENOISERS, name, {"out_channels": out_channels, **fields})


def _make(
  what: str, models: Mapping[str, type[nn.Module]], name: str, fields: Mapping[str, Any]
) -> nn.Module:
  """Looks up `name` and builds it with `fields`."""
  if name not in models:
    raise unknown_name(what, name, models)
  valid = {f.name: f for f in dataclasses.fields(models[name]) if f.name not in _FLAX_FIELDS}
  for field in fields:
    if field not in valid:
      raise unknown_name(f"field of {name!r} called", field, valid)
  checked = {
    field: field_value(what, name, valid[field], value) for field, value in fields.items()
  }
  return models[name](**checked)
