"""The DDPM training loss."""

import jax
import jax.numpy as jnp

from diffence_jax.diffusion.schedule import Schedule, add_noise
from diffence_jax.predictor import Denoise


def ddpm_loss(
  key: jax.Array, denoise: Denoise, schedule: Schedule, images: jax.Array
) -> jax.Array:
  """Mean squared error of the predicted noise at uniform steps (Ho et al. 2020, eq. 14).

  Args:
    key: a JAX random key for the steps and the noise.
    denoise: `(x_t f32[N,H,W,C] in model units, t i32[N]) -> predicted noise f32[N,H,W,C]`.
    schedule: the noise schedule.
    images: f32[N,H,W,C] in [0, 1].

  Returns:
    f32[], the mean over images, pixels and channels; 1 for a network that outputs zeros.
  """
  step_key, noise_key = jax.random.split(key)
  clean = 2.0 * images - 1.0
  t = jax.random.randint(step_key, (images.shape[0],), 0, schedule.num_steps)
  noise = jax.random.normal(noise_key, clean.shape, clean.dtype)
  predicted = denoise(add_noise(schedule, clean, noise, t), t)
  return jnp.mean(jnp.square(predicted.astype(jnp.float32) - noise))
