"""Checkpoints on disk; the one module that imports orbax."""

import os
import shutil
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoints:
  """The latest states of a training run, each committed whole or not at all."""

  def __init__(self, directory: str | os.PathLike):
    """Opens, or makes, the folder that holds the checkpoints of one run."""
    directory = Path(directory).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=1,
      create=False,
      enable_async_checkpointing=False,
      multiprocessing_options=_alone(),
    )
    self._manager = ocp.CheckpointManager(directory, options=options)

  def save(self, step: int, state: Any) -> None:
    """Commits `state`, a pytree of arrays, as that of `step`.

    Raises:
      RuntimeError: a checkpoint of this or a later step is already there.
    """
    if not self._manager.save(step, args=ocp.args.StandardSave(jax.device_get(state))):
      raise RuntimeError(
        f"The checkpoint of step {step} was not saved: step "
        f"{self._manager.latest_step()} is already in {self._manager.directory}."
      )
    self._manager.wait_until_finished()

  def latest_step(self) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    return self._manager.latest_step() or 0

  def restore(self, template: Any) -> Any:
    """The newest state, with the structure, dtypes and shardings of `template`."""
    step = self._manager.latest_step()
    values = self._manager.restore(step, args=ocp.args.StandardRestore(_on_host(template)))
    return jax.tree.map(_placed_like, values, template)

  def close(self) -> None:
    """Waits for what is being written and lets go of the folder."""
    self._manager.close()


def save_tree(path: str | os.PathLike, tree: Any) -> None:
  """Writes a pytree of arrays to the folder `path`, replacing what was there."""
  path = Path(path).absolute()
  for leftover in path.parent.glob(f"{path.name}.orbax-checkpoint-tmp*"):
    shutil.rmtree(leftover)  # of a killed run
  with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
    checkpointer.save(path, jax.device_get(tree), force=True)


def restore_tree(path: str | os.PathLike, template: Any) -> Any:
  """Reads a pytree of arrays.

  Args:
    path: the folder that `save_tree` wrote.
    template: arrays or `jax.ShapeDtypeStruct`s of the tree's structure.

  Returns:
    The tree, with the template's dtypes; NumPy arrays where the template is not on a device.
  """
  with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
    values = checkpointer.restore(Path(path).absolute(), _on_host(template))
  return jax.tree.map(_placed_like, values, template)


def save_arrays(path: str | os.PathLike, tree: Any) -> None:
  """Writes nested dicts of arrays to one `.npz` file, in any of several processes.

  Orbax has only process 0 write arrays that are not spread over all processes.
  """
  flat = flax.traverse_util.flatten_dict(jax.device_get(tree), sep="/")
  np.savez(path, **flat)


def restore_arrays(path: str | os.PathLike) -> Any:
  """Reads what `save_arrays` wrote: nested dicts of NumPy arrays."""
  with np.load(path, allow_pickle=False) as flat:
    return flax.traverse_util.unflatten_dict(dict(flat), sep="/")


def _alone():
  """Each process writes what is its own, and waits for no other."""
  own = jax.process_index()
  return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})


def _on_host(tree):
  """NumPy arrays of the tree's shapes: of several processes each reads and writes alone."""
  return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)


def _placed_like(value, leaf):
  return jax.device_put(value, leaf.sharding) if isinstance(leaf, jax.Array) else value
