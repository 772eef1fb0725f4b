"""Training a diffusion model's noise-prediction network."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from diffence_jax import models, rng
from diffence_jax.batching import shuffled, to_float
from diffence_jax.checks import (
  check_instance,
  check_labels,
  check_numbers,
  check_positive,
  check_range,
  check_whole,
)
from diffence_jax.compiling import shared
from diffence_jax.data import Images
from diffence_jax.diffusion import Schedule, ddpm_loss, fit_images
from diffence_jax.diffusion.schedule import check_schedule
from diffence_jax.training.feed import check_image_array, check_run, feed
from diffence_jax.training.loop import Loss, fit, init_state, train_step

_MAX_STEPS = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class DenoiserSettings:
  """How a diffusion model is trained; checked when made.

  Attributes:
    num_steps: training steps.
    batch_size: over all devices.
    learning_rate: of Adam, after `warmup_steps` of linear growth.
    warmup_steps: 0 for none.
    clip_norm: the largest global norm of a gradient.
    ema_decay: of the parameters' moving average.
  """

  num_steps: int = 2000
  batch_size: int = 64
  learning_rate: float = 1e-3
  warmup_steps: int = 100
  clip_norm: float = 1.0
  ema_decay: float = 0.999

  def __post_init__(self):
    check_whole("num_steps", self.num_steps, 1, _MAX_STEPS)
    check_whole("batch_size", self.batch_size, 1, 1_000_000)
    check_positive("learning_rate", self.learning_rate)
    check_whole("warmup_steps", self.warmup_steps, 0, _MAX_STEPS)
    check_positive("clip_norm", self.clip_norm)
    check_range("ema_decay", self.ema_decay, 0.0, 1.0)


# Optax raises floats to integer powers, which strict promotion refuses.
@jax.numpy_dtype_promotion("standard")
def train_denoiser(
  module: nn.Module,
  images: Images,
  schedule: Schedule,
  settings: DenoiserSettings,
  *,
  checkpoint_every: int,
  seed: int,
  mesh: Mesh,
  directory: Path,
  labels: np.ndarray | None = None,
  model_shape: tuple[int, int, int] | None = None,
  steps_per_call: int | None = None,
  shard_parameters: bool = False,
) -> dict[str, Any]:
  """Trains by the DDPM loss with Adam, warm-up and clipping; keeps the moving average.

  Args:
    module: `(x_t f32[N,H,W,C], t i32[N], train) -> predicted noise f32[N,H,W,C]`; with
      `labels` i32[N] after t where it is class-conditional.
    images: u8[N,H,W,C]; of those on disk a batch is in memory at a time.
    schedule: the noise schedule.
    settings: how it is trained.
    checkpoint_every: steps between checkpoints.
    seed: of initialisation, order, diffusion steps and noise.
    mesh: batches are split over it.
    directory: for checkpoints and metrics; a run resumes from what is there.
    labels: i[N], below the module's `num_classes`, where it is class-conditional; else None.
    model_shape: (H',W',C') that the images are scaled to; None: their own.
    steps_per_call: as in `feed.feed`.
    shard_parameters: as in `feed.feed`.

  Returns:
    The variables, {"params": the moving average}.

  Raises:
    FloatingPointError: the loss is no longer finite.
    TypeError: the module, the schedule, the settings or the mesh is of another kind.
    ValueError: the images or a number are not right, or a batch cannot be split over the
      devices.
  """
  check_instance("module", module, nn.Module)
  check_schedule(schedule)
  check_instance("settings", settings, DenoiserSettings)
  check_run(seed=seed, mesh=mesh, checkpoint_every=checkpoint_every, directory=directory)
  check_image_array("images", images)
  examples = {"images": images, **_check_labels(module, labels, len(images))}
  model_shape = images.shape[1:] if model_shape is None else _check_shape(model_shape)
  optimizer = _adam(settings.learning_rate, settings.warmup_steps, settings.clip_norm)
  numbers = tuple((np.asarray(v).tobytes(), v.dtype) for v in schedule)
  variables = models.init(module, rng.stream(seed, "diffusion/init"), model_shape)
  sizes, order = {"images": len(images)}, shuffled(images=settings.batch_size)
  steps, batches, steps_per_call = feed(
    {"denoise": _step_of(module, numbers, model_shape, optimizer, settings.ema_decay)},
    {"images": examples},
    lambda first: (("denoise", rows) for rows in order(sizes, seed, first)),
    mesh,
    steps_per_call,
    shard_parameters=shard_parameters,
  )
  state = fit(
    steps,
    init_state(variables, optimizer, average=True),
    batches,
    num_steps=settings.num_steps,
    key=rng.stream(seed, "diffusion/steps"),
    mesh=mesh,
    directory=directory,
    checkpoint_every=checkpoint_every,
    description="diffusion model",
    steps_per_call=steps_per_call,
    shard_parameters=shard_parameters,
  )
  return {"params": state.average}


@shared(16)
def _adam(learning_rate, warmup_steps, clip_norm):
  if warmup_steps:
    learning_rate = optax.linear_schedule(0.0, learning_rate, warmup_steps)
  return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate))


# Another seed is no other program.
@shared(4)
def _step_of(module, schedule, model_shape, optimizer, ema_decay):
  """The step; of a schedule as the bytes of its arrays, by which equal ones are known."""
  schedule = Schedule(*(jnp.asarray(np.frombuffer(*values)) for values in schedule))
  return train_step(noise_prediction(module, schedule, model_shape), optimizer, ema_decay)


def _check_labels(module, labels, num):
  """The labels as examples have them; {} for a network that takes none."""
  if not models.is_conditional(module):
    if labels is not None:
      raise ValueError("Got labels, and the network is not class-conditional; leave them out.")
    return {}
  labels = None if labels is None else check_numbers("labels", labels)
  if labels is None or labels.shape != (num,) or labels.dtype.kind not in "iu":
    raise ValueError(
      f"The network is for {module.num_classes} classes; expected labels, whole numbers, one "
      f"for each of the {num} images."
    )
  check_labels("labels", labels, module.num_classes)
  return {"labels": labels.astype(np.int32)}


def _check_shape(model_shape):
  check_instance("model_shape", model_shape, tuple, list)
  if len(model_shape) != 3:
    raise ValueError(f"model_shape is {model_shape}; expected (height, width, channels).")
  for place, size in enumerate(model_shape):
    check_whole(f"model_shape[{place}]", size, 1)
  return tuple(model_shape)


def noise_prediction(
  module: nn.Module, schedule: Schedule, model_shape: tuple[int, int, int]
) -> Loss:
  """The DDPM loss of batches {"images": {"images" u8[N,H,W,C]}}, scaled to `model_shape`.

  With "labels" i32[N] beside the images where the module is class-conditional.
  """

  def loss(params, model_state, batch, key):
    images = fit_images(to_float(batch["images"]["images"]), model_shape)
    labels = [batch["images"]["labels"]] if "labels" in batch["images"] else []
    loss_key, dropout_key = jax.random.split(rng.own_key(key))

    def denoise(x, t):
      mode = models.training_mode(module)
      rngs = {"dropout": dropout_key}
      return module.apply({"params": params}, x, t, *labels, **mode, rngs=rngs)

    return ddpm_loss(loss_key, denoise, schedule, images), (model_state, {})

  return loss
