"""The command `diffence`: runs an experiment."""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from diffence_jax.cli.parsing import asks_for_help, parse, whole_numbers
from diffence_jax.cli.terminal import columns, say

# Seconds after which a process says that it waits for others.
_PATIENCE = 5.0
_HELP = """\
Protects an image classifier with Diffence and measures what that gains.

  diffence --config=NAME[:VARIANT] --workdir=FOLDER [--config.SETTING=VALUE ...]
  diffence audit --help           audits recorded answers of any classifier, no model needed
  diffence import-torch --help    makes a saved model of a published PyTorch checkpoint
  diffence export --help          writes the protected classifier as a program for JAX alone
  diffence frontier --help        compares all policies on the record of a finished audit
  diffence tune --help            picks the policy for a bound on what leaks
  diffence compare --help         puts finished runs beside each other
  diffence plot --help            draws the ROC of any attack of a finished run
  diffence train-diffusion --help trains a diffusion model without a classifier
  diffence protect --help         puts both together, as a program for JAX alone

  --config=NAME[:VARIANT]    the experiment: the name of one of ours, for example digits, or
                             digits:smoke; or a Python file with get_config(variant), for
                             example ./mine.py
  --config.SETTING=VALUE     changes one setting, for example --config.purify.step=80, or
                             --config.classifier.defense=hamp: another defense below Diffence
  --workdir=FOLDER           for everything the run computes and reports; the same command
                             again computes only what is missing, also after a crash
  --seeds=0,1,2              runs the experiment at each of these seeds, and leaves a report on
                             each and one on their means, with intervals over seeds
  --pdf                      the report as report.pdf too, printed by a Chromium at hand
  --dry_run                  print the stages, which of them are cached, and what the rest
                             will cost; compute nothing
  --share                    share the work with other processes that run the same command on
                             the same workdir, on this host or on others; they may come late,
                             or die: the rest takes over what they have not finished
  --distributed=auto         the same on a pod, whose devices are started together and train
                             the two networks in step; or
                             --distributed=HOST:PORT,NUMBER,COUNT, the address of process 0,
                             this one's number and how many there are
  --version                  the version of diffence_jax
  --help                     this text

The run trains the classifier and the diffusion model, records the classifier's answers with
and without Diffence, attacks both, prints a table, and leaves results.json, results.csv,
report.html and, of single samples and not for others, scores.csv, private.html and, with
shadow models, scores_in_turn.npz in the workdir. It exits with 0 when done, with 2 when
something that it was given is not right, and with 75 when it was terminated (SIGTERM) and
the same command goes on from where it was.
"""


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    ValueError: a flag, a setting or the data are not right.
    OSError: a file is missing, or cannot be read or written.
  """
  if asks_for_help(argv):
    print(_HELP, end="")
    return
  read = lambda: parse(argv, _define_flags, ("config", "workdir"))
  pod = _pod(argv)
  if pod:
    from diffence_jax import parallel

    # First of all: the others would wait for one whose flags are not right.
    _meet(pod)
    values = parallel.together(read)
  else:
    values = read()
  workdir = os.path.expanduser(values.workdir)
  seeds = None if values.seeds is None else whole_numbers("seeds", values.seeds)
  if seeds is not None and any(one.lstrip("-").startswith("config.seed") for one in argv[1:]):
    raise ValueError("--seeds and --config.seed were both given; expected one of them.")
  # After parsing: importing jax takes a second that a misspelt flag need not wait for.
  from diffence_jax import parallel
  from diffence_jax.experiment import compiled
  from diffence_jax.experiment.plan import plan
  from diffence_jax.experiment.reports import print_report
  from diffence_jax.experiment.run import carry_out, describe
  from diffence_jax.experiment.seeds import plan_seeds
  from diffence_jax.report.cells import wrapped
  from diffence_jax.report.pdf import find_browser
  from diffence_jax.report.summary import caution
  from diffence_jax.report.table import format_table

  if values.pdf:
    find_browser()  # before hours of work
  experiments = parallel.together(
    lambda: [plan(values.config)] if seeds is None else plan_seeds(values.config, seeds)
  )
  if values.dry_run:
    say("\n\n".join(describe(experiment, workdir) for experiment in experiments))
    return
  compiled.keep_in(workdir)
  share = values.share or values.distributed is not None
  if seeds is not None:
    _run_seeds(experiments, workdir, values.pdf, share)
    return
  results = carry_out(experiments[0], workdir, share=share)
  if parallel.is_first():
    width = columns()
    say(format_table(results, width), red=wrapped(caution(results), width))
    say(f"\nThe whole report: {workdir}/report.html")
    if values.pdf:
      say(f"Printed: {print_report(experiments[0], Path(workdir))}")


def _meet(pod):
  """Joins the other processes of a pod, and says so if that takes long."""
  from diffence_jax import parallel

  text = f"diffence: waiting for the other processes of --distributed={pod}, up to five minutes"
  told = threading.Timer(_PATIENCE, say, (text, sys.stderr))
  told.daemon = True
  told.start()
  try:
    parallel.connect(pod)
  finally:
    told.cancel()


def _pod(argv):
  """What --distributed says where processes are to meet; None where they are not."""
  values = flags.FlagValues()
  _define_flags(values)
  try:
    values(argv, known_only=True)
  except flags.Error:
    return None  # `parse` says what is wrong
  return None if values.dry_run else values.distributed


def _define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_bool("share", False, "To share the work.", flag_values=values)
  flags.DEFINE_string("distributed", None, "To start devices.", flag_values=values)
  flags.DEFINE_string("seeds", None, "To run at several.", flag_values=values)
  flags.DEFINE_bool("pdf", False, "Print the report.", flag_values=values)
  flags.DEFINE_bool("dry_run", False, "Print the stages only.", flag_values=values)


def _run_seeds(experiments, workdir, pdf, share):
  from diffence_jax import parallel
  from diffence_jax.experiment.seeds import run_seeds
  from diffence_jax.report.cells import wrapped
  from diffence_jax.report.pdf import renew_pdf
  from diffence_jax.tables.seeds import HTML, cautions, format_seeds

  runs, folder = run_seeds(experiments, workdir, share=share)
  if parallel.is_first():
    width = columns()
    red = [line for text in cautions(runs) for line in wrapped(text, width)]
    say(format_seeds(runs, width), red=red)
    say(f"\nThe report over seeds: {folder / HTML}")
    if printed := renew_pdf(folder / HTML, pdf):
      say(f"Printed: {printed}")
