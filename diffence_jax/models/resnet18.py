"""ResNet-18 with a 3x3 stem, for small images (He et al. 2016), and the family it is of."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class ResNet(nn.Module):
  """A residual network of basic blocks; each stage after the first halves the image.

  Attributes:
    num_classes: classes K.
    width: features of the first stage; each further stage has twice as many.
    stages: for each stage, its number of blocks.
    mean: per-channel mean that is subtracted from the images, or one for all channels.
    std: per-channel standard deviation that they are divided by, likewise.
    dtype: computation dtype. Parameters, normalisation and logits are float32.
  """

  num_classes: int
  width: int = 64
  stages: tuple[int, ...] = (2, 2, 2, 2)
  mean: tuple[float, ...] = (0.5,)
  std: tuple[float, ...] = (0.5,)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
    """Classifies images.

    Args:
      images: f32[N,H,W,C] in [0, 1].
      train: training mode: normalises by the statistics of the batch and updates the running
        ones, so the collection "batch_stats" must be mutable.

    Returns:
      f32[N,K], the logits.

    Raises:
      ValueError: `images` is not a batch of images, or `mean` and `std` don't fit it.
    """
    x = normalise(images, self.mean, self.std)
    x = _conv(self.width, 3, dtype=self.dtype, name="stem_conv")(x)
    x = nn.relu(_norm(x, train, "stem_norm"))
    for stage, num_blocks in enumerate(self.stages):
      for block in range(num_blocks):
        x = BasicBlock(
          self.width * 2**stage,
          strides=2 if stage > 0 and block == 0 else 1,
          dtype=self.dtype,
          name=f"stage{stage}_block{block}",
        )(x, train)
    features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    return nn.Dense(self.num_classes, name="head")(features)


class ResNet18(ResNet):
  """ResNet-18 as Diffence trains it: 3x3 stem, four stages of two blocks; 11.2 M parameters."""


class BasicBlock(nn.Module):
  """Two 3x3 convolutions added to the input, which is projected where the shapes differ."""

  features: int
  strides: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N,H,W,C] to [N,H/strides,W/strides,features], sizes rounded up."""
    conv = functools.partial(_conv, self.features, dtype=self.dtype)
    h = conv(3, strides=self.strides, name="conv1")(x)
    h = nn.relu(_norm(h, train, "norm1"))
    h = _norm(conv(3, name="conv2")(h), train, "norm2")
    if self.strides != 1 or x.shape[-1] != self.features:
      x = conv(1, strides=self.strides, name="shortcut_conv")(x)
      x = _norm(x, train, "shortcut_norm")
    return nn.relu(h + x)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
  """(images - mean) / std, channel by channel.

  Args:
    images: f32[N,H,W,C].
    mean: C numbers, or one for all channels.
    std: C numbers, or one for all channels.

  Returns:
    f32[N,H,W,C].

  Raises:
    ValueError: `images` has another rank, or `mean` or `std` another length.
  """
  if images.ndim != 4:
    raise ValueError(f"images has shape {images.shape}; expected [N, H, W, C].")
  for name, values in (("mean", mean), ("std", std)):
    if len(values) not in (1, images.shape[-1]):
      raise ValueError(
        f"{name} has {len(values)} values for images of {images.shape[-1]} channels; give one "
        "a channel, or a single one."
      )
  per_channel = lambda values: jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1)
  return (images.astype(jnp.float32) - per_channel(mean)) / per_channel(std)


def _conv(features: int, size: int, *, strides: int = 1, dtype: Any, name: str) -> nn.Conv:
  """A convolution without bias, padded alike on every side as in PyTorch."""
  return nn.Conv(
    features,
    (size, size),
    strides=strides,
    padding=size // 2,
    use_bias=False,
    kernel_init=nn.initializers.he_normal(),
    dtype=dtype,
    name=name,
  )


def _norm(x: jax.Array, train: bool, name: str) -> jax.Array:
  """Batch normalisation in float32, with PyTorch's momentum (0.1 there) and epsilon."""
  norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name)
  return norm(x.astype(jnp.float32)).astype(x.dtype)
