"""The command `diffence`: parse, call one function, exit."""

import os
import re
import sys
import traceback
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

_HELP = """\
Protects an image classifier with Diffence and measures what that gains.

  diffence --config=FILE[:VARIANT] --workdir=FOLDER [--config.SETTING=VALUE ...]
  diffence import-torch --help    makes a saved model of a published PyTorch checkpoint
  diffence export --help          writes the protected classifier as a program for JAX alone

  --config=FILE[:VARIANT]    the experiment, a Python file with get_config(variant), for
                             example configs/digits.py, or configs/digits.py:smoke
  --config.SETTING=VALUE     changes one setting, for example --config.purify.step=80, or
                             --config.classifier.defense=hamp: another defense below Diffence
  --workdir=FOLDER           for everything the run computes and reports; the same command
                             again computes only what is missing, also after a crash
  --dry_run                  print the stages, which of them are cached, and what the rest
                             will cost; compute nothing
  --distributed=auto         share the work among the processes of a SLURM job or a TPU pod;
                             elsewhere --distributed=HOST:PORT,NUMBER,COUNT, the address of
                             process 0, this one's number and how many there are. All of them
                             run the same command on the same shared workdir
  --help                     this text

The run trains the classifier and the diffusion model, records the classifier's answers with
and without Diffence, attacks both, prints a table, and leaves results.json, results.csv and
report.html in the workdir. It exits with 0 when done and with 2 when something that it was
given is not right.
"""


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command.

  Args:
    argv: the command line, the program's name first; None for this process's own.
  """
  try:
    code = _run(list(sys.argv if argv is None else argv))
  except Exception:
    if not _is_one_of_several():
      raise
    traceback.print_exc()
    code = 1
  if code and _is_one_of_several():
    # An orderly exit would wait for the others, who wait for this one.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


def _run(argv):
  if argv[1:2] == ["import-torch"]:
    return _import_torch(argv[2:])
  if argv[1:2] == ["export"]:
    return _export([argv[0], *argv[2:]])
  if _asks_for_help(argv):
    print(_HELP, end="")
    return 0
  try:
    values = _parse(argv)
  # Whatever a config file raises while it is read is the config's fault.
  except Exception as error:
    return _refuse(error)
  # After parsing: importing jax takes a second that a misspelt flag need not wait for.
  from diffence_jax import parallel
  from diffence_jax.disk import ArtifactError
  from diffence_jax.experiment import compiled
  from diffence_jax.experiment.plan import plan
  from diffence_jax.experiment.run import carry_out, describe
  from diffence_jax.report.table import format_table

  try:
    if values.distributed:
      parallel.connect(values.distributed)
    experiment = plan(values.config)
    if values.dry_run:
      print(describe(experiment, values.workdir))
      return 0
    compiled.keep_in(values.workdir)
    results = carry_out(experiment, values.workdir)
  except (
    ValueError,
    TypeError,
    OSError,
    RuntimeError,
    ImportError,
    ArithmeticError,
    ArtifactError,
  ) as error:
    return _refuse(error)
  except KeyboardInterrupt:
    print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
    return 130
  if parallel.is_first():
    print(format_table(results))
    print(f"\nThe whole report: {values.workdir}/report.html")
  return 0


def _import_torch(arguments):
  from diffence_jax.cli import import_torch as import_command

  return _write(lambda: import_command.run(arguments))


def _export(argv):
  from diffence_jax.cli import export as export_command

  if _asks_for_help(argv):
    print(export_command.HELP, end="")
    return 0
  try:
    values = _parse(argv, _define_export_flags, ("config", "workdir", "output"))
  except Exception as error:
    return _refuse(error)
  given = (values.config, values.workdir, values.output, values.policy)
  return _write(lambda: export_command.run(*given))


def _write(command):
  """Runs a command that leaves one file or folder, or nothing."""
  from diffence_jax.disk import ArtifactError

  try:
    command()
  except (ValueError, TypeError, OSError, RuntimeError, ImportError, ArtifactError) as error:
    return _refuse(error)
  except KeyboardInterrupt:
    print("\nInterrupted; nothing was written.", file=sys.stderr)
    return 130
  return 0


def _asks_for_help(argv):
  return any(argument in ("--help", "-help", "-h", "--helpfull") for argument in argv[1:])


def _is_one_of_several():
  return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _define_run_flags(values):
  flags.DEFINE_string("distributed", None, "To share the work.", flag_values=values)
  flags.DEFINE_bool("dry_run", False, "Print the stages only.", flag_values=values)


def _define_export_flags(values):
  flags.DEFINE_string("output", None, "The program.", flag_values=values)
  flags.DEFINE_string("policy", None, "What is answered.", flag_values=values)


def _parse(argv, define=_define_run_flags, required=("config", "workdir")):
  """The flags, in an object of their own: nothing global is touched."""
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
    # ml_collections names a misspelt setting and the nearest one, in quotes within quotes.
    text = str(error).replace("\\", "")
    name = re.search(r"""['"](\w+)['"]""", text)
    hint = re.search(r"Did you mean \S+", text)
    if name and not hint and any(f"config.defenses.{name[1]}." in given for given in argv):
      raise ValueError(
        f"The config has no options of a defense {name[1]!r}. Those of a defense of your own "
        f'are given in a config file, as config.defenses.{name[1]} = {{"option": value}}; what '
        "is there can then be changed from the command line."
      ) from error
    if not (name and hint):
      raise ValueError(f"The config cannot be read: {error}") from error
    raise ValueError(f"There is no setting {name[1]!r}. {hint[0]}?") from error
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


def _refuse(error):
  message = str(error) if str(error) else type(error).__name__
  print(f"diffence: {message}", file=sys.stderr)
  return 2


if __name__ == "__main__":
  main()
