"""How training steps get at their examples, and how many of them are one call.

On CPU the host takes each batch's examples and calls a step. On accelerators the examples are
held by the devices, and one call takes many steps: small ones would wait for the host.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffence_jax import parallel
from diffence_jax.data import Images, StreamedImages
from diffence_jax.training.loop import Step, compile_step, take

# On CPU the gradient of a convolution is some 40 times slower in a loop than alone.
_STEPS_PER_CALL = {"cpu": 1}
_STEPS_PER_CALL_ELSEWHERE = 32


def default_steps_per_call(backend: str) -> int:
  """How many steps a call of this backend ("cpu", "gpu", "tpu") takes."""
  return _STEPS_PER_CALL.get(backend, _STEPS_PER_CALL_ELSEWHERE)


def check_steps_per_call(steps_per_call: int | None, mesh: Mesh) -> int:
  """Returns the number, the default of the mesh's backend for None; ValueError if below 1."""
  if steps_per_call is None:
    return default_steps_per_call(mesh.devices.flat[0].platform)
  if steps_per_call < 1:
    raise ValueError(f"steps_per_call is {steps_per_call}; expected at least 1.")
  return steps_per_call


def on_rows(step: Step) -> Callable[..., Any]:
  """Builds the pure function that takes steps one after another, not yet compiled.

  Args:
    step: a step.

  Returns:
    `(examples, state, rows, key) -> (state, metrics)`: examples, group to arrays with the
    examples along their first axis; rows, group to i[S,B], the batches of S steps; metrics are
    those of the last step.
  """

  def steps(examples, state, rows, key):
    def one(state, rows):
      batch = {group: take(examples[group], chosen) for group, chosen in rows.items()}
      return step(state, batch, key)

    if len(jax.tree.leaves(rows)[0]) == 1:
      return one(state, jax.tree.map(lambda chosen: chosen[0], rows))
    state, metrics = jax.lax.scan(one, state, rows)
    return state, jax.tree.map(lambda values: values[-1], metrics)

  return steps


def feed(
  steps: Mapping[str, Step],
  examples: Mapping[str, Mapping[str, Images]],
  batches: Callable[[int], Iterator[tuple[str, dict[str, np.ndarray]]]],
  mesh: Mesh,
  steps_per_call: int | None = None,
) -> tuple[Mapping[str, Step], Callable[[int], Iterator[tuple[str, Any]]], int]:
  """Compiles steps, and arranges for how they get at their examples.

  For one step a call, the host takes a batch's examples. For several, all examples are copied
  to every device, and the compiled steps take theirs themselves.

  Args:
    steps: kind of step to step.
    examples: group to arrays with the examples along their first axis.
    batches: given the number of steps done, what comes next: a kind of step, and group to
      rows i[B].
    mesh: batches are split over it.
    steps_per_call: at least 1; None for `default_steps_per_call`. With images on disk it is 1.

  Returns:
    What `loop.fit` takes: steps, batches, and how many steps a call has.

  Raises:
    ValueError: `steps_per_call` is less than 1.
  """
  steps_per_call = check_steps_per_call(steps_per_call, mesh)
  if any(isinstance(values, StreamedImages) for values in jax.tree.leaves(examples)):
    steps_per_call = 1
  if steps_per_call > 1:
    held = parallel.replicate(mesh, examples)
    compiled = {
      kind: functools.partial(jax.jit(on_rows(step), donate_argnums=1), held)
      for kind, step in steps.items()
    }
    return compiled, batches, steps_per_call

  def taken(first):
    for kind, rows in batches(first):
      yield kind, {group: take(examples[group], own) for group, own in rows.items()}

  return {kind: compile_step(step) for kind, step in steps.items()}, taken, 1
