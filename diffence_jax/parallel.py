"""Work over all devices: one mesh, batches split over it, everything else copied.

Several processes, on one host or many, each have a mesh of their own devices, take their share
of what is independent, and meet the others in the workdir. Processes that JAX has started
together, a pod, train the target and the diffusion model in step, over one mesh of all devices.
"""

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffence_jax.stopping import UnfinishedError

BATCH = "batch"
_Made = TypeVar("_Made")

# Seconds without a sign of life after which the other processes give up too.
_HEARTBEAT = 60
# What errors of collectives begin with, and of them those that are this process's own.
_STATUS = re.compile("(UNKNOWN|UNAVAILABLE|ABORTED|CANCELLED|INTERNAL|DEADLINE_EXCEEDED): ")
_OWN_FAULTS = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")


def connect(description: str) -> None:
  """Joins this process with the others that run the same command; before any device is used.

  Args:
    description: "auto" under SLURM, Open MPI, Kubernetes and on TPU pods, where JAX finds the
      others itself; else "HOST:PORT,NUMBER,COUNT": the address of process 0, the number of
      this process, from 0, and how many there are.

  Raises:
    ValueError: the description is neither, or JAX finds no others.
    OSError: the others cannot be reached.
  """
  # Else SIGTERM would be taken for a notice and not end the process; see `training.save_step`.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    if description == "auto":
      jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT)
      return
    address, number, count = description.split(",")
    number, count, port = int(number), int(count), int(address.rpartition(":")[2])
    if not 0 <= number < count or not 0 < port < 2**16:
      raise ValueError
  except ValueError as error:
    raise ValueError(
      f"--distributed is {description!r}; expected 'auto' where JAX finds the other processes "
      "itself, or HOST:PORT,NUMBER,COUNT such as '10.0.0.1:9999,0,2'."
    ) from error
  try:
    jax.distributed.initialize(
      address, num_processes=count, process_id=number, heartbeat_timeout_seconds=_HEARTBEAT
    )
  except RuntimeError as error:
    raise OSError(f"The other processes cannot be reached at {address}: {error}") from error


def is_first() -> bool:
  """Whether this process is the one that computes and writes what is not shared out."""
  return jax.process_index() == 0


def batch_mesh(devices: list[jax.Device] | None = None) -> Mesh:
  """A one-dimensional mesh over `devices`, its axis named `batch`.

  Args:
    devices: None for all devices of this process.

  Returns:
    The mesh.
  """
  devices = jax.local_devices() if devices is None else devices
  # Explicit axes, the default of jax.make_mesh, refuse plain reshapes of sharded arrays.
  return Mesh(np.array(devices), (BATCH,), axis_types=(AxisType.Auto,))


def pod_mesh() -> Mesh:
  """The mesh of all devices of all processes of the pod, those of a process side by side."""
  return batch_mesh(sorted(jax.devices(), key=lambda device: (device.process_index, device.id)))


def is_pod() -> bool:
  """Whether there are several processes that JAX has started together."""
  return jax.process_count() > 1


def writes(mesh: Mesh) -> bool:
  """Whether this is the process that writes what the devices of a mesh compute together."""
  return is_first() or not mesh.is_multi_process


def meet(mesh: Mesh, name: str) -> None:
  """Waits until all processes of a mesh are at this place, which has a name."""
  if mesh.is_multi_process:
    multihost_utils.sync_global_devices(name)


def from_first(value: int) -> int:
  """What the first process of the pod gives, for all of them.

  Raises:
    UnfinishedError: another process is gone.
  """
  with naming_lost("What the processes tell each other"):
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


@contextlib.contextmanager
def naming_lost(what: str, kind: type[OSError] = UnfinishedError) -> Iterator[None]:
  """Says what it means where something that all processes do together does not come back.

  Args:
    what: that is.
    kind: of the error.

  Raises:
    OSError: another process is gone; of that kind.
  """
  try:
    yield
  # A call of what is compiled raises either, where a collective fails.
  except (jax.errors.JaxRuntimeError, ValueError) as error:
    is_of_others = isinstance(error, jax.errors.JaxRuntimeError) or _STATUS.match(str(error))
    if not is_of_others or any(fault in str(error) for fault in _OWN_FAULTS):
      raise
    reason = str(error).splitlines()[0]
    raise kind(
      f"{what} has ended, as another process of the pod is gone or cannot be reached "
      f"({reason}). Start all of them again, as many as there are: the same command goes on "
      "from the last checkpoint."
    ) from error


def together(make: Callable[[], _Made]) -> _Made:
  """What `make` gives in this process, unless it raises in any process of the pod.

  Raises:
    OSError: it has raised in another one, or that is gone.
    Exception: what it raises in this one.
  """
  made = error = None
  try:
    made = make()
  except Exception as raised:
    error = raised
  if jax.distributed.is_initialized() and is_pod():
    with naming_lost("The start of the processes", OSError):
      has_failed = multihost_utils.process_allgather(np.int32(error is not None))
    if error is None and has_failed.any():
      raise OSError(
        f"Process {int(np.argmax(has_failed))} of {len(has_failed)} was given something that "
        "is not right, which it tells."
      )
  if error is not None:
    raise error
  return made


def check_alike(facts: Mapping[str, str]) -> None:
  """Raises ValueError, in every process of the pod, unless all have the same facts.

  Args:
    facts: name to what this process has.

  Raises:
    ValueError: as above.
    OSError: another process is gone, which was given something that is not right.
  """
  text = json.dumps(facts).encode()
  with naming_lost("The comparison of the processes", OSError):
    sizes = multihost_utils.process_allgather(np.int32(len(text)))
    padded = np.frombuffer(text.ljust(sizes.max()), np.uint8)
    gathered = multihost_utils.process_allgather(padded)
  all_facts = [json.loads(bytes(of_one)) for of_one in gathered]
  for number, of_one in enumerate(all_facts):
    for name, first in all_facts[0].items():
      if of_one[name] != first:
        here, there = _where_apart(of_one[name], first)
        raise ValueError(
          f"Process {number} of {len(all_facts)} has another {name} than process 0; expected "
          f"the same command and version in all of them. It has {here} where that has {there}"
        )


def _where_apart(*texts: str) -> list[str]:
  """Of each of some texts that differ, a little around the place from which on they do."""
  differs = (len(set(letters)) > 1 for letters in zip(*texts, strict=False))
  place = next(itertools.compress(itertools.count(), differs), min(map(len, texts)))
  start = max(place - 50, 0)
  return [f"{'...' if start else ''}{text[start : place + 30]}..." for text in texts]


def part(mesh: Mesh, rows: np.ndarray) -> np.ndarray:
  """The rows of a batch i[B] that the devices of this process take.

  Raises:
    ValueError: B is not a multiple of the number of devices.
  """
  _check_size(len(rows), mesh.size)
  if not mesh.is_multi_process:
    return rows
  return np.split(rows, jax.process_count())[jax.process_index()]


def shard_batch(mesh: Mesh, tree: Any, axis: int = 0) -> Any:
  """Splits every array of `tree` along one axis, the first by default, over the mesh.

  Args:
    mesh: as `batch_mesh` or `pod_mesh` makes it.
    tree: arrays; in a pod `part` of a batch.
    axis: the batch's.

  Raises:
    ValueError: an axis is not a multiple of the number of devices.
  """
  for leaf in jax.tree.leaves(tree):
    _check_size(leaf.shape[axis], mesh.local_mesh.size)
  sharding = NamedSharding(mesh, P(*[None] * axis, BATCH))
  if sharding.is_fully_addressable:
    return jax.device_put(tree, sharding)
  put = lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf))
  return jax.tree.map(put, tree)


def replicate(mesh: Mesh, tree: Any) -> Any:
  """Copies every array of `tree` to all devices of the mesh."""
  return _put(tree, lambda leaf: NamedSharding(mesh, P()))


def spread(mesh: Mesh, tree: Any) -> Any:
  """Divides every array of `tree` over the mesh, along its largest axis that divides evenly.

  Arrays without such an axis are copied.
  """
  return _put(tree, lambda leaf: _spread_sharding(mesh, leaf.shape))


def keep_spread(mesh: Mesh, tree: Any) -> Any:
  """In a compiled program: leaves the arrays of `tree` divided as `spread` divides them."""
  keep = lambda leaf: jax.lax.with_sharding_constraint(leaf, _spread_sharding(mesh, leaf.shape))
  return jax.tree.map(keep, tree)


def whole(mesh: Mesh, tree: Any) -> Any:
  """What `spread` has divided, as NumPy arrays; called by all processes of the mesh.

  One array after another, as the devices may not have room for all of them.
  """
  if not mesh.is_multi_process:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


def _spread_sharding(mesh, shape):
  even = [axis for axis, size in enumerate(shape) if size % mesh.size == 0 and size]
  axis = max(even, key=lambda axis: shape[axis], default=None)
  return NamedSharding(mesh, P() if axis is None else P(*[None] * axis, BATCH))


def _put(tree, sharding_of):
  """Puts what every process has whole."""
  shardings = jax.tree.map(sharding_of, tree)
  if all(sharding.is_fully_addressable for sharding in jax.tree.leaves(shardings)):
    return jax.device_put(tree, shardings)

  def put(leaf, sharding):
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

  return jax.tree.map(put, tree, shardings)


def _check_size(size, num_devices):
  if size % num_devices:
    raise ValueError(
      f"A batch of {size} cannot be split over {num_devices} devices; choose a batch size that "
      "is a multiple of their number."
    )


def map_over_batch(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
  """Runs `function(shared, *batches)` on every device's part, without collectives.

  Args:
    function: `(shared, *batches) -> results`; `shared` is whole on every device, the leaves of
      `batches` and of the results have what is divided (samples, or models) as first axis.
    mesh: as `batch_mesh` makes it.

  Returns:
    A function of the same arguments, to be jitted, for batches that are multiples of the
    mesh's size.
  """

  def mapped(shared, *batches):
    specs = (P(), *(P(BATCH) for _ in batches))
    return jax.shard_map(
      function, mesh=mesh, in_specs=specs, out_specs=P(BATCH), check_vma=False
    )(shared, *batches)

  return mapped
