"""The state dicts of ResNet-18s, by the names of three publishers.

Those of weiaicunzai/pytorch-cifar100, which Diffence trains; of torchvision and timm; and of
kuangliu/pytorch-cifar. They are the same network, and so are their deeper ones of the same
blocks, such as ResNet-34. Where the stem is a 7x7 convolution it is pooled, as torchvision's,
where it is a 3x3 one not.
"""

import re
from typing import Any

from diffence_jax.interop.layout import Layout, Shapes
from diffence_jax.models.registry import make_classifier


def _layout(
  stem: tuple[str, str],
  stage: tuple[int, str],
  layers: tuple[str, ...],
  shortcut: str,
  head: str,
  **more: Any,
) -> Layout:
  """The layout by one publisher's names.

  Args:
    stem: of the first convolution and its normalisation.
    stage: the number of the first one, and what its number is put into.
    layers: of a block's convolutions and normalisations, two or three each, in their order.
    shortcut: of a block's shortcut.
    head: of the linear layer.
    **more: further attributes.
  """
  first, prefix = stage
  conv, bias = f"{stem[0]}.weight", f"{head}.bias"

  def infer_settings(shapes: Shapes) -> dict[str, Any]:
    """Classes, width and blocks; the normalisation of the images is not in the weights."""
    size = shapes[conv][2:]
    if size not in ((3, 3), (7, 7), ()):
      raise ValueError(f"{conv} is a convolution of {list(size)}; expected 3x3, or 7x7.")
    blocks: dict[int, set[str]] = {}
    pattern = re.compile(prefix.format(r"(\d+)") + r"\.(\d+)\.")
    for name in shapes:
      if match := pattern.match(name):
        blocks.setdefault(int(match[1]), set()).add(match[2])
    stages = tuple(len(blocks[number]) for number in sorted(blocks))
    return {
      "num_classes": shapes[bias][0],
      "width": shapes[conv][0],
      "stages": stages,
      "stem": "large" if size == (7, 7) else "small",
    }

  return Layout(
    make=make_classifier,
    infer_settings=infer_settings,
    image_channels=lambda module, shapes: shapes[conv][1],
    required=("mean", "std"),
    names=(
      (r"^stem_conv$", stem[0]),
      (r"^stem_norm$", stem[1]),
      (r"^head$", head),
      *(
        (rf"^stage{number}_block(\d+)", rf"{prefix.format(number + first)}.\1")
        for number in range(_MOST_STAGES)
      ),
      *((rf"\.{theirs}$", f".{name}") for theirs, name in zip(_LAYERS, layers, strict=False)),
      (r"\.shortcut_conv$", f".{shortcut}.0"),
      (r"\.shortcut_norm$", f".{shortcut}.1"),
    ),
    **more,
  )


_MOST_STAGES = 8
_LAYERS = ("conv1", "norm1", "conv2", "norm2", "conv3", "norm3")


def resnet_layout(places: tuple[int, ...]) -> Layout:
  """The layout of ResNets of one kind of block, by all publishers' names.

  Args:
    places: of a block's convolutions and normalisations in pytorch-cifar100's sequence.
  """
  theirs = tuple(
    f"{what}{number + 1}" for number in range(len(places) // 2) for what in ("conv", "bn")
  )
  return _layout(
    stem=("conv1.0", "conv1.1"),
    stage=(2, "conv{}_x"),
    layers=tuple(f"residual_function.{place}" for place in places),
    shortcut="shortcut",
    head="fc",
    variants=tuple(
      _layout(
        stem=("conv1", "bn1"),
        stage=(1, "layer{}"),
        layers=theirs,
        shortcut=shortcut,
        head=head,
        marks=(mark, f"{head}.bias"),
      )
      for shortcut, mark in (
        ("shortcut", "layer2.0.shortcut.0.weight"),
        ("downsample", "layer1.0.conv1.weight"),
      )
      for head in ("fc", "linear")
    ),
  )


RESNET18 = resnet_layout((0, 1, 3, 4))
