"""Work over all devices: one mesh, batches split over it, everything else copied.

Several processes, on one host or many, do not compute together: each has a mesh of its own
devices, takes its share of the models, and meets the others in the workdir.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

BATCH = "batch"

# Seconds without a sign of life after which the other processes give up too.
_HEARTBEAT = 60


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
  # Else SIGTERM would be taken for a notice and not end the process.
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
    devices: None for all devices of this process. Several hosts each have a mesh of their own:
      they share work by dividing models among them, and meet in the workdir only.

  Returns:
    The mesh.
  """
  devices = jax.local_devices() if devices is None else devices
  # Explicit axes, the default of jax.make_mesh, refuse plain reshapes of sharded arrays.
  return Mesh(np.array(devices), (BATCH,), axis_types=(AxisType.Auto,))


def shard_batch(mesh: Mesh, tree: Any, axis: int = 0) -> Any:
  """Splits every array of `tree` along one axis, the first by default, over the mesh.

  Raises:
    ValueError: an axis is not a multiple of the number of devices.
  """
  for leaf in jax.tree.leaves(tree):
    if leaf.shape[axis] % mesh.size:
      raise ValueError(
        f"A batch of {leaf.shape[axis]} cannot be split over {mesh.size} devices; "
        "choose a batch size that is a multiple of their number."
      )
  return jax.device_put(tree, NamedSharding(mesh, P(*[None] * axis, BATCH)))


def replicate(mesh: Mesh, tree: Any) -> Any:
  """Copies every array of `tree` to all devices of the mesh."""
  return jax.device_put(tree, NamedSharding(mesh, P()))


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
