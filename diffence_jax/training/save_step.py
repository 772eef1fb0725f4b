"""On which step processes that train in step save, where one of them is asked to stop."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from diffence_jax import parallel


class Agreement:
  """All processes of a mesh come to know, after the same of their steps, that one asks.

  What each says goes along with the steps, as a computation of its own. It is looked at a step
  later, so that the devices have the next one to do meanwhile.

  JAX's `reached_preemption_sync_point` agrees on a step too, but takes SIGTERM for itself, in
  C++, and says nothing to those who are not training.
  """

  def __init__(self, mesh: Mesh):
    """Nobody has asked.

    Args:
      mesh: of this process alone, or of all.
    """
    self._mesh, self._before, self._is_reached = mesh, None, False
    self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, P()))

  def reached(self, asks: bool) -> bool:
    """Whether it is now that all do what one has asked for: once.

    Args:
      asks: whether this process does; all of the mesh call this after the same steps.
    """
    if self._is_reached:
      return False
    if not self._mesh.is_multi_process:
      self._is_reached = asks
      return asks
    flags = parallel.shard_batch(self._mesh, np.full(self._mesh.local_mesh.size, asks))
    before, self._before = self._before, self._any(flags)
    self._is_reached = before is not None and bool(before)
    return self._is_reached
