"""What the U-Nets are made of: normalisation, convolutions, resampling and step angles."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class GroupNorm(nn.Module):
  """Group normalisation in float32.

  The same function as `nn.GroupNorm`, which reduces over split channels and so takes about
  three times as long on XLA's CPU backend: here channels are reduced first, then grouped, and
  the whole image is multiplied once.
  """

  groups: int
  epsilon: float = 1e-5

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
    factor = jax.lax.rsqrt(group_mean(jnp.square(x)) + self.epsilon)
    return x * (factor * scale[None, None, None, :]) + bias[None, None, None, :]


def conv(
  features: int,
  size: int,
  *,
  kernel_init: Any,
  dtype: Any,
  name: str,
  strides: int = 1,
  padding: int | str | None = None,
) -> nn.Conv:
  """A convolution, padded alike on every side as in PyTorch unless told otherwise."""
  return nn.Conv(
    features,
    (size, size),
    strides=strides,
    padding=size // 2 if padding is None else padding,
    kernel_init=kernel_init,
    dtype=dtype,
    conv_general_dilated=_product if size == 1 and strides == 1 else None,
    name=name,
  )


def _product(x, kernel, *_, precision=None, **__):
  """A 1x1 convolution as the product it is, up to twice as fast on XLA's CPU backend.

  Of matrices: with all four axes its gradient takes half as long again.
  """
  product = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0], precision=precision)
  return product.reshape(*x.shape[:-1], kernel.shape[-1])


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


def time_angles(t: jax.Array, size: int, shift: int = 0) -> jax.Array:
  """The angles t * 10000^(-i / (size / 2 - shift)) of an embedding by sines and cosines.

  Args:
    t: i32[N], schedule indices.
    size: features, even: a sine and a cosine of every angle.
    shift: with 1 the slowest frequency is exactly 1 / 10000.

  Returns:
    f32[N, size / 2], from the fastest to the slowest.
  """
  rate = jnp.arange(0, size, 2, dtype=jnp.float32) / (size - 2 * shift)
  return t.astype(jnp.float32)[:, None] * (10000.0**-rate)[None, :]
