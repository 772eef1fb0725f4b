"""The flags of commands that take a config."""

import argparse
import ast
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags

import diffence_jax


class Arguments(argparse.ArgumentParser):
  """The arguments of a command that takes no config; ValueError where they are not right."""

  def __init__(self, program: str):
    """Begins without any argument; help is `asks_for_help`'s."""
    super().__init__(prog=program, add_help=False, allow_abbrev=False)

  def error(self, message: str) -> NoReturn:
    """Raises ValueError with what is wrong, and where help is."""
    raise ValueError(f"{message}; see {self.prog} --help.")


def parse_settings(pairs: Sequence[str], flag: str = "set") -> dict[str, Any]:
  """FIELD=VALUE to fields: Python's numbers, tuples, booleans and None, or else text.

  Args:
    pairs: what was given.
    flag: whose they are, for errors.

  Raises:
    ValueError: one is no such pair, or a field is there twice.
  """
  settings = {}
  for pair in pairs:
    field, equals, text = pair.partition("=")
    if not (field and equals):
      raise ValueError(f"--{flag} got {pair!r}; expected FIELD=VALUE, such as dtype=bfloat16.")
    if field in settings:
      raise ValueError(f"--{flag} got {field} twice.")
    try:
      settings[field] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      settings[field] = text
  return settings


def asks_for_help(argv: Sequence[str]) -> bool:
  """Whether a command line has one of the flags for help."""
  return any(argument in ("--help", "-help", "-h", "--helpfull") for argument in argv[1:])


def parse(
  argv: Sequence[str], define: Callable[[flags.FlagValues], None], required: Sequence[str]
) -> flags.FlagValues:
  """Parses --config, --workdir and a command's further flags.

  Args:
    argv: the program's name and its arguments.
    define: defines the further flags in the object it is given; nothing global is touched.
    required: the flags that must be there.

  Returns:
    The flags; `config` is the config with what the command line changes.

  Raises:
    ValueError: a flag or the config is not right.
  """
  try:
    return _parse(argv, define, required)
  except flags.CantOpenFlagFileError as error:
    reason = error.__context__
    raise ValueError(
      f"--flagfile cannot be read: {reason}; expected a file of flags, one a line."
    ) from error
  # Whatever a config file raises while it is read is the config's fault.
  except Exception as error:
    raise (
      error if isinstance(error, ValueError) else ValueError(str(error) or type(error).__name__)
    ) from error


def whole_numbers(flag: str, text: str) -> list[int]:
  """The whole numbers of a flag, between commas; ValueError where it has something else."""
  if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text):
    raise ValueError(
      f"--{flag} is {text!r}; expected whole numbers between commas, such as 0,1,2."
    )
  return [int(number) for number in text.split(",")]


def shipped_configs() -> dict[str, Path]:
  """The configs that come with the package, by name: in it, or beside it in a checkout."""
  package = Path(diffence_jax.__file__).parent
  for folder in (package / "configs", package.parent / "configs"):
    files = {file.stem: file for file in sorted(folder.glob("*.py"))}
    if files:
      return files
  return {}


def _find_config(given):
  """The path of a config file that is given by its path, or by the name of one of ours."""
  if os.path.isfile(given):
    return given
  shipped = shipped_configs()
  if given in shipped:
    return str(shipped[given])
  if re.fullmatch(r"\w+", given) and not os.path.exists(given):
    # Only now: it imports NumPy, which --help need not wait for.
    from diffence_jax.named import nearest

    raise _ConfigFileError(
      f"There is no config {given!r}{nearest(given, shipped)} A file of your own is given by "
      "its path, as --config=./FILE.py."
    )
  what = "is no file" if os.path.exists(given) else "is not there"
  raise _ConfigFileError(f"{given} {what}; expected --config=FILE[:VARIANT], a Python file.")


class _ConfigFile(flags.ArgumentParser):
  """Reads the config file by another parser, and names it in whatever that raises."""

  def __init__(self, parser):
    self._parser = parser

  def parse(self, path):
    given, colon, variant = path.partition(":")
    file = _find_config(given)
    # Read into the module of another file, this one would have the other's get_config too.
    sys.modules.pop("config_config", None)
    try:
      config = self._parser.parse(f"{file}{colon}{variant}")
      if not isinstance(config, ConfigDict):
        # A file that cannot be read: that is raised when the config is first looked at.
        _ = getattr(config, "seed", None)
        raise TypeError(
          f"get_config returns a {type(config).__name__}; expected a ConfigDict, such as "
          "diffence_jax.experiment.config.base_config() makes"
        )
      return config
    # A program of the user's own: it may raise anything, or exit.
    except (Exception, SystemExit) as error:
      # ml_collections puts the traceback into the message of some.
      is_wrapped = str(error).startswith("Error whilst parsing config file")
      error = error.__context__ if is_wrapped else error
      raise _ConfigFileError(_about_file(file, error)) from error


class _ConfigFileError(Exception):
  """No ValueError: absl would take it for one of the flag and put its own words before it."""


def _about_file(file, error):
  """What is wrong with a config file, in a line."""
  text = " ".join(str(error).split())
  if isinstance(error, AttributeError | KeyError) and "Did you mean" in text:
    return str(_unknown_setting((), error))
  if isinstance(error, AttributeError) and error.name == "get_config":
    text = "it has no function get_config"
  elif isinstance(error, SystemExit):
    text = f"it ends the program, with the exit code {error.code}"
  elif not isinstance(error, ValueError) or not text:
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
  lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
  where = f", line {lines[-1]}" if lines else ""
  return f"The config file {file}{where} cannot be used: {text.rstrip('.')}."


def _parse(argv, define, required):
  for given in argv[1:]:
    setting = re.match(r"--?(config\.[^=]*)", given)
    if setting and not re.fullmatch(r"config(\.\w+)+", setting[1]):
      raise ValueError(
        f"--{setting[1]} names no setting; expected --config.SECTION.SETTING=VALUE. A tuple is "
        "given whole, such as --config.audit.attacks=\"('loss', 'nn')\"."
      )
  values = flags.FlagValues()
  # The config locks itself but for the sections that a source or a model checks: there a key
  # may be new.
  config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment.",
    flag_values=values,
    lock_config=False,
    accept_new_attributes=True,
    sys_argv=argv,
  )
  values["config"].parser = _ConfigFile(values["config"].parser)
  flags.DEFINE_string("workdir", None, "For all results.", flag_values=values)
  define(values)
  try:
    rest = values(argv)[1:]
  except (AttributeError, KeyError) as error:
    raise _unknown_setting(argv, error) from error
  except flags.IllegalFlagValueError as error:
    raise _wrong_value(values, error) from error
  if rest:
    raise ValueError(f"Got {rest[0]!r}; expected flags only, such as --config=FILE.")
  for name in required:
    if not values[name].value:
      raise ValueError(f"--{name} is missing; see diffence --help.")
  workdir = os.path.expanduser(values.workdir)
  if "\0" in workdir or (os.path.lexists(workdir) and not os.path.isdir(workdir)):
    raise ValueError(
      f"--workdir is {workdir!r}, which is no folder; expected one, or a new one."
    )
  return values


# What flags of a kind take; keys are the kinds' names in absl and ml_collections.
_EXPECTED = {
  "int": "a whole number",
  "float": "a number",
  "bool": "True or False",
  "tuple": "a tuple, such as \"('loss', 'nn')\"",
}


def _wrong_value(values, error):
  """The error for a flag's value, in our words where its kind is known."""
  text = str(error)
  name, _, rest = text.removeprefix("flag --").partition("=")
  if name not in values:
    return ValueError(text)
  flag = values[name]
  given = rest.removesuffix(f": {error.__context__}")
  expected = _EXPECTED.get(flag.parser.flag_type())
  if "ConfigDict" in type(flag.parser).__name__:
    expected = f"a section of settings; set one of its own, as --{name}.SETTING=VALUE"
  if expected is None:
    return ValueError(text)
  return ValueError(f"--{name} is {given!r}; expected {expected}.")


def _unknown_setting(argv, error):
  """The error: ml_collections names setting and nearest one in quotes within quotes."""
  text = str(error).replace("\\", "")
  name = re.search(r"""['"](\w+)['"]""", text)
  hint = re.search(r"Did you mean \S+", text)
  if name and not hint and any(f"config.defenses.{name[1]}." in given for given in argv):
    return ValueError(
      f"The config has no options of a defense {name[1]!r}. Those of a defense of your own are "
      f'given in a config file, as config.defenses.{name[1]} = {{"option": value}}; what is '
      "there can then be changed from the command line."
    )
  if name and not hint and "does not exist" in text:
    paths = [given.partition("=")[0] for given in argv]
    path = next((known for known in paths if known.endswith(f".{name[1]}")), name[1])
    return ValueError(f"There is no setting {path}; expected one of those of base_config().")
  if not (name and hint):
    return ValueError(f"The config cannot be read: {error}")
  return ValueError(f"There is no setting {name[1]!r}. {hint[0]}?")
