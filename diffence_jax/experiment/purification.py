"""How an experiment re-generates images: schedule, sampler, and the dtype of the network."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from diffence_jax.diffusion import Schedule, make_schedule, respaced
from diffence_jax.predictor import Bound

DTYPES = ("", "float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Purification:
  """All that re-generations depend on besides the network; checked when it is used.

  Attributes:
    schedule: options of `make_schedule`, that the network is trained for.
    step: diffusion steps of noise.
    num_ddim_steps: evaluations of the network on the way back.
    respacing: "ddim5": steps are counted among 5 of the schedule's; "" for all of them.
    clip: whether predicted clean images are kept in [-1, 1].
    to_clean: whether the way back ends at the clean image; see `reconstruct`.
    dtype: in which the network computes here; "" as it was trained.
    model_shape: (H,W,C) of the images that the network is for; None for those of the data.
  """

  schedule: Mapping[str, Any]
  step: int
  num_ddim_steps: int
  respacing: str
  clip: bool
  to_clean: bool
  dtype: str
  model_shape: tuple[int, int, int] | None

  def full_schedule(self) -> Schedule:
    """The schedule that the network is trained for."""
    return make_schedule(**self.schedule)

  def sampler_schedule(self) -> Schedule:
    """The schedule that steps are counted in."""
    full = self.full_schedule()
    return respaced(full, self.respacing) if self.respacing else full

  @property
  def sampler(self) -> dict[str, Any]:
    """The settings that `reconstruct` and `protect` take."""
    names = ("step", "num_ddim_steps", "clip", "to_clean", "model_shape")
    return {name: getattr(self, name) for name in names}

  def network(self, trained: Bound) -> Bound:
    """The trained network, computing in the dtype in which it is to re-generate images.

    Raises:
      ValueError: it has no such field.
    """
    if not self.dtype:
      return trained
    if not hasattr(trained.module, "dtype"):
      raise ValueError(
        f"purify.dtype is {self.dtype!r}, and {type(trained.module).__name__} has no field "
        "dtype; leave it empty."
      )
    return trained._replace(module=trained.module.clone(dtype=jnp.dtype(self.dtype)))
