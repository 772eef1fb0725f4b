"""The DDPM U-Net: predicts the noise in an image (Ho et al. 2020, appendix B).

The network, parameter for parameter, of the PyTorch port that Diffence uses
(w86763777/pytorch-ddpm), so that its checkpoints load; with other values of a few fields it is
the `UNet2DModel` of Diffusers. See `diffence_jax.interop`.
"""

import functools
from collections.abc import Callable
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
# The orders that the sines and cosines of the diffusion step are published in.
_TIME_LAYOUTS = ("interleaved", "sin_cos", "cos_sin")
# How a downsampling convolution is padded, as `nn.Conv` takes it.
_PADDINGS = {"symmetric": 1, "same": "SAME"}


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
    time_layout: the order of the time embedding; see `time_embedding`.
    time_shift: what its frequencies are shifted by, 0 or 1; as above.
    norm_epsilon: what each group normalisation adds to the variance.
    downsample_padding: of the convolutions that halve the image: "symmetric", one pixel on
      every side; or "same", TensorFlow's, one pixel below and right where the size is even.
    head_features: features of each attention head; None for one head of all features.
  """

  out_channels: int
  channels: int = 128
  multipliers: tuple[int, ...] = (1, 2, 2, 2)
  attention_levels: tuple[int, ...] = (1,)
  num_res_blocks: int = 2
  dropout: float = 0.1
  dtype: Any = jnp.float32
  time_layout: str = "interleaved"
  time_shift: int = 0
  norm_epsilon: float = 1e-5
  downsample_padding: str = "symmetric"
  head_features: int | None = None

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
    conv = functools.partial(_conv, size=3, dtype=self.dtype)
    norm = functools.partial(GroupNorm, min(32, self.channels), self.norm_epsilon)
    block = functools.partial(
      ResBlock,
      norm=norm,
      dropout=self.dropout,
      train=train,
      dtype=self.dtype,
      head_features=self.head_features,
    )
    dense = functools.partial(
      nn.Dense, 4 * self.channels, kernel_init=_xavier, dtype=self.dtype
    )
    time = time_embedding(t, self.channels, layout=self.time_layout, shift=self.time_shift)
    time = dense(name="time_dense1")(time)
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
        padding = _PADDINGS[self.downsample_padding]
        h = conv(h.shape[-1], strides=2, padding=padding, name=f"down_{len(skips) - 1}")(h)
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

    h = nn.silu(norm(name="tail_norm")(h))
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
    for field, valid in (("time_layout", _TIME_LAYOUTS), ("downsample_padding", _PADDINGS)):
      if getattr(self, field) not in valid:
        raise ValueError(
          f"{field} is {getattr(self, field)!r}; expected one of {', '.join(valid)}."
        )
    if not 0 <= self.time_shift < self.channels // 2:
      raise ValueError(
        f"time_shift is {self.time_shift}; expected 0 or more, and less than half of channels, "
        f"{self.channels // 2}."
      )
    if x.ndim != 4 or x.shape[-1] != self.out_channels:
      raise ValueError(
        f"x has shape {x.shape}; expected [N, H, W, {self.out_channels}]. Set out_channels to "
        "the channels of the images."
      )
    if t.shape != x.shape[:1]:
      raise ValueError(f"t has shape {t.shape}; expected one step an image, {x.shape[:1]}.")


def time_embedding(
  t: jax.Array, size: int, *, layout: str = "interleaved", shift: int = 0
) -> jax.Array:
  """Sines and cosines of t * 10000^(-i / (size / 2 - shift)), for i from 0 to size / 2 - 1.

  Args:
    t: i32[N], schedule indices.
    size: features, even.
    layout: their order: "interleaved" is sin, cos, sin, cos, ...; "sin_cos" all sines, then all
      cosines; "cos_sin" the reverse.
    shift: with 1 the slowest frequency is exactly 1 / 10000, as in the TensorFlow code of
      Ho et al. (2020).

  Returns:
    f32[N, size], from the fastest to the slowest.
  """
  angle = unet_layers.time_angles(t, size, shift)
  waves = [jnp.sin(angle), jnp.cos(angle)]
  if layout == "interleaved":
    return jnp.stack(waves, axis=-1).reshape(t.shape[0], size)
  return jnp.concatenate(waves if layout == "sin_cos" else waves[::-1], axis=-1)


class ResBlock(nn.Module):
  """Two normalised convolutions around the time embedding, added to the input.

  Attributes:
    features: output channels.
    norm: makes a normalisation of a name.
    dropout: dropout rate before the second convolution.
    attend: whether self-attention over the image follows.
    train: training mode: dropout is on.
    dtype: computation dtype.
    head_features: features of each attention head; None for one head.
  """

  features: int
  norm: Callable[..., nn.Module]
  dropout: float
  attend: bool
  train: bool
  dtype: Any
  head_features: int | None = None

  @nn.compact
  def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
    """Maps [N,H,W,C] and the activated time embedding [N,E] to [N,H,W,features]."""
    conv = functools.partial(_conv, self.features, dtype=self.dtype)
    dense = nn.Dense(self.features, kernel_init=_xavier, dtype=self.dtype, name="time")
    h = conv(3, name="conv1")(nn.silu(self.norm(name="norm1")(x)))
    h = h + dense(time)[:, None, None, :]
    h = nn.silu(self.norm(name="norm2")(h))
    h = nn.Dropout(self.dropout, deterministic=not self.train)(h)
    h = conv(3, kernel_init=_almost_zero, name="conv2")(h)
    h = h + (x if x.shape[-1] == self.features else conv(1, name="shortcut")(x))
    attention = Attention(self.norm, self.dtype, self.head_features, name="attention")
    return attention(h) if self.attend else h


class Attention(nn.Module):
  """Self-attention over the positions of an image, added to the input.

  Attributes:
    norm: makes a normalisation of a name.
    dtype: computation dtype; the softmax is float32.
    head_features: features of each head; None for one head of all features.
  """

  norm: Callable[..., nn.Module]
  dtype: Any
  head_features: int | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N,H,W,C] to the same shape."""
    n, height, width, features = x.shape
    size = features if self.head_features is None else self.head_features
    if size < 1 or features % size:
      raise ValueError(
        f"head_features is {size}; expected a divisor of the features that attend, {features}."
      )
    project = functools.partial(_conv, features, 1, dtype=self.dtype)
    h = self.norm(name="norm")(x)
    query, key, value = (
      project(name=name)(h).reshape(n, height * width, features // size, size)
      for name in ("query", "key", "value")
    )
    scores = jnp.einsum("nqhc,nkhc->nhqk", query, key, preferred_element_type=jnp.float32)
    weights = nn.softmax(scores * size**-0.5).astype(self.dtype)
    h = jnp.einsum("nhqk,nkhc->nqhc", weights, value).reshape(x.shape)
    return x + project(kernel_init=_almost_zero, name="out")(h)
