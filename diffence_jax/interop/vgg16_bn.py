"""The state dict of the VGG-16 with batch normalisation that Diffence trains."""

from typing import Any

from diffence_jax.interop.layout import Layout, Shapes
from diffence_jax.models.registry import make_classifier
from diffence_jax.models.vgg16_bn import VGG16BN


def _infer_settings(shapes: Shapes) -> dict[str, Any]:
  """Classes and width; the normalisation of the images is not in the weights."""
  return {"num_classes": shapes["classifier.bias"][0], "width": shapes["features.0.bias"][0]}


def _feature_names() -> tuple[tuple[str, str], ...]:
  """Layers are numbered in one sequence: convolution, normalisation, ReLU, ...; and pooling."""
  names, position = [], 0
  for stage, num_convs in enumerate(VGG16BN.stages):
    for i in range(num_convs):
      names.append((rf"^stage{stage}_conv{i}$", f"features.{position}"))
      names.append((rf"^stage{stage}_norm{i}$", f"features.{position + 1}"))
      position += 3
    position += 1
  return tuple(names)


VGG16_BN = Layout(
  make=make_classifier,
  infer_settings=_infer_settings,
  image_channels=lambda module, shapes: shapes["features.0.weight"][1],
  required=("mean", "std"),
  names=((r"^head$", "classifier"), *_feature_names()),
)
