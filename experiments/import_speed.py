"""How long and how much memory it takes to import a checkpoint of two gigabytes.

    python experiments/import_speed.py --folder=/tmp/import

Writes a wide ResNet-18 of 518 million made-up float32 parameters as `resnet18.pt` (by torch)
and as `resnet18.safetensors`, imports each with `diffence import-torch` in a process of its
own, and prints the seconds, of them those of a processor, and the peak of that process's
resident memory. Pages of the checkpoint that are mapped count in it, although the system can
drop them whenever memory is short.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from absl import app, flags

_FOLDER = flags.DEFINE_string("folder", None, "For the checkpoints; they are left there.")
_WIDTH = flags.DEFINE_integer("width", 436, "Features of the first stage.")


def resnet18_shapes(width: int) -> dict[str, tuple[int, ...]]:
  """The parameters of a ResNet-18 as weiaicunzai/pytorch-cifar100 names them."""
  shapes = {"fc.weight": (10, 8 * width), "fc.bias": (10,)}

  def add(name, number, features, before, size):
    shapes[f"{name}.{number}.weight"] = (features, before, size, size)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
      shapes[f"{name}.{number + 1}.{leaf}"] = (features,)

  add("conv1", 0, width, 3, 3)
  before = width
  for stage in range(4):
    features = width * 2**stage
    for block in range(2):
      name = f"conv{stage + 2}_x.{block}"
      add(f"{name}.residual_function", 0, features, before, 3)
      add(f"{name}.residual_function", 3, features, features, 3)
      if features != before:
        add(f"{name}.shortcut", 0, features, before, 1)
      before = features
  return shapes


def write(folder: Path) -> list[Path]:
  """The same made-up weights in both formats."""
  draw = np.random.default_rng(0)
  weights = {
    name: torch.from_numpy(draw.standard_normal(shape, np.float32))
    for name, shape in resnet18_shapes(_WIDTH.value).items()
  }
  paths = [folder / "resnet18.pt", folder / "resnet18.safetensors"]
  torch.save(weights, paths[0])
  safetensors.torch.save_file(weights, paths[1])
  return paths


def import_in_a_process(path: Path, output: Path) -> tuple[float, float, float]:
  """Seconds, seconds of a processor, and GiB of resident memory at the most."""
  command = [
    sys.executable,
    "-m",
    "diffence_jax.cli.main",
    "import-torch",
    "resnet18",
    str(path),
  ]
  start = time.perf_counter()
  process = os.spawnv(os.P_NOWAIT, sys.executable, [*command, f"--output={output}"])
  _, status, usage = os.wait4(process, 0)
  if status:
    raise RuntimeError(f"The import of {path} failed.")
  seconds = time.perf_counter() - start
  return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main(_) -> None:
  """Writes, imports and prints."""
  folder = Path(_FOLDER.value)
  folder.mkdir(parents=True, exist_ok=True)
  for path in write(folder):
    output = folder / f"{path.suffix[1:]}-saved"
    shutil.rmtree(output, ignore_errors=True)
    seconds, busy, gib = import_in_a_process(path, output)
    size = path.stat().st_size / 1e9
    print(
      f"{path.name}, {size:.2f} GB: {seconds:.1f} s ({busy:.1f} s of a processor), peak of "
      f"resident memory {gib:.2f} GiB"
    )


if __name__ == "__main__":
  flags.mark_flag_as_required("folder")
  app.run(main)
