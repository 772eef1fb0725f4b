"""A model's outputs as people record them, as logits f32[N,Q,K]."""

import dataclasses

import numpy as np

from diffence_jax.data.arrays import map_array
from diffence_jax.predictor import are_finite, check_logits

# How far the sum of a row of probabilities may be from 1: half precision rounds so.
_TOLERANCE = 5e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Outputs:
  """One array of outputs, in the form that its axes tell.

  Behind its leading axes a sample's outputs are nothing or [1] (the one output of a sigmoid),
  [K], or [Q,K] for Q queries about the same sample.

  Attributes:
    name: of the array, for errors.
    values: f[N,...] of a classifier, or f[S,N,...] of shadow models; may be mapped.
    are_probabilities: or else they are logits.
  """

  name: str
  values: np.ndarray
  are_probabilities: bool

  def check_shape(self, axes: tuple[str, ...], sizes: tuple[int, ...]) -> None:
    """Raises ValueError unless the leading axes have these sizes, and the rest is a form."""
    values, leading = self.values, len(axes)
    if values.dtype.kind != "f":
      raise ValueError(
        f"{self.name} are {values.dtype}; expected floating-point numbers, not labels."
      )
    if values.shape[:leading] != sizes or not leading <= values.ndim <= leading + 2:
      expected = ", ".join(f"{axis}={size}" for axis, size in zip(axes, sizes, strict=True))
      raise ValueError(
        f"{self.name} have shape {list(values.shape)}; expected [{expected}] or "
        f"[{expected}, K], or [{expected}, Q, K] for Q queries about the same sample."
      )
    if 0 in values.shape:
      raise ValueError(f"{self.name} have shape {list(values.shape)}; expected no empty axis.")

  def all(self) -> np.ndarray:
    """All of a classifier's, as logits f32[N,Q,K].

    Raises:
      ValueError: a value is NaN, or no probability.
    """
    return self._logits(np.asarray(self.values), self.name)

  def of_model(self, model: int) -> np.ndarray:
    """Those of one shadow model, as above."""
    values = self.values
    if isinstance(values, np.memmap):
      # Mapped anew: what was read of a mapped file counts as memory until it is closed.
      values = map_array(values.filename)
    return self._logits(np.array(values[model]), f"{self.name}[{model}]")

  def _logits(self, values, name):
    # [N] and [N,1] are one output of a sigmoid, [N,K] one query.
    values = values[:, None] if values.ndim == 1 else values
    values = values[:, None] if values.ndim == 2 else values
    is_binary = values.shape[-1] == 1
    if self.are_probabilities:
      values = values.astype(np.float64)
      if is_binary:
        values = np.concatenate([1.0 - values, values], axis=-1)
      _check_probabilities(values, name)
      with np.errstate(divide="ignore"):
        logits = np.log(np.maximum(values, 0.0))
    else:
      logits = values
      if is_binary:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    with np.errstate(over="ignore"):
      logits = logits.astype(np.float32)
    is_lost = ~are_finite(logits)
    if is_lost.any():
      raise ValueError(
        f"{name} have {np.sum(is_lost)} answers without a finite largest logit (NaN or "
        f"infinite), the first of sample {np.argwhere(is_lost)[0][0]}; expected numbers, with "
        "-inf for a probability of 0."
      )
    if not self.are_probabilities:
      called = self.name.replace("logits", "probabilities")
      remedy = f"Call them {called}, or pass their logarithm."
      check_logits(logits.reshape(-1, logits.shape[-1]), name, remedy)
    return logits


def _check_probabilities(values, name):
  low, high = values.min(), values.max()
  apart = np.abs(values.sum(axis=-1) - 1.0).max()
  # NaN compares as False.
  if not (low >= -_TOLERANCE and high <= 1.0 + _TOLERANCE and apart <= _TOLERANCE):
    raise ValueError(
      f"{name} range from {low:.4g} to {high:.4g}, and a row's sum is up to {apart:.4g} from "
      "1; expected probabilities. Logits belong under the name of logits."
    )
