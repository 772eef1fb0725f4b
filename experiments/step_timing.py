"""Seconds a training step takes, for the experiments that compare ways of training."""

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffence_jax import parallel
from diffence_jax.training import Recipe
from diffence_jax.training.ensemble import make_ensemble_step
from diffence_jax.training.feed import default_steps_per_call, feed
from diffence_jax.training.loop import Step, grouped, place


def single_steps(
  step: Step, state: Any, examples: Any, batch_size: int, mesh: Mesh
) -> Callable[[int], float]:
  """Prepares the training of one model, its batches split over the devices.

  Args:
    step: not compiled.
    state: what it begins with.
    examples: group to arrays with one row an example, as the step takes its batch.
    batch_size: examples a step.
    mesh: the batches are split over it.

  Returns:
    `run(num_steps) -> seconds a step`.
  """
  key, draw = jax.random.key(0), np.random.default_rng(0)
  # The step takes over what it is given, so a copy is.
  carried = [parallel.replicate(mesh, jax.tree.map(np.array, state))]
  num = len(jax.tree.leaves(examples)[0])

  def rows(first):
    while True:
      yield "step", {group: draw.integers(0, num, batch_size) for group in examples}

  steps, batches, per_call = feed({"step": step}, examples, rows, mesh)

  def run(num_steps: int) -> float:
    num_steps = -(-num_steps // per_call) * per_call
    start = time.perf_counter()
    for kind, group in grouped(itertools.islice(batches(0), num_steps), per_call):
      carried[0], _ = steps[kind](carried[0], place(mesh, group, per_call), key)
    jax.block_until_ready(carried[0])
    return (time.perf_counter() - start) / num_steps

  return run


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
  draw, per_call = np.random.default_rng(0), default_steps_per_call(jax.default_backend())

  def run(num_steps: int) -> float:
    calls, start = -(-num_steps // per_call), time.perf_counter()
    for _ in range(calls):
      shape = group, per_call, batch_size
      rows = draw.integers(0, len(examples["images"]), shape).astype(np.int32)
      rows = parallel.shard_batch(mesh, {"members": rows})
      carried[0], _ = step(whole, {}, carried[0], rows, keys)
    jax.block_until_ready(carried[0])
    return (time.perf_counter() - start) / (calls * per_call * group)

  return run
