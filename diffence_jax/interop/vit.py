"""The state dict of the vision transformer of early versions of lucidrains/vit-pytorch."""

import math
import re
from typing import Any

from diffence_jax.interop.layout import Layout, Shapes
from diffence_jax.models.registry import make_classifier


def _infer_settings(shapes: Shapes) -> dict[str, Any]:
  """All but heads, dropout and the normalisation of the images, which leave no trace."""
  layers = {
    match[1] for name in shapes if (match := re.match(r"transformer\.layers\.(\d+)\.", name))
  }
  embedding = shapes["to_patch_embedding.1.weight"]
  return {
    "num_classes": shapes["mlp_head.1.bias"][0],
    "width": embedding[0],
    "patch": math.isqrt(embedding[1] // _channels(shapes)),
    "depth": len(layers),
    "attention_width": shapes["transformer.layers.0.0.fn.to_qkv.weight"][0] // 3,
    "mlp_width": shapes["transformer.layers.0.1.fn.net.0.bias"][0],
  }


def _channels(shapes: Shapes) -> int:
  """3 or 1: a patch has patch * patch * channels values, and only one of the two can be."""
  values = shapes["to_patch_embedding.1.weight"][1]
  return 3 if 3 * math.isqrt(values // 3) ** 2 == values else 1


def _image_size(module: Any, shapes: Shapes) -> int:
  """The side of the square images that there are positions for, one of them the class token."""
  return math.isqrt(shapes["pos_embedding"][1] - 1) * module.patch


VIT = Layout(
  make=make_classifier,
  infer_settings=_infer_settings,
  image_channels=lambda module, shapes: _channels(shapes),
  image_size=_image_size,
  required=("mean", "std"),
  untold=("heads",),
  names=(
    (r"^patch_embedding$", "to_patch_embedding.1"),
    (r"^norm$", "mlp_head.0"),
    (r"^head$", "mlp_head.1"),
    (r"^layer(\d+)_attention_norm$", r"transformer.layers.\1.0.norm"),
    (r"^layer(\d+)_attention\.qkv$", r"transformer.layers.\1.0.fn.to_qkv"),
    (r"^layer(\d+)_attention\.out$", r"transformer.layers.\1.0.fn.to_out.0"),
    (r"^layer(\d+)_mlp_norm$", r"transformer.layers.\1.1.norm"),
    (r"^layer(\d+)_mlp1$", r"transformer.layers.\1.1.fn.net.0"),
    (r"^layer(\d+)_mlp2$", r"transformer.layers.\1.1.fn.net.3"),
  ),
)
