"""The state dicts of DenseNet-121s: of weiaicunzai/pytorch-cifar100, which Diffence trains, and
of torchvision, whose stem and transitions are those of the publication.
"""

import re
from collections.abc import Callable
from typing import Any

from diffence_jax.interop.layout import Layout, Shapes
from diffence_jax.models.registry import make_classifier

_NUM_STAGES = 4


def _settings_by(
  conv: str, head: str, layer: str, first: int, **settings: Any
) -> Callable[[Shapes], dict[str, Any]]:
  """What infers the classes, the width and the layers, by one publisher's names.

  Args:
    conv: of the first convolution.
    head: of the linear layer.
    layer: the pattern of a layer's parameters, with the block's number and its own.
    first: the number of the first block.
    **settings: what the names tell.
  """

  def infer_settings(shapes: Shapes) -> dict[str, Any]:
    layers = [set() for _ in range(_NUM_STAGES)]
    for name in shapes:
      if match := re.match(layer, name):
        layers[int(match[1]) - first].add(match[2])
    return {
      "num_classes": shapes[f"{head}.bias"][0],
      "width": shapes[f"{conv}.weight"][0],
      "stages": tuple(map(len, layers)),
      **settings,
    }

  return infer_settings


_TORCHVISION = Layout(
  make=make_classifier,
  infer_settings=_settings_by(
    "features.conv0",
    "classifier",
    r"features\.denseblock(\d)\.denselayer(\d+)\.",
    1,
    stem="large",
  ),
  image_channels=lambda module, shapes: shapes["features.conv0.weight"][1],
  required=("mean", "std"),
  marks=("features.conv0.weight", "classifier.bias"),
  names=(
    (r"^stem_(conv|norm)$", r"features.\g<1>0"),
    (r"^norm$", "features.norm5"),
    (r"^head$", "classifier"),
    *(
      (rf"^transition{number}_(norm|conv)$", rf"features.transition{number + 1}.\1")
      for number in range(_NUM_STAGES - 1)
    ),
    *(
      (rf"^stage{number}_layer", f"features.denseblock{number + 1}.denselayer")
      for number in range(_NUM_STAGES)
    ),
    # Layers are numbered from 1.
    (r"denselayer(\d+)", lambda match: f"denselayer{int(match[1]) + 1}"),
  ),
)

DENSENET121 = Layout(
  make=make_classifier,
  infer_settings=_settings_by(
    "conv1", "linear", r"features\.dense_block\D*(\d)\.bottle_neck_layer_(\d+)\.", 0
  ),
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
  variants=(_TORCHVISION,),
)
