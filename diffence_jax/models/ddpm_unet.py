"""The DDPM U-Net: predicts the noise in an image (Ho et al. 2020, appendix B).

The network, parameter for parameter, of the PyTorch port that Diffence uses
(w86763777/pytorch-ddpm), so that its checkpoints load; see `diffence_jax.interop`.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffence_jax.models import unet_layers
from diffence_jax.models.unet_layers import GroupNorm, double

_xavier = nn.initializers.xavier_uniform()
_conv = functools.partial(unet_layers.conv, kernel_init=_xavier)
# A residual branch starts at (almost) nothing: Xavier with a gain of 1e-5.
_almost_zero = nn.initializers.variance_scaling(1e-10, "fan_avg", "uniform")


class DDPMUNet(nn.Module):
  """A U-Net of residual blocks that knows the diffusion step.

  Every level but the last halves the image, rounding up; on the way back the doubled image is
  cropped to the size it had, so any size works. Where each level divides evenly, this is
  exactly the published network.

  Attributes:
    out_channels: channels of the images, 1 (grayscale) or 3 (colour).
    channels: features of the first level, even; at most 32, or a multiple of 32.
    multipliers: for each level, its features as a multiple of `channels`.
    attention_levels: the levels (0 is full size) whose blocks attend over the image; the
      innermost block always does.
    num_res_blocks: residual blocks a level on the way down; one more on the way up.
    dropout: dropout rate inside the residual blocks, in training mode.
    dtype: computation dtype. Parameters, normalisation, softmax and result are float32.
  """

  out_channels: int
  channels: int = 128
  multipliers: tuple[int, ...] = (1, 2, 2, 2)
  attention_levels: tuple[int, ...] = (1,)
  num_res_blocks: int = 2
  dropout: float = 0.1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, t: jax.Array, *, train: bool = False) -> jax.Array:
    """Predicts the noise.

    Args:
      x: f32[N,H,W,C], noised images in model units, [-1, 1] before the noise.
      t: i32[N], schedule indices.
      train: training mode: dropout is on and needs an rng named "dropout".

    Returns:
      f32[N,H,W,C], the predicted noise.

    Raises:
      ValueError: the fields don't fit together, or the images don't fit them.
    """
    self._check(x, t)
    groups = min(32, self.channels)
    conv = functools.partial(_conv, size=3, dtype=self.dtype)
    block = functools.partial(
      ResBlock, groups=groups, dropout=self.dropout, train=train, dtype=self.dtype
    )
    dense = functools.partial(
      nn.Dense, 4 * self.channels, kernel_init=_xavier, dtype=self.dtype
    )
    time = dense(name="time_dense1")(time_embedding(t, self.channels))
    time = nn.silu(dense(name="time_dense2")(nn.silu(time)))

    # Blocks and resamplings are numbered in one sequence, as in the published parameter names.
    h = conv(self.channels, name="head")(x)
    skips = [h]
    levels = list(enumerate(self.multipliers))
    for level, multiplier in levels:
      attend = level in self.attention_levels
      for _ in range(self.num_res_blocks):
        name = f"down_{len(skips) - 1}"
        h = block(multiplier * self.channels, attend=attend, name=name)(h, time)
        skips.append(h)
      if level != len(levels) - 1:
        h = conv(h.shape[-1], strides=2, name=f"down_{len(skips) - 1}")(h)
        skips.append(h)

    h = block(h.shape[-1], attend=True, name="middle_0")(h, time)
    h = block(h.shape[-1], attend=False, name="middle_1")(h, time)

    position = 0
    for level, multiplier in reversed(levels):
      attend = level in self.attention_levels
      for _ in range(self.num_res_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        name = f"up_{position}"
        h = block(multiplier * self.channels, attend=attend, name=name)(h, time)
        position += 1
      if level != 0:
        h = conv(h.shape[-1], name=f"up_{position}")(double(h, skips[-1].shape))
        position += 1

    h = nn.silu(GroupNorm(groups, name="tail_norm")(h))
    h = conv(self.out_channels, kernel_init=_almost_zero, name="tail_conv")(h)
    return h.astype(jnp.float32)

  def _check(self, x: jax.Array, t: jax.Array) -> None:
    """Raises ValueError for fields or inputs that don't fit."""
    if self.channels < 2 or self.channels % 2 or self.channels % min(32, self.channels):
      raise ValueError(
        f"channels is {self.channels}; group normalisation and the time embedding need an even "
        "number up to 32, or a multiple of 32."
      )
    if outside := [i for i in self.attention_levels if not 0 <= i < len(self.multipliers)]:
      raise ValueError(
        f"attention_levels has {outside}, but multipliers {self.multipliers} give levels 0 to "
        f"{len(self.multipliers) - 1}."
      )
    if x.ndim != 4 or x.shape[-1] != self.out_channels:
      raise ValueError(
        f"x has shape {x.shape}; expected [N, H, W, {self.out_channels}]. Set out_channels to "
        "the channels of the images."
      )
    if t.shape != x.shape[:1]:
      raise ValueError(f"t has shape {t.shape}; expected one step an image, {x.shape[:1]}.")


def time_embedding(t: jax.Array, size: int) -> jax.Array:
  """Sines and cosines, interleaved, of t * 10000^(-2i / size).

  Args:
    t: i32[N], schedule indices.
    size: features, even.

  Returns:
    f32[N, size]: sin, cos, sin, cos, ... from the fastest to the slowest.
  """
  angle = unet_layers.time_angles(t, size)
  return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(t.shape[0], size)


class ResBlock(nn.Module):
  """Two normalised convolutions around the time embedding, added to the input.

  Attributes:
    features: output channels.
    groups: groups of each normalisation.
    dropout: dropout rate before the second convolution.
    attend: whether self-attention over the image follows.
    train: training mode: dropout is on.
    dtype: computation dtype.
  """

  features: int
  groups: int
  dropout: float
  attend: bool
  train: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
    """Maps [N,H,W,C] and the activated time embedding [N,E] to [N,H,W,features]."""
    conv = functools.partial(_conv, self.features, dtype=self.dtype)
    dense = nn.Dense(self.features, kernel_init=_xavier, dtype=self.dtype, name="time")
    h = conv(3, name="conv1")(nn.silu(GroupNorm(self.groups, name="norm1")(x)))
    h = h + dense(time)[:, None, None, :]
    h = nn.silu(GroupNorm(self.groups, name="norm2")(h))
    h = nn.Dropout(self.dropout, deterministic=not self.train)(h)
    h = conv(3, kernel_init=_almost_zero, name="conv2")(h)
    h = h + (x if x.shape[-1] == self.features else conv(1, name="shortcut")(x))
    return Attention(self.groups, self.dtype, name="attention")(h) if self.attend else h


class Attention(nn.Module):
  """Single-head self-attention over the positions of an image, added to the input."""

  groups: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N,H,W,C] to the same shape."""
    n, height, width, features = x.shape
    project = functools.partial(_conv, features, 1, dtype=self.dtype)
    h = GroupNorm(self.groups, name="norm")(x)
    query, key, value = (
      project(name=name)(h).reshape(n, height * width, features)
      for name in ("query", "key", "value")
    )
    scores = jnp.einsum("nqc,nkc->nqk", query, key, preferred_element_type=jnp.float32)
    weights = nn.softmax(scores * features**-0.5).astype(self.dtype)
    h = jnp.einsum("nqk,nkc->nqc", weights, value).reshape(x.shape)
    return x + project(kernel_init=_almost_zero, name="out")(h)
