"""Checks of a defense's settings, before anything is computed."""

import math


def check_range(name: str, value: float, least: float, most: float | None) -> None:
  """Raises ValueError unless `least` <= `value` <= `most` (None for any finite number)."""
  if not _is_finite(value) or value < least or (most is not None and value > most):
    kind = "number" if most is not None else "finite number"
    raise ValueError(f"{name} is {value!r}; expected a {kind}, {_bounds(least, most)}.")


def check_positive(name: str, value: float) -> None:
  """Raises ValueError unless `value` is a finite number above 0."""
  if not _is_finite(value) or value <= 0.0:
    raise ValueError(f"{name} is {value!r}; expected a finite number, above 0.")


def check_whole(name: str, value: int, least: int, most: int | None) -> None:
  """Raises ValueError unless `value` is a whole number from `least` to `most` (None: any)."""
  is_whole = isinstance(value, int) and not isinstance(value, bool)
  if not is_whole or value < least or (most is not None and value > most):
    raise ValueError(f"{name} is {value!r}; expected a whole number, {_bounds(least, most)}.")


def _is_finite(value):
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return is_number and math.isfinite(value)


def _bounds(least, most):
  return f"at least {least}" if most is None else f"{least} to {most}"
