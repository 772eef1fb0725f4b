"""A small diffusion model, trained alone or in step; for test_pod.py and its scripts."""

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from diffence_jax.diffusion import linear_schedule
from diffence_jax.training import train_denoiser
from diffence_jax.training.denoiser import DenoiserSettings


class PixelDenoiser(nn.Module):
  """Looks at each pixel alone."""

  @nn.compact
  def __call__(self, x, t, *, train=False):
    return nn.Dense(1)(nn.relu(nn.Dense(4)(x)))


def variables_after(folder, mesh, num_steps, **how):
  """Trains; checkpoints after 3 steps unless it is told otherwise, which stay in the folder."""
  images = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 1)).astype(np.uint8)
  return train_denoiser(
    PixelDenoiser(),
    images,
    linear_schedule(),
    DenoiserSettings(num_steps=num_steps, batch_size=8),
    seed=0,
    mesh=mesh,
    directory=folder,
    **{"checkpoint_every": 3, **how},
  )


def by_name(variables):
  """The variables by their names in one level."""
  return flax.traverse_util.flatten_dict(jax.device_get(variables), sep=".")


def train(folder, mesh, num_steps, **how):
  """As `variables_after`, by name."""
  return by_name(variables_after(folder, mesh, num_steps, **how))
