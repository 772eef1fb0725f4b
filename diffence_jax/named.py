"""Defenses by name: ours by their names, a user's own by where they are imported from."""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffence_jax.models.registry import unknown_name


def find(what: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
  """Looks a function up.

  Args:
    what: what it is, for errors.
    name: a key of `known`, or "module:function" of a user's own.
    known: name to function.

  Returns:
    The function.

  Raises:
    ValueError: there is no such function; names the nearest.
  """
  if ":" not in name:
    if name not in known:
      raise unknown_name(what, name, known)
    return known[name]
  module, _, attribute = name.partition(":")
  try:
    return getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError, SyntaxError) as error:
    raise ValueError(
      f"The {what} {name!r} cannot be imported: {error}. Expected 'module:function', with the "
      "module's folder in PYTHONPATH."
    ) from error


def check_options(
  what: str, name: str, function: Callable[..., Any], num_args: int, options: Mapping[str, Any]
) -> None:
  """Checks the options that a function is to be called with.

  Args:
    what: what it is, for errors.
    name: its name, likewise.
    function: the function.
    num_args: how many arguments come before its options.
    options: name to value.

  Raises:
    ValueError: it has no such option, or lacks one.
  """
  parameters = list(inspect.signature(function).parameters.values())[num_args:]
  if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
    return
  known = [p.name for p in parameters]
  for option in options:
    if option not in known:
      raise unknown_name(
        f"option of the {what} {name!r} called", option, known or ["no option"]
      )
  for parameter in parameters:
    if parameter.default is parameter.empty and parameter.name not in options:
      raise ValueError(f"The {what} {name!r} needs the option {parameter.name!r}.")


def digest(name: str, known: Mapping[str, Callable[..., Any]], what: str) -> str | None:
  """What tells versions of a user's own function apart, None for one of ours.

  Args:
    name: as in `find`.
    known: likewise.
    what: likewise.

  Returns:
    The SHA-256 of the file that it is imported from, in hexadecimal.
  """
  if ":" not in name:
    return None
  find(what, name, known)
  file = importlib.import_module(name.partition(":")[0]).__file__
  return hashlib.sha256(Path(file).read_bytes()).hexdigest()
