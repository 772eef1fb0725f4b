"""Checks of a defense's settings, before anything is trained."""


def check_range(name: str, value: float, least: float, most: float | None) -> None:
  """Raises ValueError unless `least` <= `value` <= `most` (None for no bound)."""
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if not is_number or not value >= least or (most is not None and not value <= most):
    bounds = f"at least {least}" if most is None else f"{least} to {most}"
    raise ValueError(f"{name} is {value!r}; expected a number, {bounds}.")
