"""Networks of a user's own, as small as can be, that experiments name by "module:Class"."""

import flax.linen as nn
import jax.numpy as jnp


class Flat(nn.Module):
  """A classifier without a training mode."""

  num_classes: int
  width: int = 8
  scales: tuple[float, ...] = (1.0,)

  @nn.compact
  def __call__(self, images):
    flat = images.reshape(images.shape[0], -1) * jnp.asarray(self.scales[0], images.dtype)
    return nn.Dense(self.num_classes)(nn.relu(nn.Dense(self.width)(flat)))


class Blur(nn.Module):
  """A denoiser: one convolution, told nothing of the step."""

  out_channels: int

  @nn.compact
  def __call__(self, x, t, *, train=False):
    return nn.Conv(self.out_channels, (3, 3))(x)


class PerClass(nn.Module):
  """A class-conditional denoiser: the noise is what is far from a shade of the class."""

  out_channels: int
  num_classes: int | None = None

  @nn.compact
  def __call__(self, x, t, labels=None, *, train=False):
    h = nn.Conv(self.out_channels, (3, 3))(x)
    if self.num_classes is None:
      return h
    shades = nn.Embed(self.num_classes, self.out_channels, name="shades")(labels)
    return h - shades[:, None, None, :]


class Nameless(nn.Module):
  """Neither, as nothing tells it how many classes there are."""

  @nn.compact
  def __call__(self, images):
    return images.mean((1, 2))


class Plain:
  """No module at all."""
