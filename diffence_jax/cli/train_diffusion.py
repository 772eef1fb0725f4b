"""The command `diffence train-diffusion`: images in, a saved diffusion model out."""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from diffence_jax.cli.parsing import asks_for_help, parse

_HELP = """\
Trains a diffusion model by itself, without a classifier, and saves it.

  diffence train-diffusion --config=FILE[:VARIANT] --workdir=FOLDER --output=FOLDER
                           [--samples=config|all] [--config.SETTING=VALUE ...]

  --config         an experiment's; its sections data, diffusion and compute matter
  --workdir        checkpoints go there: the same command goes on from where it was stopped,
                   and an experiment with the same config finds the model there
  --output=FOLDER  the saved model, for dj.load_model, diffence protect, and
                   --config.diffusion.saved_model of experiments; it must not be there yet
  --samples=config what it is trained on: as diffusion.trained_on says; all: every image
  --help           this text

Of a folder of your own, with a folder of images for each class:

  diffence train-diffusion --config=digits --workdir=runs/mine --output=mine --samples=all \\
    --config.data.source=folder --config.data.options.path=photos
"""


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    OSError: the data are not there, or there is something at the output.
    ValueError: a flag or a setting is not right.
    ArtifactError: something in the workdir is damaged.
  """
  if asks_for_help(argv):
    print(_HELP, end="")
    return
  values = parse(argv, _define_flags, ("config", "workdir", "output"))
  # Only now: importing jax takes a second.
  from diffence_jax.experiment import compiled
  from diffence_jax.experiment.diffusion_alone import train_diffusion

  compiled.keep_in(values.workdir)
  train_diffusion(values.config, values.workdir, values.output, samples=values.samples)
  output = Path(values.output).expanduser()
  size = sum(file.stat().st_size for file in output.iterdir()) / 2**20
  print(f"{output}: {size:.1f} MiB; see diffence train-diffusion --help.", file=sys.stderr)


def _define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("output", None, "The saved model.", flag_values=values)
  flags.DEFINE_string("samples", "config", "What it is trained on.", flag_values=values)
