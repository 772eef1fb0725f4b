"""The ADM U-Net: predicts the noise in an image, and a variance (Dhariwal & Nichol 2021).

The network, parameter for parameter, of openai/guided-diffusion, so that its
checkpoints load; see `diffence_jax.interop`.
"""

import functools
from typing import Any

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
    channels: features the levels' are multiples of, even.
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
    groups = self._groups
    new_conv = functools.partial(conv, size=3, dtype=self.dtype)
    new_block = functools.partial(
      ResBlock,
      groups=groups,
      scale_shift_norm=self.scale_shift_norm,
      dropout=self.dropout,
      train=train,
      dtype=self.dtype,
    )
    new_attention = functools.partial(
      Attention,
      groups=groups,
      num_head_channels=self.num_head_channels,
      num_heads=self.num_heads,
      order=self.attention_order,
      dtype=self.dtype,
    )
    embedding = self._embed(t, labels)

    def block(h, features, attend, name):
      """Layer 0 of a numbered block, residual, and layer 1, attention, where it attends."""
      h = new_block(features, name=f"{name}_0")(h, embedding)
      return new_attention(name=f"{name}_1")(h) if attend else h

    # Blocks are numbered, and the layers in them, as in the published parameter names.
    h = new_conv(self._features(0), name="head")(x)
    skips = [h]
    for level in range(len(self.multipliers)):
      attend = level in self.attention_levels
      for _ in range(self.num_res_blocks):
        h = block(h, self._features(level), attend, f"down_{len(skips)}")
        skips.append(h)
      if level != len(self.multipliers) - 1:
        name = f"down_{len(skips)}_0"
        if self.resblock_updown:
          h = new_block(h.shape[-1], name=name)(h, embedding, halve)
        else:
          h = new_conv(h.shape[-1], strides=2, name=name)(h)
        skips.append(h)

    h = block(h, h.shape[-1], True, "middle")
    h = new_block(h.shape[-1], name="middle_2")(h, embedding)

    position = 0
    for level in reversed(range(len(self.multipliers))):
      attend = level in self.attention_levels
      for i in range(self.num_res_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = block(h, self._features(level), attend, f"up_{position}")
        if level != 0 and i == self.num_res_blocks:
          name = f"up_{position}_{2 if attend else 1}"
          resize = functools.partial(double, like=skips[-1].shape)
          if self.resblock_updown:
            h = new_block(h.shape[-1], name=name)(h, embedding, resize)
          else:
            h = new_conv(h.shape[-1], name=name)(resize(h))
        position += 1

    h = nn.silu(GroupNorm(groups, name="tail_norm")(h))
    outputs = (2 if self.learned_variance else 1) * self.out_channels
    zeros = nn.initializers.zeros
    return conv(outputs, 3, kernel_init=zeros, dtype=jnp.float32, name="tail_conv")(h)

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
