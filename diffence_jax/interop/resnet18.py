"""The state dict of the ResNet-18 of weiaicunzai/pytorch-cifar100, which Diffence trains."""

from typing import Any

from diffence_jax.interop.layout import Layout, Shapes
from diffence_jax.models.registry import make_classifier


def _infer_settings(shapes: Shapes) -> dict[str, Any]:
  """Classes and width; the normalisation of the images is not in the weights."""
  return {"num_classes": shapes["fc.bias"][0], "width": shapes["conv1.1.weight"][0]}


RESNET18 = Layout(
  make=make_classifier,
  infer_settings=_infer_settings,
  image_channels=lambda module, shapes: shapes["conv1.0.weight"][1],
  untold=("mean", "std"),
  names=(
    (r"^stem_conv$", "conv1.0"),
    (r"^stem_norm$", "conv1.1"),
    (r"^head$", "fc"),
    *((rf"^stage{stage}_block(\d+)", rf"conv{stage + 2}_x.\1") for stage in range(4)),
    (r"\.conv1$", ".residual_function.0"),
    (r"\.norm1$", ".residual_function.1"),
    (r"\.conv2$", ".residual_function.3"),
    (r"\.norm2$", ".residual_function.4"),
    (r"\.shortcut_conv$", ".shortcut.0"),
    (r"\.shortcut_norm$", ".shortcut.1"),
  ),
)
