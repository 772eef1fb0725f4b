"""The command `diffence import-torch`: a published checkpoint to a saved model."""

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
  --help              this text

Reading needs an extra: pip install -e '.[torch]'. The command exits with 0 when done
and with 2 when something that it was given is not right; then it leaves nothing behind.
"""
_USAGE = "diffence import-torch KIND FILE --output=FOLDER [--set FIELD=VALUE ...]"


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
  parser = Arguments("diffence import-torch")
  parser.add_argument("kind", metavar="KIND")
  parser.add_argument("file", metavar="FILE", type=Path)
  parser.add_argument("--output", metavar="FOLDER", type=Path, required=True)
  parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE")
  given = parser.parse_args(argv[1:])
  given.file, given.output = given.file.expanduser(), given.output.expanduser()
  settings = parse_settings(given.set)

  # Nothing here is for an accelerator, which may be busy.
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  # After parsing: importing jax takes a second that a misspelt flag need not wait for.
  from diffence_jax.disk import check_free, file_digest
  from diffence_jax.interop import diffusers
  from diffence_jax.interop.files import files_of
  from diffence_jax.interop.from_torch import LAYOUTS, read_network
  from diffence_jax.models import num_parameters
  from diffence_jax.models import saved as saved_model

  check_free(given.output)
  _say(f"reading {given.file}")
  network = read_network(given.kind, given.file, **settings)
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
    schedule=network.schedule,
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
    say(_about_schedule(manifest.schedule))
  assumed = [name for name in LAYOUTS[given.kind].untold if name not in settings]
  if assumed:
    say(_about_assumed({name: getattr(network.module, name) for name in assumed}))


def _about_assumed(fields: Mapping[str, Any]) -> str:
  """What is taken for fields that the weights do not tell."""
  values = ", ".join(f"{name}={value}" for name, value in fields.items())
  return (
    f"The weights do not tell {values}, which was assumed: where it was trained otherwise, "
    "import it again with --set FIELD=VALUE."
  )


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
