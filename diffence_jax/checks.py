"""Checks of settings, before anything is computed: their types, and their ranges."""

import inspect
import numbers
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# A file or folder that a setting or an option names: `~` in it is the user's home.
FilePath = str | os.PathLike

# Beyond it a number is infinite in float32, in which all is computed.
LARGEST = float(np.finfo(np.float32).max)

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
    raise ValueError(f"{name} is {shown(value)}; expected a {kind}, {_bounds(least, most)}.")


def check_positive(name: str, value: float, most: float | None = None) -> None:
  """Raises ValueError unless 0 < `value` <= `most` (None for any finite number)."""
  if not _is_finite(value) or value <= 0.0 or (most is not None and value > most):
    kind = "finite number, above 0" if most is None else f"number, above 0 and at most {most}"
    raise ValueError(f"{name} is {shown(value)}; expected a {kind}.")


def check_open(name: str, value: float, above: float, below: float) -> None:
  """Raises ValueError unless `above` < `value` < `below`."""
  if not _is_finite(value) or not above < value < below:
    raise ValueError(f"{name} is {shown(value)}; expected a number in ({above:g}, {below:g}).")


def check_whole(name: str, value: int, least: int, most: int | None = None) -> None:
  """Raises ValueError unless `value` is a whole number from `least` to `most` (None: any)."""
  is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not is_whole or value < least or (most is not None and value > most):
    raise ValueError(
      f"{name} is {shown(value)}; expected a whole number, {_bounds(least, most)}."
    )


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
  """Raises ValueError unless `value` is one of `choices`."""
  if not isinstance(value, str) or value not in choices:
    known = ", ".join(map(repr, choices))
    raise ValueError(f"{name} is {shown(value)}; expected one of {known}.")


def check_type(name: str, value: Any, annotation: Any, default: Any = None) -> Any:
  """Checks a setting against its annotation, or where it has none against its default.

  Args:
    name: of the setting, for errors.
    value: of the setting.
    annotation: bool, int, float, str, `FilePath`, a tuple, sequence or mapping type, or a union
      of these and None; anything else takes every value. What a tuple or sequence holds is
      checked too.
    default: stands for the annotation where that is `inspect.Parameter.empty`.

  Returns:
    The value: a whole number given for a float as a float, a list for a tuple as a tuple, a
    NumPy scalar as Python's, a path as text without `~`.

  Raises:
    ValueError: it is of another type, or a number that is not finite.
  """
  if annotation is inspect.Parameter.empty:
    if default is None or default is inspect.Parameter.empty:
      return value
    annotation = type(default)
  kinds = _kinds(annotation)
  if isinstance(value, np.generic):
    value = value.item()
  if kinds is None or (value is None and type(None) in kinds):
    return value
  if isinstance(value, str | os.PathLike) and os.PathLike in kinds:
    return os.path.expanduser(os.fspath(value))
  if isinstance(value, list | tuple) and tuple in kinds:  # a list as JSON has it
    return _check_elements(name, tuple(value), annotation)
  if isinstance(value, bool):
    matches = bool in kinds
  elif isinstance(value, int) and float in kinds and int not in kinds:
    matches = _is_finite(value)
  elif isinstance(value, float):
    matches = float in kinds and _is_finite(value)
  else:
    matches = any(isinstance(value, kind) for kind in kinds)
  if not matches:
    expected = " or ".join(_NAMES.get(kind, str(kind)) for kind in kinds if kind in _NAMES)
    raise ValueError(f"{name} is {shown(value)}; expected {expected or 'None'}.")
  return float(value) if type(value) is int and int not in kinds else value


def check_instance(name: str, value: Any, *kinds: type) -> None:
  """Raises TypeError unless a value is of one of these kinds."""
  if not isinstance(value, kinds):
    expected = " or ".join(kind.__name__ for kind in kinds)
    raise TypeError(f"{name} is a {type(value).__name__}; expected a {expected}.")


def check_numbers(name: str, value: Any) -> np.ndarray:
  """An argument as an array of real numbers, f, i or bool, as they are.

  Raises:
    ValueError: it is none, such as text, objects or lists of several lengths.
  """
  try:
    array = np.asarray(value)
  except (ValueError, TypeError) as error:
    raise ValueError(f"{name} are no array; expected numbers of one shape.") from error
  if array.dtype.kind not in "fiub" and "float" not in array.dtype.name:
    what = f"a {type(value).__name__}, {array.dtype}{list(array.shape)}"
    raise ValueError(f"{name} are {what}; expected an array of numbers.")
  return array


def check_labels(name: str, labels: np.ndarray, num_classes: int | None) -> None:
  """Raises ValueError unless labels i[...] are 0 to `num_classes` - 1 (None: or more)."""
  lowest, highest = labels.min(), labels.max()
  if lowest < 0 or (num_classes is not None and highest >= num_classes):
    most = " or more" if num_classes is None else f" to {num_classes - 1}"
    raise ValueError(f"{name} range from {lowest} to {highest}; expected 0{most}.")


def check_plain(name: str, value: Any) -> None:
  """Raises ValueError unless a setting is what JSON has: plain values, lists and sections.

  Args:
    name: of the setting, for errors.
    value: None, a bool, text or a finite number; lists, tuples and mappings of these.
  """
  if isinstance(value, Mapping):
    for key, inner in value.items():
      check_plain(f"{name}.{key}", inner)
  elif isinstance(value, list | tuple):
    for place, inner in enumerate(value):
      check_plain(f"{name}[{place}]", inner)
  elif isinstance(value, float) and not np.isfinite(value):
    raise ValueError(f"{name} is {shown(value)}; expected a finite number.")
  elif not (value is None or isinstance(value, bool | int | float | str)):
    raise ValueError(
      f"{name} is {shown(value)}; expected text, a number, True, False, None, or lists and "
      "sections of these."
    )


def shown(value: Any) -> str:
  """A value in an error: whole where it is short, else its beginning."""
  try:
    text = repr(value.item() if isinstance(value, np.generic) else value)
  except ValueError:  # a whole number of thousands of digits
    text = "a huge number"
  return text if len(text) <= 100 else f"{text[:100]}..."


def _check_elements(name: str, values: tuple, annotation: Any) -> tuple:
  """What a tuple holds, checked against the tuple's or sequence's part of an annotation."""
  is_union = isinstance(annotation, types.UnionType) or (
    typing.get_origin(annotation) is typing.Union
  )
  for part in typing.get_args(annotation) if is_union else (annotation,):
    if tuple in (_kinds(part) or ()):
      kinds = [each for each in typing.get_args(part) if each is not Ellipsis]
      if len(kinds) == 1:
        kinds *= len(values)
      if kinds and len(kinds) != len(values):
        raise ValueError(f"{name} is {shown(values)}; expected {len(kinds)} values.")
      return tuple(
        check_type(f"{name}[{place}]", *pair)
        for place, pair in enumerate(zip(values, kinds or [Any] * len(values), strict=True))
      )
  return values


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
  is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  return is_number and -LARGEST <= value <= LARGEST


def _bounds(least, most):
  return f"at least {least}" if most is None else f"{least} to {most}"
