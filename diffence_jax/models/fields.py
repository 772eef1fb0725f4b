"""The fields of models: their types, their ranges, and what a config can hold for them."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffence_jax.checks import check_choice, check_range, check_type, check_whole

# From least to most, of each number where there are several. Most is far beyond any published
# network: it stops what would take all memory, or never end.
_CHANNELS, _LAYERS, _FEATURES = (1, 1024), (1, 1000), (1, 100_000)
_WHOLE = {
  "out_channels": _CHANNELS,
  "width": _FEATURES,
  "channels": _FEATURES,
  "attention_width": _FEATURES,
  "mlp_width": _FEATURES,
  "head_features": _FEATURES,
  "num_head_channels": _FEATURES,
  "heads": _FEATURES,
  "num_heads": _FEATURES,
  "patch": (1, 10_000),
  "depth": _LAYERS,
  "stages": _LAYERS,
  "attention_levels": (0, 30),
  "num_res_blocks": (0, 1000),
  "time_shift": (0, 50_000),
}
_REAL = {
  "multipliers": (1e-3, 1000.0),
  "norm_epsilon": (1e-12, 1.0),
  "mean": (-1.0, 1.0),
  "std": (1e-6, 1.0),
}
_CHOICES = {
  "norm": ("batch", "group"),
  "stem": ("small", "large"),
  "attention_order": ("legacy", "new"),
  "time_layout": ("interleaved", "sin_cos", "cos_sin"),
  "downsample_padding": ("symmetric", "same"),
}
# Images are at most 2^30 pixels wide, and each level but one halves them.
_MOST_LEVELS = 30
# Classes of a classifier, and of a class-conditional denoiser.
CLASSES = {"classifier": (2, 1_000_000), "denoiser": (1, 1_000_000)}


def field_value(
  role: str, model: str, field: dataclasses.Field, value: Any, *, in_range: bool = True
) -> Any:
  """What a config can hold, as a module's field: hashable, dtypes resolved, in its range.

  Args:
    role: "classifier" or "denoiser".
    model: its name, for errors.
    field: the field.
    value: its value; a list may stand for a tuple, and a number for a tuple of one.
    in_range: whether its range is known here, by its name.

  Raises:
    ValueError: the value is of another type, or out of its range.
  """
  name = f"{field.name} of {model!r}"
  if field.name == "dtype":
    return _dtype(name, value)
  if isinstance(field.default, tuple) and not isinstance(value, list | tuple):
    value = (value,)
  check_type(name, value, field.type, field.default)
  if value is None:
    return None
  is_tuple = isinstance(value, list | tuple)
  several = tuple(map(_plain, value if is_tuple else (value,)))
  if in_range and len(several) > _MOST_LEVELS:
    raise ValueError(f"{name} has {len(several)} numbers; expected at most {_MOST_LEVELS}.")
  for each in several if in_range else ():
    _check_one(role, name, field.name, each)
  return several if is_tuple else several[0]


def _check_one(role: str, name: str, field: str, value: Any) -> None:
  """Raises ValueError unless one number or text of a field is in its range."""
  if field == "num_classes":
    check_whole(name, value, *CLASSES[role])
  elif field in _WHOLE:
    check_whole(name, value, *_WHOLE[field])
  elif field in _CHOICES:
    check_choice(name, value, _CHOICES[field])
  elif field == "dropout":
    check_range(name, value, 0.0, 1.0)
    if value == 1:
      raise ValueError(f"{name} is {value}, which leaves nothing; expected less than 1.")
  elif field in _REAL:
    try:
      check_range(name, value, *_REAL[field])
    except ValueError as error:
      if field not in ("mean", "std") or not 1 < value <= 255:
        raise
      raise ValueError(
        f"{name} is {value}, as of bytes; images are in [0, 1]: divide by 255, "
        f"{value / 255:.4g}."
      ) from error


def _plain(value: Any) -> Any:
  """A NumPy scalar as Python's; a whole number stays one, as saved models have it."""
  return value.item() if isinstance(value, np.generic) else value


def _dtype(name: str, value: Any) -> Any:
  """A dtype to compute in."""
  try:
    dtype = jnp.dtype(value)
  except TypeError:
    dtype = None
  if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 2:
    raise ValueError(f"{name} is {value!r}; expected a dtype such as float32 or bfloat16.")
  return dtype
