"""The command `diffence audit`: recorded answers, or a classifier and images, are attacked."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from diffence_jax.cli.parsing import Arguments, asks_for_help
from diffence_jax.cli.terminal import columns, say

_USAGE = """\
diffence audit RECORD --output=FOLDER [--attacks=NAME,...] [--seed=0] [--pdf]
diffence audit --predict=CLASSIFIER --members=PATH --nonmembers=PATH --output=FOLDER [...]"""
_DESCRIPTION = """\
Attacks the recorded answers of a classifier of any framework, or a classifier itself, and
writes a report.

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

Instead of a record, a classifier, which is then also asked for the labels of changed images:

  --predict=NAME      module:function, of NumPy images f32[N,H,W,C] in [0, 1] to logits [N,K]
                      (with the module's folder in PYTHONPATH); an exported program, a file; or
                      the folder of a saved model
  --members=PATH      what it was trained on: a folder of images, a subfolder a class; an .npz
                      with images and labels; or an index file, see docs/audit_model.md
  --nonmembers=PATH   the same of what it was not trained on
  --classes=NAME,...  the classifier's classes in the order of its outputs; the sorted names of
                      the subfolders if it is left out
  --image_size=N      the side that image files are scaled to
  --num_few=200       samples for attacks that ask for a thousand labels of each; 0 leaves
                      them out
  --batch_size=256    images that it is asked about at a time

The command exits with 0 when done and with 2 when something that it was given is not right.
"""
# Flags of an audit of a classifier, by what they are called in `audit_model`.
_OF_MODEL = ("classes", "image_size", "num_few", "batch_size")


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    ValueError: the arguments, the record or the images are not right.
    OSError: a file is missing, or the output cannot be written.
  """
  if asks_for_help(argv):
    print(f"{_USAGE}\n\n{_DESCRIPTION}", end="")
    return
  parser = Arguments("diffence audit")
  parser.add_argument("record", metavar="RECORD", type=Path, nargs="?")
  parser.add_argument("--output", metavar="FOLDER", type=Path, required=True)
  parser.add_argument("--attacks", metavar="NAME,...", default="")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--pdf", action="store_true")
  for name in ("predict", "members", "nonmembers", "classes"):
    parser.add_argument(f"--{name}")
  for name in ("image_size", "num_few", "batch_size"):
    parser.add_argument(f"--{name}", type=int)
  given = parser.parse_args(argv[1:])
  _check(given)
  if given.record is not None:
    # Nothing here is for an accelerator, which may be busy.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
  # After parsing: importing jax takes a second that a misspelt flag need not wait for.
  from diffence_jax.disk import private_files
  from diffence_jax.recorded import audit_model, audit_record
  from diffence_jax.recorded.table import format_table
  from diffence_jax.report.pdf import find_browser, write_pdf

  if given.pdf:
    find_browser()  # before all attacks

  options = {"seed": given.seed}
  if given.attacks:
    options["attacks"] = tuple(given.attacks.split(","))
  if given.record is not None:
    results = audit_record(given.record.expanduser(), given.output, **options)
  else:
    options |= {
      name: value for name in _OF_MODEL if (value := getattr(given, name)) is not None
    }
    if given.classes:
      options["classes"] = given.classes.split(",")
    results = audit_model(
      given.predict, given.members, given.nonmembers, given.output, **options
    )
  say(format_table(results, columns()))
  page = given.output.expanduser() / "report.html"
  say(f"{page}")
  if given.pdf:
    with private_files():
      write_pdf(page, page.with_suffix(".pdf"))
    say(f"{page.with_suffix('.pdf')}")


def _check(given: argparse.Namespace) -> None:
  """Raises ValueError unless there is a record, or else a classifier and both sides."""
  needed = ("predict", "members", "nonmembers")
  if given.record is not None:
    for name in (*needed, *_OF_MODEL):
      if getattr(given, name) is not None:
        raise ValueError(
          f"--{name} is for a classifier, and {given.record} is a record of one."
        )
    return
  for name in needed:
    if not getattr(given, name):
      raise ValueError(
        f"--{name} is missing; expected a RECORD, or --predict, --members and --nonmembers. "
        "See diffence audit --help."
      )
