"""The flags of commands that take a config."""

import re
from collections.abc import Callable, Sequence

from absl import flags
from ml_collections import config_flags


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
  # Whatever a config file raises while it is read is the config's fault.
  except Exception as error:
    raise (
      error if isinstance(error, ValueError) else ValueError(str(error) or type(error).__name__)
    ) from error


def _parse(argv, define, required):
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
  flags.DEFINE_string("workdir", None, "For all results.", flag_values=values)
  define(values)
  try:
    rest = values(argv)[1:]
  except (AttributeError, KeyError) as error:
    raise _unknown_setting(argv, error) from error
  except flags.IllegalFlagValueError as error:
    # What a config file raises comes with its traceback: the last line says it all.
    raise ValueError(str(error).strip().splitlines()[-1]) from error
  if rest:
    raise ValueError(f"Got {rest[0]!r}; expected flags only, such as --config=FILE.")
  for name in required:
    if not values[name].value:
      raise ValueError(f"--{name} is missing; see diffence --help.")
  # A file that cannot be read is reported when the config is first looked at.
  _ = values.config.seed
  return values


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
  if not (name and hint):
    return ValueError(f"The config cannot be read: {error}")
  return ValueError(f"There is no setting {name[1]!r}. {hint[0]}?")
