"""Checks of settings, before anything is computed: their types, and their ranges."""

import inspect
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

# A file or folder that a setting or an option names: `~` in it is the user's home.
FilePath = str | os.PathLike

_NAMES = {
  bool: "True or False",
  int: "a whole number",
  float: "a finite number",
  str: "text",
  os.PathLike: "a path",
  tuple: "a tuple",
  Mapping: "a section of settings",
}


def check_range(name: str, value: float, least: float, most: float | None) -> None:
  """Raises ValueError unless `least` <= `value` <= `most` (None for any finite number)."""
  if not _is_finite(value) or value < least or (most is not None and value > most):
    kind = "number" if most is not None else "finite number"
    raise ValueError(f"{name} is {value!r}; expected a {kind}, {_bounds(least, most)}.")


def check_positive(name: str, value: float) -> None:
  """Raises ValueError unless `value` is a finite number above 0."""
  if not _is_finite(value) or value <= 0.0:
    raise ValueError(f"{name} is {value!r}; expected a finite number, above 0.")


def check_whole(name: str, value: int, least: int, most: int | None = None) -> None:
  """Raises ValueError unless `value` is a whole number from `least` to `most` (None: any)."""
  is_whole = isinstance(value, int) and not isinstance(value, bool)
  if not is_whole or value < least or (most is not None and value > most):
    raise ValueError(f"{name} is {value!r}; expected a whole number, {_bounds(least, most)}.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
  """Raises ValueError unless `value` is one of `choices`."""
  if value not in choices:
    known = ", ".join(map(repr, choices))
    raise ValueError(f"{name} is {value!r}; expected one of {known}.")


def check_type(name: str, value: Any, annotation: Any, default: Any = None) -> Any:
  """Checks a setting against its annotation, or where it has none against its default.

  Args:
    name: of the setting, for errors.
    value: of the setting.
    annotation: bool, int, float, str, `FilePath`, a tuple, sequence or mapping type, or a union
      of these and None; anything else takes every value.
    default: stands for the annotation where that is `inspect.Parameter.empty`.

  Returns:
    The value: a whole number given for a float as a float, a list for a tuple as a tuple,
    a path as text without `~`.

  Raises:
    ValueError: it is of another type, or a number that is not finite.
  """
  if annotation is inspect.Parameter.empty:
    if default is None or default is inspect.Parameter.empty:
      return value
    annotation = type(default)
  kinds = _kinds(annotation)
  if kinds is None or (value is None and type(None) in kinds):
    return value
  if isinstance(value, str | os.PathLike) and os.PathLike in kinds:
    return os.path.expanduser(os.fspath(value))
  if isinstance(value, list) and tuple in kinds:  # as JSON has it
    return tuple(value)
  if isinstance(value, bool):
    matches = bool in kinds
  elif isinstance(value, int) and float in kinds and int not in kinds:
    return float(value)
  elif isinstance(value, float):
    matches = float in kinds and math.isfinite(value)
  else:
    matches = any(isinstance(value, kind) for kind in kinds)
  if not matches:
    expected = " or ".join(_NAMES.get(kind, str(kind)) for kind in kinds if kind in _NAMES)
    raise ValueError(f"{name} is {value!r}; expected {expected or 'None'}.")
  return value


def _kinds(annotation) -> tuple[type, ...] | None:
  """The types that an annotation allows; None where it is not one that is checked."""
  if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
    parts = [_kinds(part) for part in typing.get_args(annotation)]
    return None if None in parts else tuple(kind for part in parts for kind in part)
  origin = typing.get_origin(annotation) or annotation
  if origin is None or origin is type(None):
    return (type(None),)
  if not isinstance(origin, type):
    return None
  if issubclass(origin, bool | int | float | str):
    return (origin,)
  if issubclass(origin, os.PathLike):
    return (os.PathLike,)
  if issubclass(origin, Mapping):
    return (Mapping,)
  if issubclass(origin, tuple) or origin in (Sequence, list):
    return (tuple,)
  return None


def _is_finite(value):
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return is_number and math.isfinite(value)


def _bounds(least, most):
  return f"at least {least}" if most is None else f"{least} to {most}"
