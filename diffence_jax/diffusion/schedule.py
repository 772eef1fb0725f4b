"""The noise schedule: how much of an image is left after t diffusion steps."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax.checks import check_positive, check_type, check_whole


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
  """
  check_linear(num_steps=num_steps, beta_start=beta_start, beta_end=beta_end)
  beta = np.linspace(beta_start, beta_end, num_steps, dtype=np.float64)
  alpha_bar = jnp.asarray(np.cumprod(1.0 - beta), jnp.float32)
  return Schedule(alpha_bar, jnp.arange(num_steps, dtype=jnp.int32))


def check_linear(*, num_steps: int, beta_start: float, beta_end: float) -> None:
  """Raises ValueError where a setting of `linear_schedule` is out of its range."""
  check_whole("num_steps", num_steps, 2, 1_000_000)
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
  return schedule


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
  found = re.fullmatch(r"(ddim)?([1-9]\d*)", respacing)
  num_steps = schedule.num_steps
  if not found or int(found[2]) > num_steps:
    raise ValueError(
      f"respacing is {respacing!r}; expected 'ddimK' or 'K', such as 'ddim5', with K from 1 to "
      f"the schedule's {num_steps} steps."
    )
  count = int(found[2])
  if found[1]:
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
