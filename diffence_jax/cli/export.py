"""The command `diffence export`: the protected classifier of a finished run, as one file."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from diffence_jax.cli.parsing import asks_for_help, parse

_HELP = """\
Writes the protected classifier of a finished run as one file, which JAX runs by itself.

  diffence export --config=FILE[:VARIANT] --workdir=FOLDER --output=FILE [--policy=NAME]

  --config, --workdir    those of the run, with the same --config.SETTING=VALUE, if any
  --output=FILE          the program, replaced if it is there
  --policy=scenario_1    what is answered: one of the run's purify.policies, as it was fitted
  --help                 this text

Where it is to run, pip install jax flatbuffers, and

  from pathlib import Path
  import jax
  from jax import export
  program = export.deserialize(bytearray(Path("FILE").read_bytes()))
  logits = jax.jit(program.call)(jax.random.key_data(jax.random.key(0)), images)

with images float32 [N,H,W,C] in [0, 1], and a new key for every call. The file holds the
weights of both networks and the interval, and no sample.
"""


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    OSError: the run is not finished, or there is no folder for the file.
    ValueError: a flag or a setting is not right, or the run's defense cannot be exported.
    ArtifactError: something in the workdir is damaged.
  """
  if asks_for_help(argv):
    print(_HELP, end="")
    return
  values = parse(argv, _define_flags, ("config", "workdir", "output"))
  output = Path(values.output).expanduser()
  # Only now: importing jax takes a second.
  from diffence_jax.experiment.finished import choose_policy, load_run

  finished = load_run(values.workdir, values.config)
  check_exported(finished.experiment, output)
  name = choose_policy(finished.experiment, values.policy)
  print(export_policy(finished, name, output), file=sys.stderr)


def check_exported(experiment: Any, output: Path) -> None:
  """Raises unless an experiment's classifier can be exported, and there is room for the file.

  Args:
    experiment: as `plan` makes it.
    output: the file.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: the classifier is one of another framework.
  """
  from diffence_jax.experiment.stages.host_classifier import HostClassifier
  from diffence_jax.interop.export import check_folder_of

  check_folder_of(output)
  if isinstance(experiment.classifier, HostClassifier):
    raise ValueError(
      f"The classifier of {experiment.classifier.architecture} is none of Flax, so it "
      "cannot be exported. Protect it where it runs: dj.load_run(workdir).protect()."
    )


def export_policy(finished: Any, policy: str, output: Path) -> str:
  """Writes a run's classifier behind a policy as one program.

  Args:
    finished: as `load_run` returns it.
    policy: its name.
    output: the file.

  Returns:
    What was written, for people.
  """
  from diffence_jax.interop import export

  shape = finished.experiment.dataset.images.shape[1:]
  export(output, finished.protect(policy), shape)
  size = output.stat().st_size / 2**20
  return (
    f"{output}: {size:.1f} MiB, {policy}, for (key data u32[2], images "
    f"f32[N,{','.join(map(str, shape))}]); see diffence export --help."
  )


def _define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("output", None, "The program.", flag_values=values)
  flags.DEFINE_string("policy", None, "What is answered.", flag_values=values)
