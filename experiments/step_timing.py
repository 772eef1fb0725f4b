"""Seconds a training step takes, for the experiments that compare ways of training."""

import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from diffence_jax import parallel
from diffence_jax.training import Recipe
from diffence_jax.training.ensemble import make_ensemble_step


def ensemble_steps(
  recipe: Recipe, examples: Mapping[str, np.ndarray], batch_size: int, mesh: Mesh, at_once: int
) -> Callable[[int], float]:
  """Prepares a group of models, several on every device.

  Args:
    recipe: of each; with one kind of step.
    examples: "images" u8[N,H,W,C] and "labels" i[N].
    batch_size: examples a step and model.
    mesh: the models are divided over it.
    at_once: models on every device.

  Returns:
    `run(num_steps) -> seconds a step and model`, over so many steps of all of them.
  """
  (kind,) = recipe.kinds.values()
  step = make_ensemble_step(kind.step, mesh)
  group = mesh.size * at_once
  keys = jax.random.split(jax.random.key(0), group)
  shape = examples["images"].shape[1:]
  init = jax.jit(jax.vmap(lambda key: recipe.init(key, shape)))
  carried, keys = [parallel.shard_batch(mesh, init(keys))], parallel.shard_batch(mesh, keys)
  whole = parallel.replicate(mesh, {"members": dict(examples)})
  draw = np.random.default_rng(0)

  def run(num_steps: int) -> float:
    start = time.perf_counter()
    for _ in range(num_steps):
      rows = draw.integers(0, len(examples["images"]), (group, 1, batch_size)).astype(np.int32)
      rows = parallel.shard_batch(mesh, {"members": rows})
      carried[0], _ = step(whole, {}, carried[0], rows, keys)
    jax.block_until_ready(carried[0])
    return (time.perf_counter() - start) / (num_steps * group)

  return run
