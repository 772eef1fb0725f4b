"""Training: one loop; one file for each kind of model or training-time defense."""

from diffence_jax.training.classifier import classifier_steps, train_classifier
from diffence_jax.training.denoiser import train_denoiser

__all__ = ["classifier_steps", "train_classifier", "train_denoiser"]
