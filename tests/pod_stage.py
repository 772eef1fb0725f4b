"""One process that runs the stage of a small network, alone or in a pod; for test_pod_ends.py.

    python pod_stage.py WORKDIR HOST:PORT,NUMBER,COUNT|alone SHARD SECONDS EVERY

Every step takes so many seconds more, and its number goes to `WORKDIR/step`. After EVERY steps
a checkpoint is due.
"""

import dataclasses
import functools
import sys
import time
from pathlib import Path
from typing import ClassVar

import jax
from pod_training import PixelDenoiser, by_name, variables_after

from diffence_jax import models, parallel, stopping
from diffence_jax.cli import interrupts
from diffence_jax.experiment import partners
from diffence_jax.experiment.claims import Claims
from diffence_jax.experiment.in_step import train_in_step
from diffence_jax.experiment.stage import Compute
from diffence_jax.experiment.stages.network import TrainedNetwork
from diffence_jax.experiment.store import Store
from diffence_jax.predictor import Bound
from diffence_jax.training import loop

STEPS = 60


@dataclasses.dataclass(frozen=True)
class Pixels(TrainedNetwork):
  """A `PixelDenoiser`, trained."""

  name: ClassVar[str] = "pixels"

  steps: int = STEPS

  @property
  def bound(self):
    """The network, and the shapes of its variables."""
    init = lambda key: models.init(PixelDenoiser(), key, (4, 4, 1))
    return Bound(PixelDenoiser(), jax.eval_shape(init, jax.random.key(0)))

  @property
  def architecture(self):
    """Its name."""
    return "pixels"

  def train(self, folder, store, compute, mesh):
    """Trains; see `TrainedNetwork.train`."""
    shard, every = compute.shard_parameters, compute.checkpoint_every
    how = {"shard_parameters": shard, "checkpoint_every": every}
    return variables_after(folder, mesh, self.steps, **how)

  def cost(self):
    """How many steps."""
    return f"{self.steps} steps"


def slow_down(workdir, seconds):
  """Has every step of `loop.fit` take so long, and tell its number."""
  place, steps = loop.place, iter(range(1, STEPS + 1))

  def place_slowly(*given):
    time.sleep(seconds)
    if parallel.is_first():
      (workdir / "step").write_text(str(next(steps)))
    return place(*given)

  loop.place = place_slowly


def main(workdir, together, shard, seconds, every):
  """Computes the stage, as a run of an experiment does."""
  alone = together == "alone"
  if not alone:
    parallel.connect(together)
  if float(seconds):
    slow_down(workdir, float(seconds))
  store, stage = Store(workdir), Pixels()
  compute = Compute(checkpoint_every=int(every), shard_parameters=shard == "True")
  if alone:
    store.compute(stage, functools.partial(stage.compute, store=store, compute=compute))
  else:
    with partners.watched(workdir):
      train_in_step(stage.name, stage, store, compute, Claims())
  return by_name(stage.load(store).variables)


if __name__ == "__main__":
  interrupts.watch("the same command goes on.", goes_on=True)
  try:
    main(Path(sys.argv[1]), *sys.argv[2:])
  except stopping.UnfinishedError as error:
    print(error, file=sys.stderr)
    interrupts.leave(75)
