"""ResNet-50, of bottlenecks (He et al. 2016)."""

import functools
from typing import Any

import flax.linen as nn
import jax

from diffence_jax.models.layers import conv, norm
from diffence_jax.models.resnet18 import ResNet


class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1 convolutions added to the input, which is projected where shapes differ.

  The 3x3 one has the strides, as in torchvision; in the publication the first one has.
  """

  features: int
  strides: int
  dtype: Any
  norm: str

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N,H,W,C] to [N,H/strides,W/strides,4*features], sizes rounded up."""
    convolve = functools.partial(conv, dtype=self.dtype)
    normed = functools.partial(norm, kind=self.norm, train=train)
    h = nn.relu(normed(convolve(self.features, 1, name="conv1")(x), name="norm1"))
    h = convolve(self.features, 3, strides=self.strides, name="conv2")(h)
    h = convolve(4 * self.features, 1, name="conv3")(nn.relu(normed(h, name="norm2")))
    h = normed(h, name="norm3")
    if self.strides != 1 or x.shape[-1] != h.shape[-1]:
      x = convolve(h.shape[-1], 1, strides=self.strides, name="shortcut_conv")(x)
      x = normed(x, name="shortcut_norm")
    return nn.relu(h + x)


class ResNet50(ResNet):
  """ResNet-50: four stages of 3, 4, 6 and 3 bottlenecks; 23.5 M parameters and the head's."""

  stages: tuple[int, ...] = (3, 4, 6, 3)

  block = Bottleneck
