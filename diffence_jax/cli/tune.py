"""The command `diffence tune`: the policy for a bound, chosen on known samples."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from diffence_jax.cli.frontier import define_grid, grid_of, output_folder
from diffence_jax.cli.parsing import asks_for_help, parse
from diffence_jax.cli.terminal import columns, say

_HELP = """\
Picks a policy, blends of ten weights among them, for a bound on what leaks or on what that
costs: on known samples only. Then it says what the choice reaches on the target samples.

  diffence tune --config=FILE[:VARIANT] --workdir=FOLDER --max_auc=0.6 [--output=FOLDER]

  --config, --workdir    those of a finished run with at least 6 shadow models, as of
                         configs/digits.py:audit, with the same --config.SETTING=VALUE, if any
  --max_auc=AUC          the most useful policy whose highest attack AUC, with as many queries
                         as shadow.queries has, is at most so high
  --max_nll=NATS         or: the policy of the lowest AUC whose negative log-likelihood on
                         non-members is at most so high
  --min_accuracy=SHARE   or: the same, whose accuracy on non-members is at least so high;
                         of policies that keep labels that is the label alone
  --steps=80,160,240 --candidates=5,10
                         what else to choose from, as diffence frontier --help has it
  --output=FOLDER        for tune.json and tune.flags; WORKDIR/tune unless it is given
  --program=FILE         also the protected classifier as one program, fitted on known samples;
                         diffence export --help says how to run it
  --help                 this text

The bound is compared with the end of a 95% prediction interval: what other samples, as many as
the target ones, are to give. average and majority, which may be chosen too, may change labels.
tune.flags has the settings: run diffence with --flagfile=FOLDER/tune.flags besides. Where no
policy meets the bound it says how near one comes, writes nothing, and exits with 2.
"""


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    OSError: the run is not finished, or the output cannot be written.
    ValueError: a flag or a setting is not right, the run has no shadow models or pools known
      and target samples, or no policy meets the bound.
    ArtifactError: something in the workdir is damaged.
  """
  if asks_for_help(argv):
    print(_HELP, end="")
    return
  values = parse(argv, _define_flags, ("config", "workdir"))
  output = output_folder(values, "tune")
  # Only now: importing jax takes a second.
  from diffence_jax.audit.tune import choose_policy, make_bound, widening_of
  from diffence_jax.cli.export import check_exported, export_policy
  from diffence_jax.experiment.frontier import (
    finish_choice,
    measure_grid,
    plan_grid,
    record_grid,
    shadow_audit_of,
  )
  from diffence_jax.experiment.run import open_store
  from diffence_jax.report.frontier import label_floor
  from diffence_jax.report.results import is_smoke
  from diffence_jax.report.summary import SMOKE

  bound = make_bound(
    max_auc=values.max_auc, max_nll=values.max_nll, min_accuracy=values.min_accuracy
  )
  experiments, store = plan_grid(values.config, **grid_of(values)), open_store(values.workdir)
  stage = shadow_audit_of(experiments[0])
  if stage.protocol != "disjoint":
    raise ValueError(
      f"audit.protocol is {stage.protocol!r}, which reports on known samples too; expected "
      "'disjoint': what is chosen on samples is not to be judged by them."
    )
  if values.program is not None:
    check_exported(experiments[0], Path(values.program).expanduser())
  record_grid(experiments, store)
  rows = measure_grid(experiments, store, ("known", "target"))
  natural = ~stage.pool.is_canary
  num_known = int((stage.pool.is_known & natural).sum())
  widening = widening_of(num_known, int(natural.sum()) - num_known)
  # The first is undefended, which is no policy to choose.
  known, target = rows["known"][1:], rows["target"][1:]
  at, floor = choose_policy(known, bound, widening), label_floor(target)
  chosen = known[at], target[at], floor
  _write(output, bound, widening, *chosen)
  if is_smoke(values.config.variant):
    say(SMOKE, red=[SMOKE])
  say("\n".join(_lines(bound, widening, *chosen, output, columns())))
  if values.program is not None:
    finished = finish_choice(values.config, known[at], experiments[0], store)
    say(export_policy(finished, known[at].policy, Path(values.program).expanduser()))


def _define_flags(values: flags.FlagValues) -> None:
  define_grid(values)
  flags.DEFINE_string("program", None, "For the program.", flag_values=values)
  for name in ("max_auc", "max_nll", "min_accuracy"):
    flags.DEFINE_float(name, None, "A bound.", flag_values=values)


def _lines(
  bound: Any, widening: float, known: Any, target: Any, floor: Any, output: Path, width: int
) -> list[str]:
  """What is said of a choice: the rows of known and of target samples, and the label floor."""
  from diffence_jax.audit.tune import FIGURES, overrides
  from diffence_jax.report.cells import wrapped
  from diffence_jax.report.frontier import choice_lines

  reached = bound.figure(target)
  verdict = "meets" if bound.is_met(reached.value) else "DOES NOT MEET"
  sentence = (
    f"Chosen on known samples: {known.name}, whose {FIGURES[bound.name]} there is "
    f"{bound.figure(known).value:.3f}, on others {bound.worst(known, widening):.3f} at worst. "
    f"On the target samples it is {reached.value:.3f} [{reached.low:.3f}, {reached.high:.3f}], "
    f"which {verdict} --{bound.name}={bound.limit:g}."
  )
  return [
    *wrapped(sentence, width), "", *choice_lines(known, target, floor, width), "",
    *map(shlex.quote, overrides(known)), "",
    f"The same for diffence: {shlex.quote(f'--flagfile={output}/tune.flags')}",
  ]  # fmt: skip


def _write(
  output: Path, bound: Any, widening: float, known: Any, target: Any, floor: Any
) -> None:
  """Writes `tune.json` and `tune.flags`."""
  from diffence_jax.audit.tune import overrides
  from diffence_jax.audit.typed import to_plain
  from diffence_jax.disk import make_private, private_files, write_atomically

  content = {
    "bound": bound._asdict(),
    "widening": widening,
    "worst": bound.worst(known, widening),
    "is_met_on_target": bound.is_met(bound.figure(target).value),
    "overrides": overrides(known),
    "known": to_plain(known),
    "target": to_plain(target),
    "label_floor": to_plain(floor),
  }
  text = json.dumps(content, indent=2, allow_nan=False) + "\n"
  with private_files():
    make_private(output)
    write_atomically(output / "tune.json", text)
    write_atomically(output / "tune.flags", "\n".join(overrides(known)) + "\n")
