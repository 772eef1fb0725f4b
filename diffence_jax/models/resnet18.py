"""ResNet-18, for small images or large ones (He et al. 2016), and the family it is of."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffence_jax.models.layers import conv, norm, normalise, published_stem


class BasicBlock(nn.Module):
  """Two 3x3 convolutions added to the input, which is projected where the shapes differ."""

  features: int
  strides: int
  dtype: Any
  norm: str

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N,H,W,C] to [N,H/strides,W/strides,features], sizes rounded up."""
    convolve = functools.partial(conv, self.features, dtype=self.dtype)
    normed = functools.partial(norm, kind=self.norm, train=train)
    h = convolve(3, strides=self.strides, name="conv1")(x)
    h = nn.relu(normed(h, name="norm1"))
    h = normed(convolve(3, name="conv2")(h), name="norm2")
    if self.strides != 1 or x.shape[-1] != self.features:
      x = convolve(1, strides=self.strides, name="shortcut_conv")(x)
      x = normed(x, name="shortcut_norm")
    return nn.relu(h + x)


class ResNet(nn.Module):
  """A residual network; each stage after the first halves the image.

  Attributes:
    num_classes: classes K.
    width: features of the first stage; each further stage has twice as many.
    stages: for each stage, its number of blocks.
    mean: per-channel mean that is subtracted from the images, or one for all channels.
    std: per-channel standard deviation that they are divided by, as above.
    dtype: computation dtype. Parameters, normalisation and logits are float32.
    norm: "batch" or "group", how features are normalised: by the statistics of the batch, or
      group by group of each example's own, so that no example has a say in another's logits.
    stem: "small": a 3x3 convolution, for small images; or "large": a 7x7 one and pooling, each
      of which halves the image, as published for ImageNet.
  """

  num_classes: int
  width: int = 64
  stages: tuple[int, ...] = (2, 2, 2, 2)
  mean: tuple[float, ...] = (0.5,)
  std: tuple[float, ...] = (0.5,)
  dtype: Any = jnp.float32
  norm: str = "batch"
  stem: str = "small"

  block = BasicBlock

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
    """Classifies images.

    Args:
      images: f32[N,H,W,C] in [0, 1].
      train: training mode: batch normalisation takes the statistics of the batch and updates
        the running ones, so the collection "batch_stats" must be mutable. Group normalisation
        has no such collection and no modes.

    Returns:
      f32[N,K], the logits.

    Raises:
      ValueError: `images` is not a batch of images, `mean` and `std` don't fit it, or there is
        no such `norm`.
    """
    x = normalise(images, self.mean, self.std)
    if self.stem == "large":
      x = published_stem(x, self.width, self.norm, train, dtype=self.dtype)
    else:
      x = conv(self.width, 3, dtype=self.dtype, name="stem_conv")(x)
      x = nn.relu(norm(x, self.norm, train, name="stem_norm"))
    for stage, num_blocks in enumerate(self.stages):
      for block in range(num_blocks):
        x = self.block(
          self.width * 2**stage,
          strides=2 if stage > 0 and block == 0 else 1,
          dtype=self.dtype,
          norm=self.norm,
          name=f"stage{stage}_block{block}",
        )(x, train)
    features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    return nn.Dense(self.num_classes, name="head")(features)


class ResNet18(ResNet):
  """ResNet-18: four stages of two blocks, 11.2 M parameters; as Diffence trains it."""
