"""Records on disk: written rows by rows, gone on from where they are whole, read by model."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from diffence_jax.disk import RESUME, write_atomically


class RecordWriter:
  """Writes arrays f32 as `.npy` files, some rows at a time.

  Of all rows that are written there is a digest, so that a run that goes on from what a killed
  one left trusts none that are not whole.

  Attributes:
    done: rows that are there.
  """

  def __init__(self, directory: Path, num_rows: int, *, axis: int = 0):
    """Opens a record, and verifies what is there of it.

    Args:
      directory: for the files.
      num_rows: of the record.
      axis: of the rows in every array.
    """
    self._directory, self._num, self._axis = directory, num_rows, axis
    self._log = directory / RESUME / "rows.jsonl"
    self._log.parent.mkdir(exist_ok=True)
    whole = self._whole_parts()
    self.done = whole[-1]["stop"] if whole else 0
    write_atomically(self._log, "".join(map(_line, whole)))

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the next rows.

    Args:
      arrays: file name without its ending to f32, all of the array but for some rows; equally
        many in all of them.

    Raises:
      OSError: the disk is full.
    """
    num = next(iter(arrays.values())).shape[self._axis]
    for name, part in arrays.items():
      # The file is mapped only meanwhile, so it takes no memory.
      record = self._open(name, part)
      record[self._rows(self.done, self.done + num)] = part
      record.flush()
    part = {"start": self.done, "stop": self.done + num, "arrays": sorted(arrays)}
    with open(self._log, "a", encoding="utf-8") as log:
      log.write(_line({**part, "digest": self._digest(part)}))
      log.flush()
      os.fsync(log.fileno())
    self.done += num

  def _open(self, name, part):
    path = self._directory / f"{name}.npy"
    if self.done:
      return np.lib.format.open_memmap(path, "r+")
    shape = (*part.shape[: self._axis], self._num, *part.shape[self._axis + 1 :])
    record = np.lib.format.open_memmap(path, "w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
      # To write to a mapped file that the disk has no room for ends the process.
      with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return record

  def _rows(self, start, stop):
    return (slice(None),) * self._axis + (slice(start, stop),)

  def _whole_parts(self):
    """The log's lines, up to the first of rows that are not what was written."""
    lines = self._log.read_text(errors="replace").splitlines() if self._log.is_file() else []
    parts, done = [], 0
    for line in lines:
      try:
        part = json.loads(line)
        is_next = part["start"] == done < part["stop"] <= self._num
        is_whole = is_next and part["digest"] == self._digest(part)
      except (ValueError, TypeError, KeyError, OSError, EOFError):
        is_whole = False
      if not is_whole:
        warnings.warn(
          f"Of {self._directory}, the rows from {done} on are damaged; they are recorded anew.",
          stacklevel=4,
        )
        break
      parts.append(part)
      done = part["stop"]
    return parts

  def _digest(self, part):
    """Over some rows of all arrays, as they are on disk."""
    digest = hashlib.sha256()
    for name in part["arrays"]:
      record = np.load(self._directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
      if record.shape[self._axis] != self._num:
        raise ValueError(f"{name}.npy is of another length.")
      rows = np.ascontiguousarray(record[self._rows(part["start"], part["stop"])])
      digest.update(f"{name} {record.dtype} {record.shape}".encode())
      digest.update(rows)
    return digest.hexdigest()


def join_records(
  directory: Path, parts: Sequence[Path], names: Sequence[str], num_rows: int, *, axis: int = 0
) -> None:
  """Writes records that follow one another as one; no more than one is read at a time.

  Args:
    directory: for the files; a record that is half written there is written anew.
    parts: folders, each with as many rows of every array.
    names: of the files, without their ending.
    num_rows: in all.
    axis: of the rows in every array.
  """
  shutil.rmtree(directory / RESUME, ignore_errors=True)
  writer = RecordWriter(directory, num_rows, axis=axis)
  for part in parts:
    read = lambda name, part=part: np.load(
      part / f"{name}.npy", mmap_mode="r", allow_pickle=False
    )
    writer.write({name: read(name) for name in names})


def read_model(path: Path, model: int | None) -> np.ndarray:
  """Reads one model's part of an ensemble's record, or all of a classifier's (None).

  Args:
    path: a `.npy` file of an array whose first axis are the models.
    model: its number.

  Returns:
    f32[...], in memory; the file is mapped only meanwhile.
  """
  record = np.load(path, mmap_mode="r", allow_pickle=False)
  return np.array(record if model is None else record[model])


def _line(part):
  return json.dumps(part) + "\n"
