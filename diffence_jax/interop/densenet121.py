"""The state dict of the DenseNet-121 of weiaicunzai/pytorch-cifar100, which Diffence trains."""

import re
from typing import Any

from diffence_jax.interop.layout import Layout, Shapes
from diffence_jax.models.registry import make_classifier

_NUM_STAGES = 4


def _infer_settings(shapes: Shapes) -> dict[str, Any]:
  """Classes, width and layers; the normalisation of the images is not in the weights."""
  layers = [set() for _ in range(_NUM_STAGES)]
  for name in shapes:
    if match := re.match(r"features\.dense_block\D*(\d)\.bottle_neck_layer_(\d+)\.", name):
      layers[int(match[1])].add(match[2])
  return {
    "num_classes": shapes["linear.bias"][0],
    "width": shapes["conv1.weight"][0],
    "stages": tuple(map(len, layers)),
  }


DENSENET121 = Layout(
  make=make_classifier,
  infer_settings=_infer_settings,
  image_channels=lambda module, shapes: shapes["conv1.weight"][1],
  required=("mean", "std"),
  names=(
    (r"^stem_conv$", "conv1"),
    (r"^norm$", "features.bn"),
    (r"^head$", "linear"),
    (r"^transition(\d)_norm$", r"features.transition_layer_\1.down_sample.0"),
    (r"^transition(\d)_conv$", r"features.transition_layer_\1.down_sample.1"),
    # The last block's name is a little different.
    (rf"^stage({_NUM_STAGES - 1})_", r"features.dense_block\1."),
    (r"^stage(\d)_", r"features.dense_block_layer_\1."),
    (r"\.layer(\d+)\.", r".bottle_neck_layer_\1.bottle_neck."),
    (r"\.norm1$", ".0"),
    (r"\.conv1$", ".2"),
    (r"\.norm2$", ".3"),
    (r"\.conv2$", ".5"),
  ),
)
