"""Functions that a config names: ours by their names, a user's own as "module:function"."""

import dataclasses
import difflib
import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from diffence_jax.checks import check_type

# Begins the note on an error in a function of the user's own.
IN_OWN = "in the "


def nearest(name: str, known: Iterable[str]) -> str:
  """`; did you mean ...?` for a misspelt name, or what there is to choose from."""
  known = list(known)
  matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  if matches:
    return f"; did you mean {matches[0]!r}?"
  return f"; expected one of {', '.join(known)}." if known else "; it takes none."


def unknown_name(what: str, name: str, known: Iterable[str]) -> ValueError:
  """The error for a `what` called `name` that is not among `known`; names the nearest."""
  known = sorted(known)
  hint = nearest(str(name), known)
  if hint.endswith("?"):
    hint += f" Choose from: {', '.join(known)}."
  return ValueError(f"There is no {what} {name!r}{hint}")


def options_of(function: Callable[..., Any], num_args: int) -> dict[str, inspect.Parameter]:
  """The options of a function: its parameters after the first `num_args`, by name.

  Raises:
    ValueError: it has no signature, as some functions that are built in.
  """
  arguments, options = _parameters(function, num_args)
  del arguments
  return {p.name: p for p in options if p.kind is not inspect.Parameter.VAR_KEYWORD}


def defaults_of(function: Callable[..., Any], num_args: int) -> dict[str, Any]:
  """The options of a function that have a default, with it."""
  return {
    name: parameter.default
    for name, parameter in options_of(function, num_args).items()
    if parameter.default is not parameter.empty
  }


def _parameters(function, num_args):
  """A function's parameters: what takes the first `num_args` arguments, and its options."""
  try:
    parameters = _signature(function).parameters.values()
  except (ValueError, TypeError) as error:
    name = getattr(function, "__qualname__", type(function).__name__)
    raise ValueError(
      f"{name} tells nothing of its arguments; expected a function written in Python."
    ) from error
  several = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
  places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
  arguments = places[:num_args]
  arguments += several * (num_args - len(arguments))
  taken = {p.name for p in (*arguments, *several)}
  return arguments, [p for p in parameters if p.name not in taken]


def _signature(function):
  """With annotations as they are meant, where a module has them as text."""
  try:
    return inspect.signature(function, eval_str=True)
  except Exception:  # whatever evaluating a name that is not there raises
    return inspect.signature(function)


def import_function(name: str) -> Callable[..., Any]:
  """What "module:function" names; ValueError, with the remedy, where it cannot be imported."""
  module, _, attribute = name.partition(":")
  try:
    return getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError, SyntaxError, ValueError, TypeError) as error:
    raise ValueError(
      f"{name!r} cannot be imported: {error}. Expected 'module:function', with the module's "
      "folder in PYTHONPATH."
    ) from error


def source_of(name: str) -> str:
  """What tells versions of "module:function" apart: the SHA-256 of the module's file.

  Raises:
    ValueError: it cannot be imported.
  """
  import_function(name)
  file = getattr(importlib.import_module(name.partition(":")[0]), "__file__", None)
  if file is None:
    return "built in"
  return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Choice:
  """A function that was chosen by name: all that its result depends on.

  Attributes:
    name: as the config has it.
    options: its options, each with its value.
    source: the SHA-256 of the file that a user's own function is imported from; None for ours.
  """

  name: str
  options: Mapping[str, Any]
  source: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Registry:
  """Functions of one kind, by name.

  Attributes:
    what: the kind, for errors, such as "training-time defense".
    section: the section of the config that has their options, for errors: under a function's
      own name, unless it ends in a dot.
    known: name to function, or to "module:function", which is imported when it is asked for.
    num_args: how many arguments come before the options.
  """

  what: str
  section: str
  known: Mapping[str, Callable[..., Any] | str]
  num_args: int = 0

  def find(self, name: str) -> Callable[..., Any]:
    """The function of this name.

    Args:
      name: a key of `known`, or "module:function" of a user's own.

    Raises:
      ValueError: there is no such function; names the nearest.
    """
    if not isinstance(name, str) or (":" not in name and name not in self.known):
      raise unknown_name(self.what, name, self.known)
    function = name if ":" in name else self.known[name]
    function = import_function(function) if isinstance(function, str) else function
    if not callable(function):
      raise ValueError(f"The {self.what} {name!r} is a {type(function).__name__}, no function.")
    return function

  def defaults(self, name: str) -> dict[str, Any]:
    """The options that the function has, each with its default."""
    return defaults_of(self.find(name), self.num_args)

  def choose(self, name: str, options: Mapping[str, Any] | None = None) -> Choice:
    """Names a function together with its options, which are checked against its signature.

    Args:
      name: as in `find`.
      options: those that are given; the rest have their defaults.

    Returns:
      The choice.

    Raises:
      ValueError: there is no such function or option, the function does not take what it is
        called with, or an option is missing, of a wrong type or out of its range.
    """
    known, path, takes_all = self._options(name)
    checked = self.defaults(name)
    for option, value in (options or {}).items():
      if not (option in known or (takes_all and isinstance(option, str))):
        raise ValueError(
          f"The {self.what} {name!r} has no option {option!r}{nearest(str(option), known)}"
        )
      annotation = known[option].annotation if option in known else inspect.Parameter.empty
      default = known[option].default if option in known else inspect.Parameter.empty
      checked[option] = check_type(f"{path}.{option}", value, annotation, default)
    for option, parameter in known.items():
      if parameter.default is parameter.empty and option not in checked:
        raise ValueError(f"The {self.what} {name!r} needs the option {path}.{option}.")
    # Where a function is called late, what checks its options' ranges is its `check_options`.
    if check := getattr(self.find(name), "check_options", None):
      with section(path, checked):
        check(**checked)
    return Choice(name, checked, self.source(name))

  def call(self, choice: Choice, *args: Any) -> Any:
    """Calls a chosen function with its options.

    What a user's own function raises goes through, with a note that says which it is.

    Raises:
      ValueError: an option is out of its range; it is named by its path in the config.
    """
    try:
      with section(self._path(choice.name), choice.options):
        return self.find(choice.name)(*args, **choice.options)
    except Exception as error:
      if ":" in choice.name:
        error.add_note(f"{IN_OWN}{self.what} {choice.name!r}")
      raise

  def source(self, name: str) -> str | None:
    """What tells versions of a user's own function apart, None for one of ours."""
    return source_of(name) if ":" in name else None

  def _options(self, name):
    """A function's options by name, their path in the config, and whether it takes others."""
    function = self.find(name)
    arguments, options = _parameters(function, self.num_args)
    by_place = [p.name for p in options if p.kind is p.POSITIONAL_ONLY]
    if len(arguments) < self.num_args or by_place:
      raise ValueError(
        f"The {self.what} {name!r} takes {inspect.signature(function)}; expected "
        f"{self.num_args} arguments and then options by their names."
      )
    known = {p.name: p for p in options if p.kind is not p.VAR_KEYWORD}
    return known, self._path(name), len(known) < len(options)

  def _path(self, name):
    key = "" if self.section.endswith(".") else option_key(name)
    return f"{self.section}.{key}" if key else self.section[:-1]


def option_key(name: str) -> str:
  """Under which key a config has the options of a function: its own name, without module."""
  return name.rpartition(":")[2]


class section:
  """Names settings in errors by their path: "gamma is 3" becomes "defenses.hamp.gamma is 3"."""

  def __init__(self, path: str, settings: Iterable[str]):
    """Of the settings with these names, which are in the section `path` of the config."""
    self._path, self._settings = path, tuple(settings)

  def __enter__(self) -> None:
    """Nothing is needed before."""

  def __exit__(self, kind, error, traceback) -> None:
    """Renames the setting that the error begins with."""
    if kind in (ValueError, TypeError) and str(error).split(" ", 1)[0] in self._settings:
      raise kind(f"{self._path}.{error}") from error
