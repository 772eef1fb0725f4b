"""How training steps get at their examples, and how many of them are one call.

On CPU the host takes each batch's examples and calls a step. On accelerators the examples are
held by the devices, and one call takes many steps: small ones would wait for the host.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffence_jax import parallel
from diffence_jax.checks import (
  check_instance,
  check_labels,
  check_numbers,
  check_type,
  check_whole,
)
from diffence_jax.compiling import shared
from diffence_jax.data import Images, StreamedImages
from diffence_jax.rng import MAX_ID
from diffence_jax.training.loop import Step, compile_step, take

# On CPU the gradient of a convolution is some 40 times slower in a loop than alone.
_STEPS_PER_CALL = {"cpu": 1}
_STEPS_PER_CALL_ELSEWHERE = 32

# Several models at once are faster on accelerators, slower on CPU, where convolutions with a
# batch of weights are up to four times slower than one after another.
_MODELS_AT_ONCE = {"cpu": 1}
_MODELS_AT_ONCE_ELSEWHERE = 8


def default_steps_per_call(backend: str) -> int:
  """How many steps a call of this backend ("cpu", "gpu", "tpu") takes."""
  return _STEPS_PER_CALL.get(backend, _STEPS_PER_CALL_ELSEWHERE)


def check_steps_per_call(steps_per_call: int | None, mesh: Mesh) -> int:
  """Returns the number, the default of the mesh's backend for None; ValueError if below 1."""
  if steps_per_call is None:
    return default_steps_per_call(mesh.devices.flat[0].platform)
  check_whole("steps_per_call", steps_per_call, 1)
  return steps_per_call


def default_models_at_once(backend: str) -> int:
  """How many models a device of this backend ("cpu", "gpu", "tpu") trains at once."""
  return _MODELS_AT_ONCE.get(backend, _MODELS_AT_ONCE_ELSEWHERE)


def models_together(models_at_once: int | None, mesh: Mesh) -> int:
  """How many models all devices of a mesh train at once, so many or by default each.

  Raises:
    ValueError: `models_at_once` is less than 1.
  """
  if models_at_once is None:
    models_at_once = default_models_at_once(mesh.devices.flat[0].platform)
  check_whole("models_at_once", models_at_once, 1)
  return mesh.size * models_at_once


def check_examples(
  name: str, examples: Mapping[str, Images], num_classes: int | None = None
) -> dict[str, Images]:
  """A group of examples as training takes them.

  Args:
    name: of the group, for errors.
    examples: "images" u8[n,H,W,C] and "labels" i[n], n at least 1.
    num_classes: labels are below it; None where it is not known.

  Returns:
    The group.

  Raises:
    TypeError: it is no mapping.
    ValueError: something is missing, or of another type, shape or range.
  """
  check_instance(name, examples, Mapping)
  for part in ("images", "labels"):
    if part not in examples:
      raise ValueError(f"{name} have no {part!r}; expected images u8[n,H,W,C] and labels i[n].")
  check_image_array(f"{name}' images", examples["images"])
  labels = check_numbers(f"{name}' labels", examples["labels"])
  num = len(examples["images"])
  if labels.shape != (num,) or labels.dtype.kind not in "iu":
    what = f"{labels.dtype}{list(labels.shape)}"
    raise ValueError(f"{name}' labels are {what}; expected integers, [{num}].")
  check_labels(f"{name}' labels", labels, num_classes)
  # JAX takes the machine's own byte order only.
  return {**examples, "labels": labels.astype(labels.dtype.newbyteorder("="), copy=False)}


def check_image_array(name: str, images: Images) -> None:
  """Raises ValueError unless images are u8[n,H,W,C], in memory or on disk, n at least 1."""
  if not isinstance(images, StreamedImages):
    images = check_numbers(name, images)
  if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
    raise ValueError(
      f"{name} are {images.dtype}{list(images.shape)}; expected uint8[n,H,W,C], n at least 1."
    )


def check_ensemble(
  members: Mapping[str, Images],
  num_classes: int | None,
  membership: np.ndarray,
  num_models: int,
  seed: int,
  mesh: Mesh,
) -> dict[str, Images]:
  """The members that S models are trained on; TypeError or ValueError where all is not right.

  Args:
    members: as in `check_examples`.
    num_classes: as above.
    membership: bool[S,N], with a member of every model.
    num_models: S.
    seed: as in `check_run`.
    mesh: as above.
  """
  check_run(seed=seed, mesh=mesh)
  members = check_examples("members", members, num_classes)
  expected = [num_models, len(members["images"])]
  membership = check_numbers("membership", membership)
  if list(membership.shape) != expected or membership.dtype != bool:
    raise ValueError(
      f"membership is {membership.dtype}{list(membership.shape)}; expected bool{expected}, a "
      "row a name and a column an image."
    )
  if not membership.any(axis=1).all():
    empty = np.flatnonzero(~membership.any(axis=1))
    raise ValueError(f"Row {empty[0]} of membership has no member; expected one at least.")
  return members


def check_reference(
  reference: Mapping[str, Images] | None, members: Mapping[str, Images], num_classes: int | None
) -> dict[str, Images]:
  """Returns the reference set, {} for none; raises as `check_examples`, or unlike the members.

  Args:
    reference: as in `check_examples`, perhaps with no images; None for none.
    members: as above.
    num_classes: as above.
  """
  check_instance("reference", reference, Mapping, type(None))
  if not reference or not len(reference.get("images", ())):
    return {}
  reference = check_examples("reference", reference, num_classes)
  shapes = [list(side["images"].shape[1:]) for side in (members, reference)]
  if shapes[0] != shapes[1]:
    raise ValueError(f"reference's images are {shapes[1]}; expected {shapes[0]}, as members'.")
  return reference


def check_names(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the names of models; TypeError or ValueError unless they are text and differ."""
  names = check_type("names", names, tuple[str, ...])
  if repeated := [name for name in names if names.count(name) > 1]:
    raise ValueError(
      f"names has {repeated[0]!r} {names.count(repeated[0])} times; expected names that "
      "differ, as they are of streams of randomness."
    )
  return names


def check_run(
  *, seed: int, mesh: Mesh, checkpoint_every: int = 1, directory: Path | None = None
) -> None:
  """Raises TypeError or ValueError where what all training takes is not right."""
  check_whole("seed", seed, 0, MAX_ID)
  check_instance("mesh", mesh, Mesh)
  check_whole("checkpoint_every", checkpoint_every, 1)
  check_instance("directory", directory, Path, type(None))


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
  *,
  shard_parameters: bool = False,
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
    shard_parameters: whether the state is divided over the mesh, as `parallel.spread` does it,
      for models that do not fit one device; else it is whole on each.

  Returns:
    What `loop.fit` takes: steps, batches, and how many steps a call has.

  Raises:
    ValueError: `steps_per_call` is less than 1.
  """
  steps_per_call = check_steps_per_call(steps_per_call, mesh)
  if any(isinstance(values, StreamedImages) for values in jax.tree.leaves(examples)):
    steps_per_call = 1
  if shard_parameters:
    steps = {kind: _spread(step, mesh) for kind, step in steps.items()}

  def shares(first):
    for kind, rows in batches(first):
      yield kind, {group: parallel.part(mesh, of_group) for group, of_group in rows.items()}

  if steps_per_call > 1:
    held = parallel.replicate(mesh, examples)
    compiled = {
      kind: functools.partial(_compile_on_rows(step), held) for kind, step in steps.items()
    }
    return compiled, shares, steps_per_call

  def taken(first):
    for kind, rows in shares(first):
      yield kind, {group: take(examples[group], of_group) for group, of_group in rows.items()}

  return {kind: compile_step(step) for kind, step in steps.items()}, taken, 1


@shared(16)
def _compile_on_rows(step):
  return jax.jit(on_rows(step), donate_argnums=1)


def _spread(step: Step, mesh: Mesh) -> Step:
  """A step that leaves its state divided over the mesh."""

  def spread(state, batch, key):
    state, metrics = step(state, batch, key)
    return parallel.keep_spread(mesh, state), metrics

  return spread
