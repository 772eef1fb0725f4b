"""DDIM: the deterministic way back from noise to an image."""

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import rng
from diffence_jax.checks import check_type, check_whole
from diffence_jax.diffusion.conditional import labelled
from diffence_jax.diffusion.loss import predicted_noise
from diffence_jax.diffusion.resize import fit_images
from diffence_jax.diffusion.schedule import Schedule, add_noise, check_schedule
from diffence_jax.predictor import Denoise, check_function, check_images, to_array


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
    denoise: as `predicted_noise` takes it.
    schedule: the noise schedule.
    x: f32[N,H,W,C], noised images at index `timesteps[0]`.
    timesteps: i32[S + 1], strictly decreasing schedule indices; -1 is the clean image.
    clip: keeps the clean image that every step predicts within [-1, 1], and the noise in
      accord with it; without, an error at a high index is blown up by 1 / sqrt(alpha_bar).

  Returns:
    f32[N,H,W,C] at index `timesteps[-1]`, in model units.
  """
  # The last entry, which -1 stands for, is an image without noise.
  alpha_bar = jnp.append(schedule.alpha_bar, 1.0)[np.asarray(timesteps)]

  def step(x, inputs):
    t, now, after = inputs
    noise = predicted_noise(denoise, schedule, x, jnp.full((x.shape[0],), t)).astype(x.dtype)
    # Clipping would make an image of infinity.
    noise = jnp.where(jnp.isfinite(noise), noise, jnp.nan)
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
  clip: bool = False,
  to_clean: bool = False,
  model_shape: tuple[int, int, int] | None = None,
) -> jax.Array:
  """Re-generates images: a little forward noise, then denoising.

  Both published pipelines of Diffence are settings of it. With the DDPM U-Net: noise as after
  `step` diffusion steps (`alpha_bar[step - 1]`), then DDIM from `alpha_bar[step]` down to
  `alpha_bar[0]`. With the guided-diffusion network `clip`, `to_clean`, as many `num_ddim_steps`
  as `step` has, and a schedule that is `respaced`.

  Args:
    key: a JAX random key for the noise; may be None where `noise` is given.
    denoise: as `predicted_noise` takes it.
    schedule: the noise schedule.
    images: f32[N,H,W,C] in [0, 1].
    step: diffusion steps of noise, 1 to `schedule.num_steps - 1`.
    num_ddim_steps: network evaluations, 1 to `step`.
    noise: f32[N,H,W,C], standard normal; replaces the drawn noise.
    clip: keeps the clean images that the network predicts within [-1, 1].
    to_clean: begins the way back at the index of the noise, and ends it at the clean image;
      all indices are then lower by one, and `step` may be `schedule.num_steps`.
    model_shape: (H', W', C') of the images the network is for; the images are scaled to it,
      antialiased, and back, gray ones repeated in all channels. None: that of the images.

  Returns:
    f32[N,H,W,C] in [0, 1]; NaN where the network's noise is not finite.

  Raises:
    TypeError: an argument is of another type.
    ValueError: `step` or `num_ddim_steps` out of range, no source of noise, noise of a wrong
      shape, or a gray network for images in colour.
  """
  images = check_images(images)
  check_function("denoise", denoise, "x, t")
  check_sampler(
    schedule,
    images.shape[1:],
    step=step,
    num_ddim_steps=num_ddim_steps,
    clip=clip,
    to_clean=to_clean,
    model_shape=model_shape,
  )
  shape = images.shape[1:]
  denoise = labelled(denoise, images)
  images = fit_images(images.astype(jnp.float32), model_shape or shape)
  clean = 2.0 * images - 1.0
  if noise is None:
    if key is None:
      raise ValueError("reconstruct got neither a key nor noise; pass one of them.")
    noise = jax.random.normal(rng.own_key(key), clean.shape, clean.dtype)
  else:
    noise = _given_noise(noise)
  if noise.shape != clean.shape:
    raise ValueError(f"noise has shape {noise.shape}; expected {clean.shape}.")
  noised = add_noise(schedule, clean, noise, jnp.full((clean.shape[0],), step - 1))
  timesteps = ddim_timesteps(step, num_ddim_steps) - int(to_clean)
  regenerated = to_unit(ddim(denoise, schedule, noised, timesteps, clip=clip))
  return fit_images(regenerated, shape)


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
  check_schedule(schedule)
  check_function("denoise", denoise, "x, t")
  check_type("shape", shape, tuple[int, int, int, int])
  for place, size in enumerate(shape):
    check_whole(f"shape[{place}]", size, 1)
  check_type("num_ddim_steps", num_ddim_steps, int)
  noise = jax.random.normal(rng.own_key(key), shape, jnp.float32)
  timesteps = ddim_timesteps(schedule.num_steps - 1, num_ddim_steps)
  return to_unit(ddim(denoise, schedule, noise, timesteps, clip=True))


def _given_noise(noise):
  """A caller's noise as an array; its values are looked at where they are known."""
  noise = to_array(noise, "noise")
  if not isinstance(noise, jax.core.Tracer) and not np.isfinite(np.asarray(noise)).all():
    raise ValueError("noise has NaN or infinite values; expected numbers.")
  return noise


def to_unit(x: jax.Array) -> jax.Array:
  """Maps model units, [-1, 1], to images in [0, 1], clipping what lies outside."""
  return jnp.clip(0.5 * (x + 1.0), 0.0, 1.0)


def check_sampler(
  schedule: Schedule,
  image_shape: tuple[int, ...] | None = None,
  *,
  step: int = 160,
  num_ddim_steps: int = 1,
  clip: bool = False,
  to_clean: bool = False,
  model_shape: tuple[int, int, int] | None = None,
) -> None:
  """Raises ValueError unless `reconstruct` can use its settings on such images."""
  check_schedule(schedule)
  check_type("step", step, int)
  check_type("num_ddim_steps", num_ddim_steps, int)
  check_type("clip", clip, bool)
  check_type("to_clean", to_clean, bool)
  check_type("model_shape", model_shape, tuple | None)
  most = schedule.num_steps - 1 + int(to_clean)
  if not 1 <= step <= most:
    raise ValueError(
      f"step is {step}; with a schedule of {schedule.num_steps} steps expected 1 to {most}."
    )
  ddim_timesteps(step, num_ddim_steps)
  if model_shape is None:
    return
  if len(model_shape) != 3:
    raise ValueError(f"model_shape is {model_shape}; expected height, width and channels.")
  for place, size in enumerate(model_shape):
    check_whole(f"model_shape[{place}]", size, 1)
  if image_shape is not None and model_shape[2] < image_shape[2]:
    raise ValueError(
      f"model_shape is {model_shape}, and the images have {image_shape[2]} channels; a network "
      "for gray images cannot re-generate colours. Use one for colour images."
    )
