"""The command `diffence import-torch`: a published checkpoint to a saved model."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffence_jax.cli.parsing import Arguments, asks_for_help, parse_settings
from diffence_jax.cli.terminal import printable, say

_DESCRIPTION = """\
Turns a network that was trained and published with PyTorch into a saved model: a folder that
config.classifier.saved_model or config.diffusion.saved_model of an experiment can name.

  KIND                the network, for example ddpm_unet or resnet18; an unknown one is met
                      with the list of them
  FILE                its checkpoint: .pt, .pth, .pth.tar, .bin or .ckpt of torch.save (nothing
                      in it is run; one that would need that is refused), .safetensors, or the
                      .safetensors.index.json of several; for ddpm_unet also the folder of a
                      Diffusers UNet2DModel or of a pipeline with one. Where the file holds
                      several sets of weights, those averaged over training are taken, and a
                      line says which
  --output=FOLDER     the folder to make; one that is there already is not overwritten
  --set FIELD=VALUE   fields of the network that its weights do not tell, any number of them,
                      for example --set mean=0.4914,0.4822,0.4465 std=0.2023,0.1994,0.201
  --predicts=WHAT     what a diffusion model was trained to predict: noise, clean (the image
                      without noise), v, or edm (the raw network of EDM's preconditioning);
                      noise unless a Diffusers pipeline says otherwise
  --sigma_data=S      with edm, the spread of the data that it was trained for; 0.5 unless given
  --schedule OPTION=VALUE
                      the noise schedule of a diffusion model, where its files do not tell it,
                      for example --schedule kind=cosine num_steps=4000; networks that predict
                      something else than the noise need one
  --help              this text

Reading needs an extra: pip install -e '.[torch]'. The command exits with 0 when done
and with 2 when something that it was given is not right; then it leaves nothing behind.
"""
_USAGE = (
  "diffence import-torch KIND FILE --output=FOLDER [--set FIELD=VALUE ...] [--predicts=WHAT]"
)


def run(argv: Sequence[str]) -> None:
  """Runs the command.

  Args:
    argv: the program's name and its arguments.

  Raises:
    ValueError: the arguments or the checkpoint are not right.
    OSError: a file is missing, or the output is there already or cannot be written.
    ImportError: an extra is not installed.
    TypeError: a field is of a wrong type.
  """
  if asks_for_help(argv):
    print(f"{_USAGE}\n\n{_DESCRIPTION}", end="")
    return
  given = _arguments(argv)
  settings = parse_settings(given.set)
  schedule = parse_settings(given.schedule, "schedule") or None

  # Nothing here is for an accelerator, which may be busy.
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  # After parsing: importing jax takes a second that a misspelt flag need not wait for.
  from diffence_jax.checks import check_choice
  from diffence_jax.diffusion import make_schedule
  from diffence_jax.disk import check_free, file_digest
  from diffence_jax.interop import diffusers
  from diffence_jax.interop.files import files_of
  from diffence_jax.interop.from_torch import LAYOUTS, read_network
  from diffence_jax.models import num_parameters
  from diffence_jax.models import saved as saved_model

  check_free(given.output)
  if schedule:
    make_schedule(**schedule)  # raises where it is not right
  if given.predicts:
    check_choice("--predicts", given.predicts, saved_model.PREDICTIONS)
  _say(f"reading {given.file}")
  network = read_network(given.kind, given.file, predicts=None, **settings)
  is_folder = given.file.is_dir()
  files = diffusers.find_files(given.file).all if is_folder else files_of(given.file)
  _say("computing the digest")
  source = {file.name: file_digest(file) for file in files}
  _say(f"writing {given.output}")
  manifest = saved_model.save_model(
    given.output,
    network.module,
    network.variables,
    image_channels=network.image_channels,
    kind=given.kind,
    source=source,
    schedule=_agreed("schedule", schedule, network.schedule, given.file),
    predicts=_agreed("predicts", given.predicts, network.predicts, given.file) or "noise",
    sigma_data=given.sigma_data,
  )
  _say("")
  say(
    f"{given.output}: the {manifest.role} {manifest.name}, "
    f"{num_parameters(network.variables):,} parameters, for images of "
    f"{network.image_channels} channel{'s' if network.image_channels > 1 else ''}."
  )
  if network.told:
    say(network.told)
  if manifest.role == "denoiser":
    say(_about_prediction(manifest.predicts))
    say(_about_schedule(manifest.schedule))
  assumed = [name for name in LAYOUTS[given.kind].untold if name not in settings]
  if assumed:
    say(_about_assumed({name: getattr(network.module, name) for name in assumed}))


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
  """What is given on the command line; ValueError where it is not right."""
  parser = Arguments("diffence import-torch")
  parser.add_argument("kind", metavar="KIND")
  parser.add_argument("file", metavar="FILE", type=Path)
  parser.add_argument("--output", metavar="FOLDER", type=Path, required=True)
  for flag in ("--set", "--schedule"):
    parser.add_argument(flag, nargs="+", action="extend", default=[], metavar="FIELD=VALUE")
  parser.add_argument("--predicts", metavar="WHAT")
  parser.add_argument("--sigma_data", metavar="S", type=float)
  given = parser.parse_args(argv[1:])
  given.file, given.output = given.file.expanduser(), given.output.expanduser()
  return given


def _about_assumed(fields: Mapping[str, Any]) -> str:
  """What is taken for fields that the weights do not tell."""
  values = ", ".join(f"{name}={value}" for name, value in fields.items())
  return (
    f"The weights do not tell {values}, which was assumed: where it was trained otherwise, "
    "import it again with --set FIELD=VALUE."
  )


def _agreed(flag: str, given: Any, told: Any, file: Path) -> Any:
  """What is given, or what the files tell; ValueError where the two differ."""
  if None not in (given, told) and given != told:
    raise ValueError(f"--{flag} is {given}, and {file} says {told}; leave it out.")
  return told if given is None else given


def _about_prediction(predicts: str) -> str:
  """What the network is taken to predict."""
  if predicts == "noise":
    return "It is taken to predict the noise; if it does not, import it with --predicts=WHAT."
  return f"It predicts {predicts!r}, from which the noise follows wherever it is used."


def _about_schedule(schedule: Mapping[str, Any] | None) -> str:
  """Which noise schedule is taken for the network."""
  if schedule is None:
    return (
      "Its noise schedule is not told: where it is not the linear one of 1,000 steps, say so "
      "in config.diffusion.schedule."
    )
  words = [
    f"{name} {value}" for name, value in schedule.items() if name not in ("kind", "betas")
  ]
  return f"Noise schedule: {', '.join([schedule.get('kind', 'linear'), *words])}."


def _say(what: str) -> None:
  """Shows what is being done in a line that the next replaces; only where someone watches."""
  if sys.stderr.isatty():
    print(
      f"\r\x1b[K{printable(what)}{' ...' if what else ''}", end="", file=sys.stderr, flush=True
    )
