"""Checks of a defense's settings, before anything is trained."""

import math


def check_range(name: str, value: float, least: float, most: float | None) -> None:
  """Raises ValueError unless `least` <= `value` <= `most` (None for any finite number)."""
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if not is_number or not least <= value <= (math.inf if most is None else most):
    raise ValueError(f"{name} is {value!r}; expected a number, {_bounds(least, most)}.")
  if not math.isfinite(value):
    raise ValueError(f"{name} is {value!r}; expected a finite number.")


def check_whole(name: str, value: int, least: int, most: int | None) -> None:
  """Raises ValueError unless `value` is a whole number from `least` to `most` (None: any)."""
  is_whole = isinstance(value, int) and not isinstance(value, bool)
  if not is_whole or value < least or (most is not None and value > most):
    raise ValueError(f"{name} is {value!r}; expected a whole number, {_bounds(least, most)}.")


def _bounds(least, most):
  return f"at least {least}" if most is None else f"{least} to {most}"
