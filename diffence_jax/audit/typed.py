"""Rows of results as JSON has them, and back: dataclasses and named tuples are plain dicts."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def to_plain(value: Any) -> Any:
  """A row, or rows within rows, as dicts, lists, strings and numbers."""
  if dataclasses.is_dataclass(value):
    return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
  if hasattr(value, "_asdict"):
    return {name: to_plain(inner) for name, inner in value._asdict().items()}
  if isinstance(value, Mapping):
    return {str(key): to_plain(inner) for key, inner in value.items()}
  if isinstance(value, list | tuple):
    return [to_plain(inner) for inner in value]
  return value


def from_plain(kind: type[T] | Any, value: Any) -> T:
  """What `to_plain` made of a value of this kind.

  Args:
    kind: a dataclass, a named tuple, `tuple[X, ...]`, `Mapping[str, X]`, `X | None`, or a plain
      type.
    value: as JSON has it.

  Returns:
    The value.

  Raises:
    ValueError: a field is missing, unknown or of another kind, or there is no row or list where
      one is expected.
  """
  return _from_plain(kind, value, "")


def _from_plain(kind, value, where):
  """The same, of what `where` names, such as ".rows[2].auc"; "" for all of it."""
  if isinstance(kind, types.UnionType):
    kinds = [inner for inner in typing.get_args(kind) if inner is not type(None)]
    return None if value is None else _from_plain(kinds[0], value, where)
  origin, kinds = typing.get_origin(kind), typing.get_args(kind)
  if origin is tuple:
    _check(value, list, where)
    return tuple(_from_plain(kinds[0], inner, f"{where}[{i}]") for i, inner in enumerate(value))
  if origin is not None and issubclass(origin, Mapping):
    _check(value, dict, where)
    return {key: _from_plain(kinds[1], inner, f"{where}.{key}") for key, inner in value.items()}
  if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
    _check(value, dict, where)
    fields = typing.get_type_hints(kind)
    if set(fields) != set(value):
      different = ", ".join(sorted(set(fields) ^ set(value)))
      raise ValueError(f"A {kind.__name__} has other fields than expected: {different}.")
    inside = {name: (field, value[name], f"{where}.{name}") for name, field in fields.items()}
    return kind(**{name: _from_plain(*inner) for name, inner in inside.items()})
  if kind in (str, int, bool, float):
    _check(value, kind, where)
  return value


def _check(value: Any, expected: type, where: str) -> None:
  # To Python True is a number, and JSON may have a whole number for a float.
  is_other = isinstance(value, bool) and expected is not bool
  if is_other or not isinstance(value, (int, float) if expected is float else expected):
    of = f"{where[1:]}: " if where else ""
    raise ValueError(f"{of}Got a {type(value).__name__}; expected a {expected.__name__}.")
