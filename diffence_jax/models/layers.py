"""What the classifiers share: normalised images, convolutions, normalisation."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Group normalisation has at most so many groups, as De et al. (2022) train ResNets with
# differential privacy, of at least so many channels: one channel alone would lose its mean.
_MOST_GROUPS = 16
_FEWEST_CHANNELS = 4


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
  """(images - mean) / std, channel by channel.

  Args:
    images: f32[N,H,W,C].
    mean: C numbers, or one for all channels.
    std: C numbers, or one for all channels.

  Returns:
    f32[N,H,W,C].

  Raises:
    ValueError: `images` has another rank, `mean` or `std` another length, or `std` is not
      above 0.
  """
  if images.ndim != 4:
    raise ValueError(f"images has shape {images.shape}; expected [N, H, W, C].")
  for name, values in (("mean", mean), ("std", std)):
    if len(values) not in (1, images.shape[-1]):
      raise ValueError(
        f"{name} has {len(values)} values for images of {images.shape[-1]} channels; give one "
        "a channel, or a single one."
      )
  if not all(value > 0 for value in std):
    raise ValueError(f"std is {std}; expected numbers above 0.")
  per_channel = lambda values: jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1)
  return (images.astype(jnp.float32) - per_channel(mean)) / per_channel(std)


def published_stem(
  x: jax.Array, features: int, kind: str, train: bool, *, dtype: Any
) -> jax.Array:
  """The stem of networks for large images, which leaves a quarter of their height and width.

  Args:
    x: [N,H,W,C].
    features: output channels.
    kind: as `norm` takes it.
    train: training mode.
    dtype: computation dtype.

  Returns:
    [N,H/4,W/4,features], sizes rounded up: of a 7x7 convolution and the largest of 3x3, with
    strides of 2 each. Its submodules are "stem_conv" and "stem_norm".
  """
  x = conv(features, 7, strides=2, dtype=dtype, name="stem_conv")(x)
  x = nn.relu(norm(x, kind, train, name="stem_norm"))
  return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def conv(
  features: int,
  size: int,
  *,
  strides: int = 1,
  use_bias: bool = False,
  dtype: Any,
  name: str,
) -> nn.Conv:
  """A convolution padded alike on every side, as in PyTorch.

  Args:
    features: output channels.
    size: of the square kernel, odd.
    strides: of either axis; sizes are rounded up.
    use_bias: whether it adds a bias.
    dtype: computation dtype.
    name: of the submodule.

  Returns:
    The layer, [N,H,W,C] to [N,H/strides,W/strides,features].
  """
  return nn.Conv(
    features,
    (size, size),
    strides=strides,
    padding=size // 2,
    use_bias=use_bias,
    kernel_init=nn.initializers.he_normal(),
    dtype=dtype,
    name=name,
  )


def norm(x: jax.Array, kind: str, train: bool, *, name: str) -> jax.Array:
  """Normalises features in float32, with PyTorch's epsilon and momentum (0.1 there).

  Args:
    x: [N,H,W,C].
    kind: "batch": by the statistics of the batch in training mode, which updates the running
      ones in the collection "batch_stats", and by the running ones in evaluation mode. "group":
      group by group of each example's own, in either mode.
    train: training mode.
    name: of the submodule.

  Returns:
    As `x`.

  Raises:
    ValueError: there is no such kind.
  """
  if kind == "batch":
    layer = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name)
  elif kind == "group":
    layer = nn.GroupNorm(num_groups=num_groups(x.shape[-1]), epsilon=1e-5, name=name)
  else:
    raise ValueError(f"norm is {kind!r}; expected 'batch' or 'group'.")
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
