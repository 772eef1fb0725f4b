"""The ADM U-Net: predicts the noise in an image, and a variance (Dhariwal & Nichol 2021).

The network, parameter for parameter, of openai/guided-diffusion, so that its
checkpoints load; see `diffence_jax.interop`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffence_jax.models import unet_layers
from diffence_jax.models.adm_blocks import Attention, ResBlock, conv, kernel_init
from diffence_jax.models.unet_layers import GroupNorm, double, halve


class ADMUNet(nn.Module):
  """A U-Net of residual blocks that knows the diffusion step and, if asked to, the class.

  Defaults are those of the public unconditional ImageNet model at 256x256. Every level but the
  last halves the image, rounding up; on the way back the doubled image is cropped to the size
  it had, so any size works. Where each level divides evenly, this is exactly the published
  network.

  A class-conditional network predicts noise for given labels; a denoiser of images alone, as
  samplers take it, is such a network with its labels bound:
  `lambda x, t: denoise(x, t, jnp.full(t.shape, label))`.

  Attributes:
    out_channels: channels C of the images, 1 (grayscale) or 3 (colour).
    channels: what the features of every level are multiples of, even.
    multipliers: for each level, its features as a multiple of `channels`; all levels' have
      to be multiples of 32, or of `channels` where that is less.
    attention_levels: the levels (0 is full size) whose blocks attend over the image; the
      innermost block always does. Published as resolutions: `log2(image size / resolution)`.
    num_res_blocks: residual blocks a level on the way down; one more on the way up.
    num_head_channels: features of every attention head; None where `num_heads` is given.
    num_heads: attention heads whatever the features; None where `num_head_channels` is given.
    attention_order: how queries, keys and values lie in the features of one projection:
      "legacy", head by head (Q1 K1 V1 Q2 ...), or "new" (Q1 Q2 ... K1 K2 ...).
    scale_shift_norm: whether step and class scale and shift what a residual block has
      normalised, or are only added before.
    resblock_updown: whether images are halved and doubled inside residual blocks, or by
      convolutions.
    learned_variance: whether the network has C further outputs, for the variance of a step.
    num_classes: classes of a class-conditional network, None for an unconditional one.
    dropout: dropout rate inside the residual blocks, in training mode.
    dtype: computation dtype of the blocks, for instance bfloat16. Parameters, embeddings,
      normalisation, softmax, the last convolution and the result are float32.
  """

  out_channels: int
  channels: int = 256
  multipliers: tuple[float, ...] = (1, 1, 2, 2, 4, 4)
  attention_levels: tuple[int, ...] = (3, 4, 5)
  num_res_blocks: int = 2
  num_head_channels: int | None = 64
  num_heads: int | None = None
  attention_order: str = "legacy"
  scale_shift_norm: bool = True
  resblock_updown: bool = True
  learned_variance: bool = True
  num_classes: int | None = None
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, labels: jax.Array | None = None, *, train: bool = False
  ) -> jax.Array:
    """Predicts the noise and, with `learned_variance`, the variance.

    Args:
      x: f32[N,H,W,C], noised images in model units, [-1, 1] before the noise.
      t: i32[N], schedule indices.
      labels: i32[N], below `num_classes`; None for an unconditional network.
      train: training mode: dropout is on and needs an rng named "dropout".

    Returns:
      f32[N,H,W,C], the predicted noise; with `learned_variance` f32[N,H,W,2C], first the
      predicted noise, then where between its bounds the logarithm of the variance lies, -1
      for the lower and 1 for the upper (Nichol & Dhariwal 2021, equation 15).

    Raises:
      ValueError: the fields don't fit together, or the inputs don't fit them.
    """
    self._check(x, t, labels)
    layers = self._layers(self._embed(t, labels), train)
    skips = self._down(x, layers)
    h = skips[-1]
    h = layers.block(h, h.shape[-1], True, "middle")
    h = layers.residual(h, h.shape[-1], "middle_2")
    h = self._up(h, skips, layers)
    h = nn.silu(GroupNorm(self._groups, name="tail_norm")(h))
    outputs = (2 if self.learned_variance else 1) * self.out_channels
    zeros = nn.initializers.zeros
    return conv(outputs, 3, kernel_init=zeros, dtype=jnp.float32, name="tail_conv")(h)

  # In both ways blocks, and the layers in them, are numbered as in the published names.

  def _down(self, x: jax.Array, layers: "_Layers") -> list[jax.Array]:
    """The way down from the image: all that the way up goes back to, the innermost last."""
    skips = [layers.conv(x, self._features(0), "head")]
    for level in range(len(self.multipliers)):
      attend = level in self.attention_levels
      for _ in range(self.num_res_blocks):
        h = layers.block(skips[-1], self._features(level), attend, f"down_{len(skips)}")
        skips.append(h)
      if level != len(self.multipliers) - 1:
        h, name = skips[-1], f"down_{len(skips)}_0"
        if self.resblock_updown:
          h = layers.residual(h, h.shape[-1], name, halve)
        else:
          h = layers.conv(h, h.shape[-1], name, strides=2)
        skips.append(h)
    return skips

  def _up(self, h: jax.Array, skips: list[jax.Array], layers: "_Layers") -> jax.Array:
    """The way up; every block also sees what the way down has left for it, the last first."""
    position = 0
    for level in reversed(range(len(self.multipliers))):
      attend = level in self.attention_levels
      for i in range(self.num_res_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = layers.block(h, self._features(level), attend, f"up_{position}")
        if level != 0 and i == self.num_res_blocks:
          name = f"up_{position}_{2 if attend else 1}"
          resize = functools.partial(double, like=skips[-1].shape)
          if self.resblock_updown:
            h = layers.residual(h, h.shape[-1], name, resize)
          else:
            h = layers.conv(resize(h), h.shape[-1], name)
        position += 1
    return h

  def _layers(self, embedding: jax.Array, train: bool) -> "_Layers":
    """The layers with this network's settings, that see steps and labels as `embedding`."""

    def new_conv(h, features, name, strides=1):
      return conv(features, 3, strides=strides, dtype=self.dtype, name=name)(h)

    def residual(h, features, name, *resize):
      layer = ResBlock(
        features,
        groups=self._groups,
        scale_shift_norm=self.scale_shift_norm,
        dropout=self.dropout,
        train=train,
        dtype=self.dtype,
        name=name,
      )
      return layer(h, embedding, *resize)

    def block(h, features, attend, name):
      h = residual(h, features, f"{name}_0")
      if not attend:
        return h
      layer = Attention(
        groups=self._groups,
        num_head_channels=self.num_head_channels,
        num_heads=self.num_heads,
        order=self.attention_order,
        dtype=self.dtype,
        name=f"{name}_1",
      )
      return layer(h)

    return _Layers(new_conv, residual, block)

  def _embed(self, t: jax.Array, labels: jax.Array | None) -> jax.Array:
    """Steps and labels as f32[N, 4 channels], activated."""
    dense = functools.partial(nn.Dense, 4 * self.channels, kernel_init=kernel_init)
    time = dense(name="time_dense1")(time_embedding(t, self.channels))
    embedding = dense(name="time_dense2")(nn.silu(time))
    if labels is not None:
      label_init = nn.initializers.normal(1.0)
      table = nn.Embed(
        self.num_classes, 4 * self.channels, embedding_init=label_init, name="label_embedding"
      )
      embedding = embedding + table(labels)
    return nn.silu(embedding)

  @property
  def _groups(self) -> int:
    """Groups of every normalisation."""
    return min(32, self.channels)

  def _features(self, level: int) -> int:
    """Features of a level."""
    return int(self.multipliers[level] * self.channels)

  def _check(self, x: jax.Array, t: jax.Array, labels: jax.Array | None) -> None:
    """Raises ValueError for fields or inputs that don't fit."""
    if self.channels < 2 or self.channels % 2:
      raise ValueError(
        f"channels is {self.channels}; the time embedding needs an even number, at least 2."
      )
    features = [self._features(level) for level in range(len(self.multipliers))]
    if not features or any(f <= 0 or f % self._groups for f in features):
      raise ValueError(
        f"channels {self.channels} and multipliers {self.multipliers} give levels of {features}"
        f" features; group normalisation needs multiples of {self._groups}, at least one level."
      )
    if outside := [i for i in self.attention_levels if not 0 <= i < len(features)]:
      raise ValueError(
        f"attention_levels has {outside}, but multipliers {self.multipliers} give levels 0 to "
        f"{len(features) - 1}. Published as resolutions, levels are log2(image size / "
        "resolution)."
      )
    if x.ndim != 4 or x.shape[-1] != self.out_channels:
      raise ValueError(
        f"x has shape {x.shape}; expected [N, H, W, {self.out_channels}]. Set out_channels to "
        "the channels of the images; learned_variance doubles those of the output alone."
      )
    if t.shape != x.shape[:1]:
      raise ValueError(f"t has shape {t.shape}; expected one step an image, {x.shape[:1]}.")
    if self.num_classes is None and labels is not None:
      raise ValueError(
        "Got labels, but the network is unconditional (num_classes is None). Leave them out."
      )
    if self.num_classes is not None and (labels is None or labels.shape != t.shape):
      given = "none" if labels is None else f"labels of shape {labels.shape}"
      raise ValueError(
        f"The network is conditional on {self.num_classes} classes and needs one label an "
        f"image, labels i32{list(t.shape)}; got {given}. Where a function of (x, t) is wanted, "
        "bind them: lambda x, t: denoise(x, t, jnp.full(t.shape, label))."
      )


class _Layers(NamedTuple):
  """What a network is made of: functions that map [N,H,W,C], each under a name.

  Attributes:
    conv: `(h, features, name, strides=1)`, a 3x3 convolution.
    residual: `(h, features, name)`, a residual block; `(h, features, name, resize)` one that
      resamples.
    block: `(h, features, attend, name)`, a numbered block: its layer 0, residual, and its
      layer 1, attention, if it attends.
  """

  conv: Callable[..., jax.Array]
  residual: Callable[..., jax.Array]
  block: Callable[..., jax.Array]


def time_embedding(t: jax.Array, size: int) -> jax.Array:
  """Cosines, then sines, of t * 10000^(-2i / size).

  Args:
    t: i32[N], schedule indices.
    size: features, even.

  Returns:
    f32[N, size]: cosines from the fastest to the slowest, then the sines.
  """
  angle = unet_layers.time_angles(t, size)
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
