"""The noise schedule: how much of an image is left after t diffusion steps."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax.checks import check_numbers, check_positive, check_type, check_whole
from diffence_jax.named import options_of, unknown_name

_MOST_STEPS = 1_000_000


class Schedule(NamedTuple):
  """A discrete variance-preserving noise schedule.

  Attributes:
    alpha_bar: f32[num_steps], decreasing, in (0, 1]: the share of the signal's variance that
      is left after step t, the cumulative product of 1 - beta.
    timesteps: i32[num_steps], rising: the step that the network is told at every index, 0 to
      num_steps - 1 unless the schedule is respaced.
  """

  alpha_bar: jax.Array
  timesteps: jax.Array

  @property
  def num_steps(self) -> int:
    """The number of diffusion steps the schedule has."""
    return self.alpha_bar.shape[0]


def linear_schedule(
  num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Schedule:
  """Noise variances that grow linearly (Ho et al. 2020, section 4).

  Args:
    num_steps: diffusion steps, 2 to 1,000,000.
    beta_start: variance added by the first step, in (0, 1).
    beta_end: variance added by the last step, in [beta_start, 1).

  Returns:
    The schedule, `alpha_bar` f32[num_steps], multiplied up in float64.

  Raises:
    ValueError: a setting is out of its range.

  Example:
    >>> import diffence_jax as dj
    >>> schedule = dj.linear_schedule()
    >>> schedule.num_steps
    1000
    >>> bool(schedule.alpha_bar[0] > schedule.alpha_bar[160] > schedule.alpha_bar[-1])
    True
  """
  check_linear(num_steps=num_steps, beta_start=beta_start, beta_end=beta_end)
  return schedule_of_betas(np.linspace(beta_start, beta_end, num_steps, dtype=np.float64))


def scaled_linear_schedule(
  num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Schedule:
  """Noise variances whose roots grow linearly (Rombach et al. 2022); as `linear_schedule`."""
  check_linear(num_steps=num_steps, beta_start=beta_start, beta_end=beta_end)
  roots = np.linspace(beta_start**0.5, beta_end**0.5, num_steps, dtype=np.float64)
  return schedule_of_betas(roots**2)


def sigmoid_schedule(
  num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Schedule:
  """Noise variances along a sigmoid from -6 to 6 (Xu et al. 2022); as `linear_schedule`."""
  check_linear(num_steps=num_steps, beta_start=beta_start, beta_end=beta_end)
  rise = 1.0 / (1.0 + np.exp(-np.linspace(-6.0, 6.0, num_steps, dtype=np.float64)))
  return schedule_of_betas(rise * (beta_end - beta_start) + beta_start)


def cosine_schedule(num_steps: int = 1000) -> Schedule:
  """A share of the signal that falls as a squared cosine (Nichol & Dhariwal 2021, equation 17).

  Args:
    num_steps: diffusion steps, at least 2.

  Returns:
    The schedule; no step adds a variance of more than 0.999.

  Raises:
    ValueError: the number of steps is out of its range.
  """
  check_whole("num_steps", num_steps, 2, _MOST_STEPS)
  time = np.arange(num_steps + 1) / num_steps
  left = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
  return schedule_of_betas(np.minimum(1.0 - left[1:] / left[:-1], 0.999))


def schedule_of_betas(betas: Sequence[float] | np.ndarray) -> Schedule:
  """Any noise variances.

  Args:
    betas: the variance that each step adds, at least 2 in (0, 1).

  Returns:
    The schedule, `alpha_bar` f32[num_steps], multiplied up in float64.

  Raises:
    ValueError: one is out of this range, or nothing is left of the signal in float32.
  """
  betas = check_numbers("betas", betas).astype(np.float64)
  if betas.ndim != 1:
    raise ValueError(f"betas has shape {betas.shape}; expected one number a step.")
  check_whole("num_steps", len(betas), 2, _MOST_STEPS)
  if not ((betas > 0) & (betas < 1)).all():  # nor are they NaN
    raise ValueError("betas has values outside of (0, 1); expected the variance of each step.")
  alpha_bar = np.cumprod(1.0 - betas).astype(np.float32)
  if alpha_bar[-1] < np.finfo(np.float32).tiny:
    raise ValueError(
      f"After num_steps {len(betas)} nothing is left of the signal in float32; expected fewer "
      "steps or less noise."
    )
  return Schedule(jnp.asarray(alpha_bar), jnp.arange(len(betas), dtype=jnp.int32))


SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
  "linear": linear_schedule,
  "scaled_linear": scaled_linear_schedule,
  "sigmoid": sigmoid_schedule,
  "cosine": cosine_schedule,
  "betas": schedule_of_betas,
}


def make_schedule(kind: str = "linear", **options: Any) -> Schedule:
  """A schedule by name, as the manifest of a saved model has it.

  Args:
    kind: a key of `SCHEDULES`.
    **options: of its function, such as `num_steps`.

  Raises:
    ValueError: there is no such kind or option, or an option is out of its range.
  """
  if kind not in SCHEDULES:
    raise unknown_name("kind of schedule", kind, SCHEDULES)
  known = options_of(SCHEDULES[kind], 0)
  for option in options:
    if option not in known:
      raise unknown_name(f"option of a {kind} schedule called", option, known)
  return SCHEDULES[kind](**options)


def check_linear(*, num_steps: int, beta_start: float, beta_end: float) -> None:
  """Raises ValueError where a setting of `linear_schedule` is out of its range."""
  check_whole("num_steps", num_steps, 2, _MOST_STEPS)
  check_positive("beta_start", beta_start)
  check_positive("beta_end", beta_end)
  for name, value, least in (("beta_start", beta_start, 0), ("beta_end", beta_end, beta_start)):
    if not least <= value < 1:
      raise ValueError(
        f"{name} is {value}; expected 0 < beta_start <= beta_end < 1, and beta_start is "
        f"{beta_start}."
      )


linear_schedule.check_options = check_linear


def check_schedule(schedule: Schedule) -> Schedule:
  """Returns the schedule; raises TypeError unless it is one, ValueError if it does not fit."""
  if not isinstance(schedule, Schedule):
    raise TypeError(
      f"schedule is a {type(schedule).__name__}; expected a Schedule, as linear_schedule gives."
    )
  shapes = [np.shape(values) for values in schedule]
  if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
    raise ValueError(
      f"schedule has alpha_bar {list(shapes[0])} and timesteps {list(shapes[1])}; expected one "
      "number a step in both."
    )
  if not any(isinstance(values, jax.core.Tracer) for values in schedule):
    _check_steps(*map(np.asarray, schedule))
  return schedule


def _check_steps(alpha_bar, timesteps):
  # What is left of the signal may be the same after two steps, in float32.
  falls = (np.diff(alpha_bar) <= 0.0).all()
  if not (falls and ((alpha_bar > 0.0) & (alpha_bar <= 1.0)).all()):  # nor is one NaN
    raise ValueError(
      "schedule has an alpha_bar that is not falling, in (0, 1]; expected what is left of the "
      "signal after each step, as make_schedule gives."
    )
  if timesteps.dtype.kind not in "iu" or not (np.diff(timesteps, prepend=-1) > 0).all():
    raise ValueError(
      "schedule has timesteps that are no whole numbers from 0 on, rising; expected the step "
      "that the network is told at every index, as make_schedule gives."
    )


def respaced(schedule: Schedule, respacing: str) -> Schedule:
  """Keeps some of a schedule's steps, at which its network can be asked as before.

  As guided-diffusion's `space_timesteps` chooses them (Nichol & Dhariwal 2021, section 4).

  Args:
    schedule: of S steps.
    respacing: "ddimK": K steps at the same whole distance from each other, from step 0 on;
      or "K": K steps spread evenly from the first to the last one, rounded.

  Returns:
    A schedule of K steps, the indices of which count the steps that are kept.

  Raises:
    ValueError: neither form, or the schedule cannot be divided so.
  """
  check_type("respacing", respacing, str)
  check_schedule(schedule)
  match = re.fullmatch(r"(ddim)?([1-9]\d*)", respacing)
  num_steps = schedule.num_steps
  if not match or int(match[2]) > num_steps:
    raise ValueError(
      f"respacing is {respacing!r}; expected 'ddimK' or 'K', such as 'ddim5', with K from 1 to "
      f"the schedule's {num_steps} steps."
    )
  count = int(match[2])
  if match[1]:
    strides = range(1, num_steps + 1)
    stride = next((s for s in strides if len(range(0, num_steps, s)) == count), None)
    if stride is None:
      raise ValueError(
        f"respacing is {respacing!r}, but no whole distance leaves {count} of {num_steps} "
        f"steps; choose another number, or {str(count)!r} for nearly equal distances."
      )
    kept = np.arange(0, num_steps, stride)
  else:
    kept = np.linspace(0, num_steps - 1, count).round().astype(np.int64)
  return Schedule(schedule.alpha_bar[kept], schedule.timesteps[kept])


def add_noise(
  schedule: Schedule, clean: jax.Array, noise: jax.Array, t: jax.Array
) -> jax.Array:
  """Forward diffusion: `sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise`.

  Args:
    schedule: the noise schedule.
    clean: f32[N,H,W,C] in model units, [-1, 1].
    noise: f32[N,H,W,C], standard normal.
    t: i32[N], index into the schedule.

  Returns:
    f32[N,H,W,C], the noised images (Ho et al. 2020, equation 4).
  """
  alpha_bar = schedule.alpha_bar[t].reshape((-1,) + (1,) * (clean.ndim - 1))
  return jnp.sqrt(alpha_bar) * clean + jnp.sqrt(1.0 - alpha_bar) * noise
