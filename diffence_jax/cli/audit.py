"""The command `diffence audit`: recorded answers in, a report out."""

import os
from collections.abc import Sequence
from pathlib import Path

from diffence_jax.cli.parsing import Arguments, asks_for_help
from diffence_jax.cli.terminal import columns, say

_USAGE = "diffence audit RECORD --output=FOLDER [--attacks=NAME,...] [--seed=0] [--pdf]"
_DESCRIPTION = """\
Attacks the recorded answers of a classifier of any framework, and writes a report.

  RECORD              an .npz file or a folder of .npy files, with
                        logits      [N,K], [N,Q,K] of Q queries, or [N] of one sigmoid output;
                                    or probabilities instead
                        labels      [N], whole numbers from 0
                        is_member   [N], True for samples that it was trained on
                      and, where there are some,
                        is_known    [N], samples to learn thresholds on; never reported
                        ids, groups [N], names of samples, and of slices to report on
                        shadow_logits      [S,N,K], of S models trained like it
                        shadow_membership  [S,N], whom each of them was trained with
                        defended/NAME/logits, defended/NAME/shadow_logits
                                    the same behind a defense of yours, any number of them
  --output=FOLDER     report.html, results.json, results.csv, and examples.csv (private: it says
                      who is a member); a new folder, or that of an earlier audit
  --attacks=NAME,...  those to run, such as loss,lira_online,rmia_online, or module:function of
                      your own; if it is left out those of experiments that the
                      record allows
  --seed=0            of what attacks draw
  --pdf               report.pdf too, printed by a Chromium at hand
  --help              this text

A record is three lines of NumPy:

  logits = model(images)                                  # all samples, members and others
  np.savez("record.npz", logits=logits, labels=labels, is_member=is_member)
  # diffence audit record.npz --output=report

The command exits with 0 when done and with 2 when something that it was given is not right.
"""


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    ValueError: the arguments or the record are not right.
    OSError: a file is missing, or the output cannot be written.
  """
  if asks_for_help(argv):
    print(f"{_USAGE}\n\n{_DESCRIPTION}", end="")
    return
  parser = Arguments("diffence audit")
  parser.add_argument("record", metavar="RECORD", type=Path)
  parser.add_argument("--output", metavar="FOLDER", type=Path, required=True)
  parser.add_argument("--attacks", metavar="NAME,...", default="")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--pdf", action="store_true")
  given = parser.parse_args(argv[1:])

  # Nothing here is for an accelerator, which may be busy.
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  # After parsing: importing jax takes a second that a misspelt flag need not wait for.
  from diffence_jax.disk import private_files
  from diffence_jax.recorded import audit_record
  from diffence_jax.recorded.table import format_table
  from diffence_jax.report.pdf import find_browser, write_pdf

  if given.pdf:
    find_browser()  # before all attacks

  chosen = {"attacks": tuple(given.attacks.split(","))} if given.attacks else {}
  results = audit_record(given.record.expanduser(), given.output, seed=given.seed, **chosen)
  say(format_table(results, columns()))
  page = given.output.expanduser() / "report.html"
  say(f"{page}")
  if given.pdf:
    with private_files():
      write_pdf(page, page.with_suffix(".pdf"))
    say(f"{page.with_suffix('.pdf')}")
