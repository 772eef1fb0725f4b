"""Checkpoints on disk; the one module that imports orbax."""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp

from diffence_jax import disk

_MANIFEST = "manifest.json"
# Bytes that a checkpoint has beside its arrays, at most.
_OVERHEAD = 2**20


class Checkpoints:
  """The latest state of a training run, committed whole or not at all, and verified."""

  def __init__(self, directory: str | os.PathLike, *, writes: bool = True):
    """Opens, or makes, the folder that holds the checkpoints of one run.

    What lies there and is not whole is left out, with a warning: the run goes on without.

    Args:
      directory: the folder.
      writes: False in a process that only reads what another one keeps there.
    """
    self._directory, self._writes = Path(directory).absolute(), writes
    self._directory.mkdir(parents=True, exist_ok=True)
    self._step = self._newest()

  def save(self, step: int, state: Any) -> None:
    """Commits `state`, a pytree of arrays, as that of `step`, in place of the one before.

    What is divided over processes all of them save together, each its part; of anything else
    who only reads writes nothing.

    Raises:
      RuntimeError: a checkpoint of this or a later step is already there.
    """
    if step <= self._step:
      raise RuntimeError(
        f"The checkpoint of step {step} was not saved: step {self._step} is already in "
        f"{self._directory}."
      )
    path = self._directory / str(step)
    partial = path.with_name(f"{step}.partial")
    if _is_divided(state):
      _write(partial / "state", state, ocp.options.MultiprocessingOptions())
    elif self._writes:
      save_tree(partial / "state", state)
    if self._writes:
      disk.commit(partial, path, _MANIFEST, {"step": step})
    self._step = step
    self._keep_only(path)

  def latest_step(self) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    return self._step

  def restore(self, template: Any) -> Any:
    """The newest state, with the structure, dtypes and shardings of `template`."""
    return restore_tree(self._directory / str(self._step) / "state", template)

  def _newest(self) -> int:
    """The newest step that is whole; whatever else is there is removed."""
    steps = [p for p in self._directory.iterdir() if p.name.isdecimal() and int(p.name)]
    for path in sorted(steps, key=lambda path: int(path.name), reverse=True):
      try:
        content = disk.read_manifest(path, _MANIFEST, "Training goes on without it.")
        if content.get("step") != int(path.name):
          raise disk.damaged(path, "is of another step", "Training goes on without it.")
        disk.verify(path, content, "Training goes on without it.")
      except disk.ArtifactError as error:
        warnings.warn(str(error), stacklevel=4)
      else:
        self._keep_only(path)
        return int(path.name)
    self._keep_only(None)
    return 0

  def _keep_only(self, kept: Path | None) -> None:
    if not self._writes:
      return
    for path in self._directory.iterdir():
      if path != kept:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def save_tree(path: str | os.PathLike, tree: Any) -> None:
  """Writes a pytree of arrays to the folder `path`, replacing what was there.

  Raises:
    OSError: the disk has no room for it.
  """
  _write(path, jax.device_get(tree), _alone())


def _write(path, tree, processes):
  path = Path(path).absolute()
  is_first = processes.primary_host == jax.process_index()
  size = sum(np.dtype(leaf.dtype).itemsize * leaf.size for leaf in jax.tree.leaves(tree))
  if is_first:
    _remove_leftovers(path)  # of a killed run
    disk.check_room(path.parent, size + _OVERHEAD)
  try:
    with ocp.StandardCheckpointer(multiprocessing_options=processes) as checkpointer:
      checkpointer.save(path, tree, force=True)
  except Exception as error:
    if not disk.is_full(error):
      raise
    _remove_leftovers(path)
    raise disk.full(path.parent, f"{size / 2**20:.1f} MiB were to be written") from error


def restore_tree(path: str | os.PathLike, template: Any) -> Any:
  """Reads a pytree of arrays.

  Args:
    path: the folder that `save_tree` wrote.
    template: arrays or `jax.ShapeDtypeStruct`s of the tree's structure.

  Returns:
    The tree, with the template's dtypes and shardings; NumPy arrays where the template is not
    on a device.
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


def _remove_leftovers(path):
  for leftover in path.parent.glob(f"{path.name}.orbax-checkpoint-tmp*"):
    shutil.rmtree(leftover)


def _alone():
  """Each process writes what is its own, and waits for no other."""
  this = jax.process_index()
  return ocp.options.MultiprocessingOptions(primary_host=this, active_processes={this})


def _is_divided(tree):
  """Whether this process has a part only of some array."""
  arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
  return any(not (a.is_fully_addressable or a.is_fully_replicated) for a in arrays)


def _on_host(tree):
  """NumPy arrays of the tree's shapes: of several processes each reads and writes alone."""
  return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)


def _placed_like(value, leaf):
  if not isinstance(leaf, jax.Array):
    return value
  if leaf.is_fully_addressable:
    return jax.device_put(value, leaf.sharding)
  # Over several processes, each of which has read all of it.
  return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: value[index])
