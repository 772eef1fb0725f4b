"""What a network says about noise, and the DDPM training loss."""

import jax
import jax.numpy as jnp

from diffence_jax import rng
from diffence_jax.diffusion.schedule import Schedule, add_noise
from diffence_jax.predictor import Denoise, asked, to_array


def predicted_noise(
  denoise: Denoise, schedule: Schedule, x: jax.Array, t: jax.Array
) -> jax.Array:
  """The noise that a network sees in images.

  Args:
    denoise: `(x_t f32[N,H,W,C] in model units, step i32[N]) -> f32[N,H,W,C]`, the noise; or
      f32[N,H,W,2C], of which the second half, a learned variance, is left unread.
    schedule: the noise schedule; says which steps of the network its indices are.
    x: f32[N,H,W,C], noised images.
    t: i32[N], indices into the schedule.

  Returns:
    f32[N,H,W,C].

  Raises:
    ValueError: the network gives neither shape.
  """
  with asked(f"denoise cannot be called with images of shape {list(x.shape)}"):
    noise = to_array(denoise(x, schedule.timesteps[t]), "denoise's answers")
  if not jnp.issubdtype(noise.dtype, jnp.floating):
    raise TypeError(
      f"denoise's answers are {noise.dtype}{list(noise.shape)}; expected floating-point noise."
    )
  *places, channels = x.shape
  if noise.shape not in (x.shape, (*places, 2 * channels)):
    raise ValueError(
      f"The network turns images of shape {x.shape} into {noise.shape}; expected the same "
      "shape, or twice the channels where it learns a variance too. Is it the denoiser?"
    )
  return noise[..., :channels].astype(jnp.float32)


def ddpm_loss(
  key: jax.Array, denoise: Denoise, schedule: Schedule, images: jax.Array
) -> jax.Array:
  """Mean squared error of the predicted noise at uniform steps (Ho et al. 2020, eq. 14).

  Args:
    key: a JAX random key for the steps and the noise.
    denoise: as `predicted_noise` takes it; a learned variance is not trained.
    schedule: the noise schedule.
    images: f32[N,H,W,C] in [0, 1].

  Returns:
    f32[], the mean over images, pixels and channels; 1 for a network that outputs zeros.
  """
  step_key, noise_key = jax.random.split(rng.own_key(key))
  clean = 2.0 * images - 1.0
  t = jax.random.randint(step_key, (images.shape[0],), 0, schedule.num_steps)
  noise = jax.random.normal(noise_key, clean.shape, clean.dtype)
  predicted = predicted_noise(denoise, schedule, add_noise(schedule, clean, noise, t), t)
  return jnp.mean(jnp.square(predicted - noise))
