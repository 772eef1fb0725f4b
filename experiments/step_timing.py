"""Seconds a training step takes, for the experiments that compare ways of training."""

import functools
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import measuring
import numpy as np
import optax
from jax.sharding import Mesh

import diffence_jax as dj
from diffence_jax import parallel
from diffence_jax.training import Recipe
from diffence_jax.training.denoiser import noise_prediction
from diffence_jax.training.ensemble import make_ensemble_step
from diffence_jax.training.feed import default_steps_per_call, feed
from diffence_jax.training.loop import Step, grouped, init_state, place, take, train_step


def denoiser_training(
  module: nn.Module, config: Any, shape: tuple[int, int, int]
) -> tuple[Step, Callable[[Any], Any]]:
  """The step of a diffusion model's training.

  Args:
    module: the network.
    config: the section `diffusion` of an experiment.
    shape: of the images.

  Returns:
    The step, not compiled; and `start(variables) -> state` before the first one.
  """
  optimizer = optax.chain(
    optax.clip_by_global_norm(config.clip_norm), optax.adam(config.learning_rate)
  )
  loss = noise_prediction(module, dj.linear_schedule(**config.schedule), shape)
  start = functools.partial(init_state, optimizer=optimizer, average=True)
  return train_step(loss, optimizer, config.ema_decay), start


def step_flops(step: Step, state: Any, examples: Any, batch_size: int) -> float:
  """FLOPs of a training step, by XLA; arguments as `single_steps` takes them."""
  batch = {group: take(arrays, np.arange(batch_size)) for group, arrays in examples.items()}
  return measuring.flops(step, state, batch, jax.random.key(0))


def single_steps(
  step: Step,
  state: Any,
  examples: Any,
  batch_size: int,
  mesh: Mesh,
  steps_per_call: int | None = None,
) -> Callable[[int], float]:
  """Prepares the training of one model, its batches split over the devices.

  Args:
    step: not compiled.
    state: what it begins with.
    examples: group to arrays with one row an example, as the step takes its batch.
    batch_size: examples a step.
    mesh: the batches are split over it.
    steps_per_call: None for what is the default of the backend.

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

  steps, batches, per_call = feed({"step": step}, examples, rows, mesh, steps_per_call)

  def run(num_steps: int) -> float:
    num_steps = -(-num_steps // per_call) * per_call
    start = time.perf_counter()
    for kind, group in grouped(itertools.islice(batches(0), num_steps), per_call):
      carried[0], _ = steps[kind](carried[0], place(mesh, group, per_call), key)
    jax.block_until_ready(carried[0])
    return (time.perf_counter() - start) / num_steps

  return run


def ensemble_steps(
  recipe: Recipe,
  examples: Mapping[str, np.ndarray],
  batch_size: int,
  mesh: Mesh,
  at_once: int,
  steps_per_call: int | None = None,
) -> Callable[[int], float]:
  """Prepares a group of models, several on every device.

  Args:
    recipe: of each; with one kind of step.
    examples: "images" u8[N,H,W,C] and "labels" i[N].
    batch_size: examples a step and model.
    mesh: the models are divided over it.
    at_once: models on every device.
    steps_per_call: None for what is the default of the backend.

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
  per_call = steps_per_call or default_steps_per_call(jax.default_backend())
  draw = np.random.default_rng(0)

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
