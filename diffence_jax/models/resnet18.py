"""ResNet-18 with a 3x3 stem, for small images (He et al. 2016), and the family it is of."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Group normalisation has at most so many groups, as De et al. (2022) train ResNets with
# differential privacy, of at least so many channels: one channel alone would lose its mean.
_MOST_GROUPS = 16
_FEWEST_CHANNELS = 4


class ResNet(nn.Module):
  """A residual network of basic blocks; each stage after the first halves the image.

  Attributes:
    num_classes: classes K.
    width: features of the first stage; each further stage has twice as many.
    stages: for each stage, its number of blocks.
    mean: per-channel mean that is subtracted from the images, or one for all channels.
    std: per-channel standard deviation that they are divided by, likewise.
    dtype: computation dtype. Parameters, normalisation and logits are float32.
    norm: "batch" or "group", how features are normalised: by the statistics of the batch, or
      group by group of each example's own, so that no example has a say in another's logits.
  """

  num_classes: int
  width: int = 64
  stages: tuple[int, ...] = (2, 2, 2, 2)
  mean: tuple[float, ...] = (0.5,)
  std: tuple[float, ...] = (0.5,)
  dtype: Any = jnp.float32
  norm: str = "batch"

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
    x = _conv(self.width, 3, dtype=self.dtype, name="stem_conv")(x)
    x = nn.relu(_norm(x, self.norm, train, "stem_norm"))
    for stage, num_blocks in enumerate(self.stages):
      for block in range(num_blocks):
        x = BasicBlock(
          self.width * 2**stage,
          strides=2 if stage > 0 and block == 0 else 1,
          dtype=self.dtype,
          norm=self.norm,
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
  norm: str

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N,H,W,C] to [N,H/strides,W/strides,features], sizes rounded up."""
    conv = functools.partial(_conv, self.features, dtype=self.dtype)
    h = conv(3, strides=self.strides, name="conv1")(x)
    h = nn.relu(_norm(h, self.norm, train, "norm1"))
    h = _norm(conv(3, name="conv2")(h), self.norm, train, "norm2")
    if self.strides != 1 or x.shape[-1] != self.features:
      x = conv(1, strides=self.strides, name="shortcut_conv")(x)
      x = _norm(x, self.norm, train, "shortcut_norm")
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


def _norm(x: jax.Array, norm: str, train: bool, name: str) -> jax.Array:
  """Normalisation in float32, with PyTorch's epsilon and momentum (0.1 there)."""
  if norm == "batch":
    layer = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name)
  elif norm == "group":
    layer = nn.GroupNorm(num_groups=num_groups(x.shape[-1]), epsilon=1e-5, name=name)
  else:
    raise ValueError(f"norm is {norm!r}; expected 'batch' or 'group'.")
  return layer(x.astype(jnp.float32)).astype(x.dtype)


def num_groups(channels: int) -> int:
  """The groups that group normalisation divides channels into: all of one size.

  Args:
    channels: at least 1.

  Returns:
    The most, up to 16, that divide the channels into groups of 4 at least; else 1.
  """
  most = max(1, min(_MOST_GROUPS, channels // _FEWEST_CHANNELS))
  return max(groups for groups in range(1, most + 1) if channels % groups == 0)
