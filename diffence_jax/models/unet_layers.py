"""What the U-Nets are made of: normalisation, convolutions, resampling and step angles."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class GroupNorm(nn.Module):
  """Group normalisation in float32, eps 1e-5.

  The same function as `nn.GroupNorm`, which reduces over split channels and so takes about
  three times as long on XLA's CPU backend: here channels are reduced first, then grouped.
  """

  groups: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N,H,W,C] to f32[N,H,W,C]."""
    n, _, _, features = x.shape
    scale = self.param("scale", nn.initializers.ones, (features,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (features,), jnp.float32)

    def group_mean(v):
      v = jnp.mean(v, axis=(1, 2)).reshape(n, self.groups, features // self.groups)
      mean = jnp.broadcast_to(jnp.mean(v, axis=-1, keepdims=True), v.shape)
      return mean.reshape(n, 1, 1, features)

    x = x.astype(jnp.float32)
    x = x - group_mean(x)
    x = x * jax.lax.rsqrt(group_mean(jnp.square(x)) + 1e-5)
    return x * scale[None, None, None, :] + bias[None, None, None, :]


def conv(
  features: int,
  size: int,
  *,
  kernel_init: Any,
  dtype: Any,
  name: str,
  strides: int = 1,
) -> nn.Conv:
  """A convolution padded alike on every side as in PyTorch, also where it strides."""
  return nn.Conv(
    features,
    (size, size),
    strides=strides,
    padding=size // 2,
    kernel_init=kernel_init,
    dtype=dtype,
    name=name,
  )


def double(x: jax.Array, like: tuple[int, ...]) -> jax.Array:
  """Doubles height and width by repeating pixels, then crops to those of shape `like`."""
  x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
  return x[:, : like[1], : like[2], :]


def halve(x: jax.Array) -> jax.Array:
  """Averages squares of 2x2 pixels; an odd last row or column is averaged by itself."""
  _, height, width, _ = x.shape
  x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
  n, height, width, features = x.shape
  return x.reshape(n, height // 2, 2, width // 2, 2, features).mean(axis=(2, 4))


def time_angles(t: jax.Array, size: int) -> jax.Array:
  """The angles t * 10000^(-2i / size) of a sinusoidal embedding with `size` features.

  Args:
    t: i32[N], schedule indices.
    size: features, even: a sine and a cosine of every angle.

  Returns:
    f32[N, size / 2], from the fastest to the slowest.
  """
  frequency = 10000.0 ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  return t.astype(jnp.float32)[:, None] * frequency[None, :]
