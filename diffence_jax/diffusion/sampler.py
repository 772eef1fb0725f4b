"""DDIM: the deterministic way back from noise to an image."""

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax.diffusion.schedule import Schedule, add_noise
from diffence_jax.predictor import Denoise


def ddim_timesteps(start: int, num_ddim_steps: int) -> np.ndarray:
  """The schedule indices a sampler visits, evenly spaced from `start` to 0.

  Args:
    start: the index to start from, at least 1.
    num_ddim_steps: network evaluations, 1 to `start`.

  Returns:
    i32[num_ddim_steps + 1], strictly decreasing, ending at 0.

  Raises:
    ValueError: more evaluations than indices, or none.
  """
  if not 1 <= num_ddim_steps <= start:
    raise ValueError(
      f"num_ddim_steps is {num_ddim_steps}; from step {start} expected 1 to {start}."
    )
  return np.linspace(start, 0, num_ddim_steps + 1).round().astype(np.int32)


def ddim(
  denoise: Denoise,
  schedule: Schedule,
  x: jax.Array,
  timesteps: np.ndarray,
  *,
  clip: bool = False,
) -> jax.Array:
  """Runs the deterministic DDIM update along `timesteps` (Song et al. 2021, eta = 0).

  The network is evaluated once for each pair of neighbours in `timesteps`, never where a step
  would change nothing.

  Args:
    denoise: `(x_t f32[N,H,W,C] in model units, t i32[N]) -> predicted noise f32[N,H,W,C]`.
    schedule: the noise schedule.
    x: f32[N,H,W,C], noised images at index `timesteps[0]`.
    timesteps: i32[S + 1], strictly decreasing schedule indices.
    clip: keeps the clean image that every step predicts within [-1, 1], and the noise in
      accord with it; without, an error at a high index is blown up by 1 / sqrt(alpha_bar).

  Returns:
    f32[N,H,W,C] at index `timesteps[-1]`, in model units.
  """
  alpha_bar = schedule.alpha_bar[np.asarray(timesteps)]

  def step(x, inputs):
    t, now, after = inputs
    noise = denoise(x, jnp.full((x.shape[0],), t)).astype(x.dtype)
    clean = (x - jnp.sqrt(1.0 - now) * noise) / jnp.sqrt(now)
    if clip:
      clean = jnp.clip(clean, -1.0, 1.0)
      noise = (x - jnp.sqrt(now) * clean) / jnp.sqrt(1.0 - now)
    return jnp.sqrt(after) * clean + jnp.sqrt(1.0 - after) * noise, None

  steps = (jnp.asarray(timesteps[:-1], jnp.int32), alpha_bar[:-1], alpha_bar[1:])
  return jax.lax.scan(step, x, steps)[0]


def reconstruct(
  key: jax.Array | None,
  denoise: Denoise,
  schedule: Schedule,
  images: jax.Array,
  *,
  step: int = 160,
  num_ddim_steps: int = 1,
  noise: jax.Array | None = None,
) -> jax.Array:
  """Re-generates images: a little forward noise, then denoising.

  Diffence's purification with the indices of its published code: noise as after `step`
  diffusion steps (`alpha_bar[step - 1]`), then DDIM from `alpha_bar[step]` down to
  `alpha_bar[0]`.

  Args:
    key: a JAX random key for the noise; may be None where `noise` is given.
    denoise: `(x_t f32[N,H,W,C] in model units, t i32[N]) -> predicted noise f32[N,H,W,C]`.
    schedule: the noise schedule.
    images: f32[N,H,W,C] in [0, 1].
    step: diffusion steps of noise, 1 to `schedule.num_steps - 1`.
    num_ddim_steps: network evaluations, 1 to `step`.
    noise: f32[N,H,W,C], standard normal; replaces the drawn noise.

  Returns:
    f32[N,H,W,C] in [0, 1].

  Raises:
    ValueError: `step` or `num_ddim_steps` out of range, or no source of noise.
  """
  check_step(schedule, step)
  timesteps = ddim_timesteps(step, num_ddim_steps)
  clean = 2.0 * images.astype(jnp.float32) - 1.0
  if noise is None:
    if key is None:
      raise ValueError("reconstruct got neither a key nor noise; pass one of them.")
    noise = jax.random.normal(key, clean.shape, clean.dtype)
  noised = add_noise(schedule, clean, noise, jnp.full((clean.shape[0],), step - 1))
  return to_unit(ddim(denoise, schedule, noised, timesteps))


def sample(
  key: jax.Array,
  denoise: Denoise,
  schedule: Schedule,
  shape: tuple[int, int, int, int],
  *,
  num_ddim_steps: int = 50,
) -> jax.Array:
  """Draws new images from pure noise.

  Args:
    key: a JAX random key.
    denoise: as in `reconstruct`.
    schedule: the noise schedule.
    shape: (N, H, W, C) of the images to draw.
    num_ddim_steps: network evaluations, 1 to `schedule.num_steps - 1`.

  Returns:
    f32[N,H,W,C] in [0, 1].

  Raises:
    ValueError: `num_ddim_steps` is out of its range.
  """
  noise = jax.random.normal(key, shape, jnp.float32)
  timesteps = ddim_timesteps(schedule.num_steps - 1, num_ddim_steps)
  return to_unit(ddim(denoise, schedule, noise, timesteps, clip=True))


def to_unit(x: jax.Array) -> jax.Array:
  """Maps model units, [-1, 1], to images in [0, 1], clipping what lies outside."""
  return jnp.clip(0.5 * (x + 1.0), 0.0, 1.0)


def check_step(schedule: Schedule, step: int) -> None:
  """Raises ValueError unless `step` diffusion steps can be added and removed."""
  if not 1 <= step < schedule.num_steps:
    raise ValueError(
      f"step is {step}; with a schedule of {schedule.num_steps} steps expected "
      f"1 to {schedule.num_steps - 1}."
    )
