"""What has to be known of a published PyTorch network to load its weights."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

Shapes = Mapping[str, tuple[int, ...]]


class Layout(NamedTuple):
  """How a published network's state dict maps to one of our modules.

  Attributes:
    make: `make(name, **settings) -> module`, of the model registry.
    infer_settings: `infer_settings(shapes) -> settings`, from the shapes of the state dict by
      name; a KeyError names a parameter that it misses.
    image_channels: `image_channels(module, shapes)`, the channels of the module's images.
    names: (pattern, replacement) pairs that, one after the other, turn our submodule's dotted
      path into PyTorch's; as `re.sub` takes them.
    ignored: what the state dict may hold although it is no weight.
    image_size: `image_size(module, shapes)`, the height and width of images that the weights
      are for; where they are for any, one that will do.
    required: fields that change what is computed and leave no trace in the weights, and that no
      default is likely to be right for: they have to be given.
    untold: more such fields, which have a default.
    marks: of a variant, parameters by which it is known.
    variants: the same network by the names of other publishers.
  """

  make: Callable[..., nn.Module]
  infer_settings: Callable[[Shapes], dict[str, Any]]
  image_channels: Callable[[nn.Module, Shapes], int]
  names: tuple[tuple[str, str | Callable[[re.Match], str]], ...]
  ignored: tuple[str, ...] = ()
  image_size: Callable[[nn.Module, Shapes], int] = lambda module, shapes: 32
  required: tuple[str, ...] = ()
  untold: tuple[str, ...] = ()
  marks: tuple[str, ...] = ()
  variants: tuple["Layout", ...] = ()

  def is_of(self, shapes: Shapes) -> bool:
    """Whether a state dict with these shapes is of this variant."""
    return all(mark in shapes for mark in self.marks)
