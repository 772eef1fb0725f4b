"""A small diffusion model, trained alone or in step; for test_pod.py and pod_script.py."""

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


def train(folder, mesh, num_steps):
  """The variables by name; checkpoints after 3 steps, which stay in the folder."""
  images = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 1)).astype(np.uint8)
  variables = train_denoiser(
    PixelDenoiser(),
    images,
    linear_schedule(),
    DenoiserSettings(num_steps=num_steps, batch_size=8),
    checkpoint_every=3,
    seed=0,
    mesh=mesh,
    directory=folder,
  )
  return flax.traverse_util.flatten_dict(jax.device_get(variables), sep=".")
