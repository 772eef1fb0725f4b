"""Diffusion: the noise schedule, the training loss and the DDIM sampler."""

from diffence_jax.diffusion.conditional import denoiser_beside, under_predicted_label
from diffence_jax.diffusion.loss import ddpm_loss, predicted_noise
from diffence_jax.diffusion.prediction import as_noise
from diffence_jax.diffusion.resize import fit_images
from diffence_jax.diffusion.sampler import ddim, ddim_timesteps, reconstruct, sample
from diffence_jax.diffusion.schedule import (
  Schedule,
  add_noise,
  linear_schedule,
  make_schedule,
  respaced,
)

__all__ = [
  "Schedule",
  "add_noise",
  "as_noise",
  "ddim",
  "ddim_timesteps",
  "ddpm_loss",
  "denoiser_beside",
  "fit_images",
  "linear_schedule",
  "make_schedule",
  "predicted_noise",
  "reconstruct",
  "respaced",
  "sample",
  "under_predicted_label",
]
