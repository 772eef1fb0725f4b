"""The command `diffence frontier`: all policies on the record of a finished audit."""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from diffence_jax.cli.parsing import asks_for_help, parse, whole_numbers
from diffence_jax.cli.terminal import columns, say

# What is compared besides policies.
_GRID = ("steps", "candidates")

_HELP = """\
Compares all policies, blends of ten weights among them, on the record of a finished audit:
what each leaves to the strongest attack, and how useful its answers are.

  diffence frontier --config=FILE[:VARIANT] --workdir=FOLDER [--output=FOLDER]

  --config, --workdir    those of the run, with the same --config.SETTING=VALUE, if any; it
                         has at least 6 shadow models, as configs/digits.py:audit
  --steps=80,160,240     diffusion steps T of noise, to be compared; the config's alone unless
                         it is given. Each other one is recorded once, in the workdir
  --candidates=5,10      candidates N of a query, in the same way; read off the same records
  --out_of_distribution=SOURCE
                         also how well images of another data set, photographs or another
                         source without options, are told by how sure the answers are
  --output=FOLDER        for frontier.json, frontier.csv and frontier.svg; WORKDIR/frontier
                         unless it is given
  --help                 this text

Every shadow model is attacked in turn behind every policy, by confidence, LiRA and RMIA: with
one query, with as many as shadow.queries has, and, by extrapolation, without limit; on what it
answers, and on what comes out where its arithmetic is undone. Usefulness is on non-members. No
network is trained again. docs/frontier.md says what the figures are.
diffence tune picks a policy for a bound.
"""


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    OSError: the run is not finished, or the output cannot be written.
    ValueError: a flag or a setting is not right, or the run has no shadow models.
    ArtifactError: something in the workdir is damaged.
  """
  if asks_for_help(argv):
    print(_HELP, end="")
    return
  values = parse(argv, _define_flags, ("config", "workdir"))
  output = output_folder(values, "frontier")
  # Only now: importing jax takes a second.
  from diffence_jax.disk import make_private, private_files
  from diffence_jax.experiment.frontier import measure_grid, plan_grid, record_grid
  from diffence_jax.experiment.run import open_store
  from diffence_jax.report.cells import wrapped
  from diffence_jax.report.frontier import format_frontier, write_frontier
  from diffence_jax.report.results import is_smoke
  from diffence_jax.report.summary import SMOKE

  experiments, store = plan_grid(values.config, **grid_of(values)), open_store(values.workdir)
  others = values.out_of_distribution
  record_grid(experiments, store, others)
  rows = measure_grid(experiments, store, others=others)["target"]
  with private_files():
    make_private(output)
    write_frontier(rows, output)
  width = columns()
  if is_smoke(values.config.variant):
    caution = wrapped(SMOKE, width)
    say("\n".join(caution) + "\n", red=caution)
  say(format_frontier(rows, width))
  say(f"\nThe plot: {output}/frontier.svg")


def _define_flags(values: flags.FlagValues) -> None:
  define_grid(values)
  flags.DEFINE_string("out_of_distribution", None, "A data source.", flag_values=values)


def define_grid(values: flags.FlagValues) -> None:
  """Defines --output, a folder, and what is compared."""
  flags.DEFINE_string("output", None, "For the files.", flag_values=values)
  for name in _GRID:
    flags.DEFINE_string(name, None, "Whole numbers.", flag_values=values)


def grid_of(values: flags.FlagValues) -> dict[str, list[int]]:
  """What `define_grid` defined, as `plan_grid` takes it; ValueError where it is no numbers."""
  given = {name: values[name].value for name in _GRID}
  return {name: whole_numbers(name, text) for name, text in given.items() if text is not None}


def output_folder(values: flags.FlagValues, name: str) -> Path:
  """The folder for files: --output, or `name` in the workdir.

  Raises:
    ValueError: there is something else in its place.
  """
  given = os.path.expanduser(values.output or os.path.join(values.workdir, name))
  if "\0" in given or (os.path.lexists(given) and not os.path.isdir(given)):
    raise ValueError(f"--output is {given!r}, which is no folder; expected one, or a new one.")
  return Path(given)
