"""Diffusion: the noise schedule, the training loss and the DDIM sampler."""

from diffence_jax.diffusion.loss import ddpm_loss
from diffence_jax.diffusion.sampler import ddim, ddim_timesteps, reconstruct, sample
from diffence_jax.diffusion.schedule import Schedule, add_noise, linear_schedule

__all__ = [
  "Schedule",
  "add_noise",
  "ddim",
  "ddim_timesteps",
  "ddpm_loss",
  "linear_schedule",
  "reconstruct",
  "sample",
]
