"""The command `diffence plot`: the ROC of one attack as a file."""

import os
from collections.abc import Sequence
from pathlib import Path

from diffence_jax.cli.parsing import Arguments, asks_for_help
from diffence_jax.cli.terminal import columns, say

_USAGE = "diffence plot RUN --attack=NAME [--predictor=NAME] --output=FILE"
_DESCRIPTION = """\
Draws the ROC of any attack of a finished run, on logarithmic axes with its 95% band.

  RUN                 a workdir, a folder in its reports/, an output folder of diffence audit,
                      or the results.json in one of them; scores.csv (of a record examples.csv)
                      has to lie beside it
  --attack=NAME       as the config and results.csv have it, such as loss or lira_online
  --predictor=NAME    as tables have it, such as "scenario 1"; the undefended one if left out
  --output=FILE       .png, .svg or .pdf
  --help              this text

The plot shows rates over all reported samples, and no single one.
"""
_KINDS = (".png", ".svg", ".pdf")


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    ValueError: the arguments are not right, or the run has no such attack.
    OSError: the run is not there, or the output cannot be written.
  """
  if asks_for_help(argv):
    print(f"{_USAGE}\n\n{_DESCRIPTION}", end="")
    return
  parser = Arguments("diffence plot")
  parser.add_argument("run", metavar="RUN", type=Path)
  parser.add_argument("--attack", metavar="NAME", required=True)
  parser.add_argument("--predictor", metavar="NAME")
  parser.add_argument("--output", metavar="FILE", type=Path, required=True)
  given = parser.parse_args(argv[1:])
  output = given.output.expanduser()
  if output.suffix not in _KINDS or output.is_dir():
    raise ValueError(f"--output is {str(output)!r}; expected a file, .png, .svg or .pdf.")
  if not output.absolute().parent.is_dir():
    raise ValueError(f"--output is {str(output)!r}; there is no folder {output.parent}.")

  # Nothing here is for an accelerator, which may be busy.
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  # After parsing: importing jax takes a second that a misspelt flag need not wait for.
  from diffence_jax.disk import write_atomically
  from diffence_jax.report.cells import wrapped
  from diffence_jax.tables.roc_plot import draw_roc, read_roc

  shown = read_roc(given.run, given.attack, given.predictor)
  write_atomically(output, draw_roc(shown, output.suffix.removeprefix(".")))
  width = columns()
  warned = wrapped(shown.run.caution, width)
  say("\n".join([*warned, *wrapped(shown.summary, width)]), red=warned)
  say(f"The plot: {output}")
