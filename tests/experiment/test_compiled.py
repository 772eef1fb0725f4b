"""Compiled programs are found again by later runs, and do no harm where they are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffence_jax.cli import main
from diffence_jax.experiment import compiled, run

# Trains with the seed; prints how many programs of steps there are, how many programs of any
# kind were found in the cache, and what was learnt.
SCRIPT = """
import sys
import jax
import numpy as np
from flax import linen as nn
from pathlib import Path
from diffence_jax import parallel
from diffence_jax.experiment import compiled
from diffence_jax.training import TrainSettings, train_classifier
from diffence_jax.training.baselines import undefended

class Dense(nn.Module):
  @nn.compact
  def __call__(self, images, *, train=False):
    return nn.Dense(3)(images.reshape(len(images), -1))

workdir, seeds = Path(sys.argv[1]), map(int, sys.argv[2:])
compiled.keep_in(workdir)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
found = []
jax.monitoring.register_event_listener(
  lambda event, **own: found.append(event) if event.endswith("/cache_hits") else None
)
images = np.arange(160, dtype=np.uint8).reshape(10, 4, 4, 1)
for seed in seeds:
  jax.clear_caches()
  found.clear()
  variables = train_classifier(
    undefended(Dense(), TrainSettings(10, 1, 5, 1e-3, 0.0)),
    {"images": images, "labels": np.arange(10) % 3},
    checkpoint_every=100,
    seed=seed,
    mesh=parallel.batch_mesh(),
    directory=workdir / str(seed),
  )
  programs = len(list(workdir.glob("compiled/*/jit_step-*-cache")))
  learnt = np.sum(np.abs(variables["params"]["Dense_0"]["kernel"])).item()
  print(programs, len(found), learnt)
"""

# Protects models of two seeds, and answers at any time; prints their programs.
PROTECT = """
import sys
import jax
import numpy as np
from pathlib import Path
import diffence_jax as dj
from diffence_jax import models
from diffence_jax.experiment import compiled
from models.small_unet import small_unet

compiled.keep_in(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
images = np.full((3, 8, 8, 1), 0.5, np.float32)
classifier = models.make_classifier("small_resnet", num_classes=3, width=4, stages=(1,))
denoiser = small_unet()
for seed in range(2):
  keys = jax.random.split(jax.random.key(seed))
  networks = (
    models.predictor(classifier, models.init(classifier, keys[0], (8, 8, 1))),
    models.denoiser(denoiser, models.init(denoiser, keys[1], (8, 8, 1))),
    dj.linear_schedule(),
  )
  for constant_time in (True, False):
    options = {"num_candidates": 2, "step": 10, "constant_time": constant_time}
    dj.protect(*networks, chunk_size=6, **options)(keys[0], images)
  kept = Path(sys.argv[1]).glob("compiled/*/*-cache")
  print(sorted(path.name for path in kept if path.name.startswith(("jit_choose", "jit_draw"))))
"""


def run_script(script, *arguments, **environment):
  without = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
  process = subprocess.run(
    [sys.executable, "-c", script, *map(str, arguments)],
    cwd=Path(__file__).parents[1],  # where what tests share is found
    capture_output=True,
    text=True,
    env={**without, "JAX_PLATFORMS": "cpu", **environment},
  )
  assert process.returncode == 0, process.stderr
  return process


def test_other_weights_are_no_other_program(tmp_path):
  """They are its arguments."""
  first, second = run_script(PROTECT, tmp_path).stdout.splitlines()
  assert first == second and "jit_choose" in first and "jit_draw" in first


def train(workdir, *seeds, **environment):
  process = run_script(SCRIPT, workdir, *seeds, **environment)
  values = [line.split() for line in process.stdout.splitlines()]
  return [(int(a), int(b), float(c)) for a, b, c in values], process.stderr


def test_another_seed_finds_what_the_first_compiled_and_damage_is_a_warning(tmp_path):
  ((_, _, alone),), _ = train(tmp_path / "alone", 1)
  (first, second), _ = train(tmp_path, 0, 1)
  assert first[0] == second[0] == 1
  assert second[1] > first[1] and second[2] == alone != first[2]
  (program,) = tmp_path.glob("compiled/*/jit_step-*-cache")
  program.write_bytes(program.read_bytes()[:100])  # as a killed run leaves it
  (again,), stderr = train(tmp_path, 2)
  assert again[1] > 0 and "Error reading persistent compilation cache entry" in stderr


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path):
  (tmp_path / "compiled").touch()
  ((programs, found, _),), stderr = train(tmp_path, 0)
  assert (programs, found) == (0, 0) and "persistent compilation cache" in stderr


def test_the_command_keeps_them_in_its_workdir(tmp_path, monkeypatch):
  kept = []

  def computing(experiment, workdir, share):
    assert experiment.stages and kept == [workdir] == [str(tmp_path)]
    raise ValueError("enough")

  monkeypatch.setattr(compiled, "keep_in", kept.append)
  monkeypatch.setattr(run, "carry_out", computing)
  config = Path(__file__).parents[2] / "configs" / "digits.py"
  command = ["diffence", f"--config={config}:smoke", f"--workdir={tmp_path}"]
  assert main.run([*command, "--dry_run"]) == 0 and not kept
  assert main.run(command) == 2 and kept


@pytest.mark.parametrize("chosen", ["", "own"])
def test_a_cache_of_the_users_is_kept(chosen, tmp_path):
  folder = chosen and str(tmp_path / chosen)
  train(tmp_path / "run", 0, JAX_COMPILATION_CACHE_DIR=folder)
  assert not (tmp_path / "run" / "compiled").exists()
  assert bool(chosen) == any(tmp_path.glob("own/jit_step-*"))
