"""The blocks of the ADM U-Net: residual ones that may resample, and multi-head attention."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffence_jax.models import unet_layers
from diffence_jax.models.unet_layers import GroupNorm

# PyTorch's default for kernels, uniform within 1 / sqrt(fan in); our biases start at zero.
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
conv = functools.partial(unet_layers.conv, kernel_init=kernel_init)


class ResBlock(nn.Module):
  """Two normalised convolutions around the embedding, added to the input.

  Attributes:
    features: output channels.
    groups: groups of each normalisation.
    scale_shift_norm: whether the embedding scales and shifts what the second normalisation
      returns; otherwise it is added before.
    dropout: dropout rate before the second convolution.
    train: training mode: dropout is on.
    dtype: computation dtype.
  """

  features: int
  groups: int
  scale_shift_norm: bool
  dropout: float
  train: bool
  dtype: Any

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    embedding: jax.Array,
    resize: Callable[[jax.Array], jax.Array] = lambda x: x,
  ) -> jax.Array:
    """Maps [N,H,W,C] and the activated embedding f32[N,E] to [N,H',W',features].

    `resize` maps [N,H,W,C] to [N,H',W',C]; it is applied on both ways through the block.
    """
    project = functools.partial(conv, self.features, dtype=self.dtype)
    h = nn.silu(GroupNorm(self.groups, name="norm1")(x))
    h = project(3, name="conv1")(resize(h.astype(self.dtype)))
    x = resize(x)
    size = (2 if self.scale_shift_norm else 1) * self.features
    time = nn.Dense(size, kernel_init=kernel_init, name="time")(embedding)[:, None, None, :]
    norm = GroupNorm(self.groups, name="norm2")
    if self.scale_shift_norm:
      scale, shift = jnp.split(time, 2, axis=-1)
      h = norm(h) * (1.0 + scale) + shift
    else:
      h = norm(h + time.astype(self.dtype))
    h = nn.Dropout(self.dropout, deterministic=not self.train)(nn.silu(h))
    h = project(3, kernel_init=nn.initializers.zeros, name="conv2")(h)
    return h + (x if x.shape[-1] == self.features else project(1, name="shortcut")(x))


class Attention(nn.Module):
  """Multi-head self-attention over the positions of an image, added to the input.

  Attributes:
    groups: groups of the normalisation.
    num_head_channels: features of every head, or None.
    num_heads: heads, or None; exactly one of the two is given.
    order: "legacy" or "new", as in `ADMUNet`.
    dtype: computation dtype.
  """

  groups: int
  num_head_channels: int | None
  num_heads: int | None
  order: str
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N,H,W,C] to the same shape."""
    n, height, width, features = x.shape
    heads = self._heads(features)
    # Over a sequence of positions, as published: kernels have one spatial axis.
    project = functools.partial(nn.Conv, kernel_size=(1,), dtype=self.dtype)
    h = GroupNorm(self.groups, name="norm")(x).reshape(n, height * width, features)
    h = project(3 * features, kernel_init=kernel_init, name="qkv")(h)
    query, key, value = self._split(h, heads)
    # Scaled before they are multiplied, so that float16 does not overflow.
    scale = (features // heads) ** -0.25
    scores = jnp.einsum(
      "nqhc,nkhc->nhqk", query * scale, key * scale, preferred_element_type=jnp.float32
    )
    weights = nn.softmax(scores).astype(self.dtype)
    h = jnp.einsum("nhqk,nkhc->nqhc", weights, value).reshape(n, height * width, features)
    h = project(features, kernel_init=nn.initializers.zeros, name="out")(h)
    return x + h.reshape(x.shape)

  def _split(self, h: jax.Array, heads: int) -> tuple[jax.Array, ...]:
    """[N,L,3C] to queries, keys and values [N,L,heads,C / heads]."""
    n, length, width = h.shape
    size = width // (3 * heads)
    if self.order == "legacy":
      return tuple(jnp.split(h.reshape(n, length, heads, 3 * size), 3, axis=-1))
    return tuple(jnp.moveaxis(h.reshape(n, length, 3, heads, size), 2, 0))

  def _heads(self, features: int) -> int:
    """The number of heads; ValueError where they don't fit the features."""
    if self.order not in ("legacy", "new"):
      raise ValueError(f"attention_order is {self.order!r}; expected 'legacy' or 'new'.")
    if (self.num_heads is None) == (self.num_head_channels is None):
      raise ValueError(
        f"num_heads is {self.num_heads} and num_head_channels is {self.num_head_channels}; "
        "expected one of them, and None for the other."
      )
    given = "num_heads" if self.num_head_channels is None else "num_head_channels"
    size = getattr(self, given)
    if size < 1 or features % size:
      raise ValueError(
        f"{given} is {size}; attention is over {features} features, which it has to divide. "
        "Set num_head_channels, or num_heads with num_head_channels None, as the network was "
        "trained."
      )
    return size if given == "num_heads" else features // size
