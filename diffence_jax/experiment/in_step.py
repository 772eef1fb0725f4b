"""Training by all processes of a pod, which take every step together.

The first one claims the artifact, says to the others what is to be done, and writes; the others
feed their part of every batch.
"""

import enum
import functools
import time

from diffence_jax import parallel
from diffence_jax.experiment.claims import PATIENCE, Alone, Claims
from diffence_jax.experiment.sharing import compute_items
from diffence_jax.experiment.stage import Compute
from diffence_jax.experiment.stages.network import TrainedNetwork, keep
from diffence_jax.experiment.store import Store


class _Next(enum.IntEnum):
  """What the first process has all of them do."""

  GO_ON = 0
  TRAIN = 1
  WAIT = 2


def train_in_step(
  name: str, stage: TrainedNetwork, store: Store, compute: Compute, claims: Alone | Claims
) -> None:
  """Trains a network over all devices of the pod, unless it is there; called by all processes.

  What it learns from, its items, they share out before.

  Args:
    name: for people.
    stage: the network.
    store: where its artifact goes.
    compute: how it is computed.
    claims: of this process.

  Raises:
    UnfinishedError: another process is gone.
  """
  compute_items(name, stage, store, compute, claims)
  mesh, first = parallel.pod_mesh(), parallel.is_first()
  items = stage.items(compute)
  limited = store.for_inputs_of(stage, items)
  train = functools.partial(stage.train, store=limited, compute=compute, mesh=mesh)
  parts = items if stage.items_are_parts else ()
  while True:
    with claims.claimed([store.path(stage)] if first else []) as mine:
      # What a killed run has left to commit is no work for others.
      whole = first and store.is_written(stage)
      if whole and mine:
        store.compute(stage, lambda folder: None)
      step = _Next.GO_ON if whole else _Next.TRAIN if mine else _Next.WAIT
      step = _Next(parallel.from_first(step))
      if step is _Next.TRAIN:
        with parallel.naming_lost(f"The training of the {stage.name} in step"):
          if first:
            store.compute(stage, lambda to: keep(to, train(to)), parts)
          else:
            train(store.partial(stage))
    if step is _Next.GO_ON:
      return
    time.sleep(PATIENCE)
