"""The command `diffence compare`: finished runs beside each other."""

import os
from collections.abc import Sequence
from pathlib import Path

from diffence_jax.cli.parsing import Arguments, asks_for_help
from diffence_jax.cli.terminal import columns, say

_USAGE = "diffence compare RUN RUN ... [--output=FOLDER [--pdf]]"
_DESCRIPTION = """\
Puts finished runs beside each other: accuracy, the strongest attacks, calibration, time.

  RUN                 a workdir, a folder in its reports/, an output folder of diffence audit,
                      or the results.json in one of them; any number
  --output=FOLDER     comparison.html with the ROC curves overlaid, comparison.csv and
                      comparison.json; without it there is the table on the terminal only
  --pdf               comparison.pdf too, printed by a Chromium at hand
  --help              this text

Where runs do not compare (other data, another split, other attacks, smoke runs) the table says
so first. Nothing is computed again. docs/compare.md says more.
"""


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    ValueError: the arguments are not right, or no run can be read.
    OSError: a run is not there, or the output cannot be written.
  """
  if asks_for_help(argv):
    print(f"{_USAGE}\n\n{_DESCRIPTION}", end="")
    return
  parser = Arguments("diffence compare")
  parser.add_argument("runs", metavar="RUN", type=Path, nargs="+")
  parser.add_argument("--output", metavar="FOLDER", type=Path)
  parser.add_argument("--pdf", action="store_true")
  given = parser.parse_args(argv[1:])
  output = check_output(given.output)
  if given.pdf and output is None:
    raise ValueError("--pdf needs --output=FOLDER, where it is to go.")

  # Nothing here is for an accelerator, which may be busy.
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  # After parsing: importing jax takes a second that a misspelt flag need not wait for.
  from diffence_jax.report.cells import wrapped
  from diffence_jax.report.pdf import find_browser, renew_pdf
  from diffence_jax.tables.comparison import (
    HTML,
    all_cautions,
    format_comparison,
    write_comparison,
  )
  from diffence_jax.tables.runs import read_runs

  if given.pdf:
    find_browser()
  runs, left_out = read_runs(given.runs)
  warned, width = all_cautions(runs, left_out), columns()
  if output is not None:
    write_comparison(runs, warned, output)
    printed = renew_pdf(output / HTML, given.pdf)
  red = [line for text in warned for line in wrapped(text, width)]
  say(format_comparison(runs, warned, width), red=red)
  if output is not None:
    say(f"\nThe page: {output / HTML}" + (f"\nPrinted: {printed}" if printed else ""))


def check_output(folder: Path | None) -> Path | None:
  """--output as a folder; ValueError where there is something else in its place."""
  if folder is None:
    return None
  folder = folder.expanduser()
  if "\0" in str(folder) or (os.path.lexists(folder) and not folder.is_dir()):
    raise ValueError(
      f"--output is {str(folder)!r}, which is no folder; expected one, or a new one."
    )
  return folder
