"""Networks that predict something else than the noise, as denoisers that predict it.

With x = a x_0 + s eps, a^2 = alpha_bar and s^2 = 1 - alpha_bar, each of them determines the
noise eps.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.tree_util import Partial

from diffence_jax import models
from diffence_jax.checks import check_instance, check_positive
from diffence_jax.diffusion.schedule import Schedule, check_schedule, make_schedule
from diffence_jax.models.saved import Manifest
from diffence_jax.named import unknown_name
from diffence_jax.predictor import Denoise, as_argument


def as_noise(
  network: Callable[..., jax.Array],
  schedule: Schedule,
  predicts: str,
  *,
  sigma_data: float = 0.5,
) -> Denoise:
  """Makes a denoiser of a network that predicts something else than the noise.

  Args:
    network: `(x f32[N,H,W,C], t [N]) -> f32[N,H,W,C]`, and labels i32[N] behind t where it is
      class-conditional; as `models.denoiser` binds it. Of 2 C channels the second half, a
      learned variance, is left out. What x and t are depends on `predicts`.
    schedule: that the network is for, all its steps: not `respaced`, of which the denoiser can
      be asked afterwards.
    predicts: "clean", the image x_0 without noise ("sample" in Diffusers); "v", a eps - s x_0
      ("v_prediction"; Salimans & Ho 2022, appendix D), both of x in model units and steps
      t i32; or "edm", the raw network F of c_in x / a and c_noise = log(sigma) / 4,
      f32, with sigma = s / a and c_in = 1 / sqrt(sigma^2 + sigma_data^2), that Karras et al.
      (2022, table 1) train.
    sigma_data: of "edm", the spread of the data that it was trained for, in model units.

  Returns:
    `(x f32[N,H,W,C] in model units, t i32[N]) -> predicted noise f32[N,H,W,C]`, labels behind t
    as before. It is a pytree with the network's variables as leaves.

  Raises:
    TypeError: `network` is no function, or `schedule` no schedule.
    ValueError: there is no such way to predict, the schedule is respaced, or `sigma_data` is
      not positive.
  """
  check_instance("network", network, Callable)
  check_schedule(schedule)
  check_positive("sigma_data", sigma_data)
  if predicts not in _WAYS:
    raise unknown_name("way to predict", predicts, _WAYS)
  last = int(np.asarray(schedule.timesteps)[-1])  # known while the caller is being traced
  if last != schedule.num_steps - 1:
    raise ValueError(
      f"The schedule is respaced, {schedule.num_steps} steps up to {last}; expected the "
      "network's own, before `respaced`."
    )
  return Partial(
    _WAYS[predicts], as_argument(network), jnp.asarray(schedule.alpha_bar), sigma_data
  )


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseNetwork:
  """A network that predicts something else, as a function that predicts the noise.

  `models.denoiser` binds it to the network's own variables, in the place of a module.

  Attributes:
    network: the module.
    schedule: this and the next two as `as_noise` takes them.
    predicts: what the network does.
    sigma_data: of "edm".
  """

  network: nn.Module
  schedule: Schedule
  predicts: str
  sigma_data: float = 0.5

  def __call__(
    self, variables: Any, x: jax.Array, t: jax.Array, labels: jax.Array | None = None
  ) -> jax.Array:
    """The predicted noise f32[N,H,W,C] in x f32[N,H,W,C], in model units, at steps t i32[N]."""
    network, given = models.denoiser(self.network, variables), (labels,)
    denoise = as_noise(network, self.schedule, self.predicts, sigma_data=self.sigma_data)
    return denoise(x, t, *(given if self.num_classes is not None else ()))

  @property
  def num_classes(self) -> int | None:
    """Of a class-conditional network; None of others."""
    return self.network.num_classes if models.is_conditional(self.network) else None

  @property
  def dtype(self) -> Any:
    """In which the network computes."""
    return self.network.dtype

  def clone(self, **fields: Any) -> "NoiseNetwork":
    """The same of a network with other fields."""
    return dataclasses.replace(self, network=self.network.clone(**fields))


def noise_network(module: nn.Module, manifest: Manifest) -> nn.Module | NoiseNetwork:
  """The network of a saved denoiser, or what makes it one that predicts the noise."""
  if manifest.predicts == "noise":
    return module
  schedule = make_schedule(**manifest.schedule)
  settings = {} if manifest.sigma_data is None else {"sigma_data": manifest.sigma_data}
  return NoiseNetwork(module, schedule, manifest.predicts, **settings)


def _parts(alpha_bar: jax.Array, x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
  """A and s, f32[N,1,1,1]."""
  left = alpha_bar[t].reshape(-1, *(1,) * (x.ndim - 1))
  return jnp.sqrt(left), jnp.sqrt(1.0 - left)


def _ask(network, x: jax.Array, t: jax.Array, labels: tuple[Any, ...]) -> jax.Array:
  """What the network predicts, f32[N,H,W,C]."""
  return network(x, t, *labels)[..., : x.shape[-1]].astype(jnp.float32)


def _of_clean(network, alpha_bar, sigma_data, x, t, *labels):
  del sigma_data
  a, s = _parts(alpha_bar, x, t)
  return (x - a * _ask(network, x, t, labels)) / s


def _of_v(network, alpha_bar, sigma_data, x, t, *labels):
  del sigma_data
  a, s = _parts(alpha_bar, x, t)
  return s * x + a * _ask(network, x, t, labels)


def _of_edm(network, alpha_bar, sigma_data, x, t, *labels):
  # Theirs keeps the signal as it is: y = x / a, with noise of the spread sigma = s / a.
  a, s = _parts(alpha_bar, x, t)
  sigma, y = s / a, x / a
  spread = jnp.sqrt(sigma**2 + sigma_data**2)
  output = _ask(network, y / spread, jnp.log(sigma).reshape(-1) / 4.0, labels)
  clean = (sigma_data / spread) ** 2 * y + sigma * sigma_data / spread * output
  return (y - clean) / sigma


_WAYS = {"clean": _of_clean, "v": _of_v, "edm": _of_edm}
