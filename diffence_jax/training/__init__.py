"""Training: one loop; one file for each training-time defense, and for diffusion models."""

from diffence_jax.training.classifier import train_classifier
from diffence_jax.training.denoiser import train_denoiser
from diffence_jax.training.ensemble import train_ensemble
from diffence_jax.training.recipe import (
  Kind,
  Recipe,
  Teachers,
  TrainSettings,
  with_loss,
  with_losses,
)

__all__ = [
  "Kind",
  "Recipe",
  "Teachers",
  "TrainSettings",
  "train_classifier",
  "train_denoiser",
  "train_ensemble",
  "with_loss",
  "with_losses",
]
