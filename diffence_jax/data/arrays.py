"""NumPy's files, `.npy` and `.npz`: looked at before they are read, and never unpickled."""

import contextlib
import math
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

_SUFFIX = ".npy"
# How NumPy writes archives: bytes as they are, or deflated.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def archive_headers(path: str | Path) -> dict[str, np.ndarray]:
  """What arrays an `.npz` file says that it has.

  Args:
    path: a regular file.

  Returns:
    Name to an array of its shape and dtype that takes no memory; its values mean nothing.

  Raises:
    ValueError: the file is damaged, holds pickled objects, or is not an `.npz`.
  """
  with _opened(path) as archive:
    return {name: _header_of(archive, entry)[0] for name, entry in _entries(archive).items()}


def read_arrays(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Some arrays of an `.npz` file.

  Args:
    path: a regular file, whose `archive_headers` have been looked at.
    names: of arrays that it has.

  Returns:
    Name to array.

  Raises:
    ValueError: the file is damaged.
  """
  with _opened(path) as archive:
    entries, arrays = _entries(archive), {}
    for name in names:
      header, size = _header_of(archive, entries[name])
      if header.nbytes + size != entries[name].file_size:
        raise ValueError(f"{name} has {entries[name].file_size - size} bytes for its shape")
      with archive.open(entries[name]) as file:
        arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # the end, where the checksum is compared
    return arrays


def map_array(path: str | Path) -> np.ndarray:
  """The array of an `.npy` file, read when it is used.

  Raises:
    ValueError: the file is damaged, holds pickled objects, or is not an `.npy`.
  """
  try:
    if not Path(path).is_file():
      raise ValueError("it is no regular file")
    with open(path, "rb") as file:
      _header(file)
    return np.load(path, mmap_mode="r", allow_pickle=False)
  except (ValueError, TypeError, OSError, EOFError) as error:
    raise ValueError(f"{path} cannot be read as an .npy of one array: {error}.") from error


@contextlib.contextmanager
def _opened(path) -> Iterator[zipfile.ZipFile]:
  try:
    if _is_single(path):
      raise ValueError("it is a single array")
    with zipfile.ZipFile(path) as archive:
      yield archive
  # RuntimeError: an encrypted file, or one of a later zip version.
  except (
    ValueError, TypeError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
  ) as error:  # fmt: skip
    raise ValueError(f"{path} cannot be read as an .npz of plain arrays: {error}.") from error


def _is_single(path):
  with open(path, "rb") as file:
    return file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX


def _entries(archive):
  """Name to the entry of an array."""
  entries = [entry for entry in archive.infolist() if entry.filename.endswith(_SUFFIX)]
  return {entry.filename.removesuffix(_SUFFIX): entry for entry in entries}


def _header_of(archive, entry):
  if entry.compress_type not in _METHODS:
    raise ValueError(f"{entry.filename} is compressed in a way that NumPy does not use")
  with archive.open(entry) as file:
    return _header(file)


def _header(file: IO[bytes]) -> tuple[np.ndarray, int]:
  """An array's shape and dtype, as an array that takes no memory; and the header's bytes."""
  version = np.lib.format.read_magic(file)
  readers: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  if version not in readers:
    raise ValueError(f"its format has the version {version}")
  try:
    shape, _, dtype = readers[version](file)
  # NumPy reads headers as Python's literals.
  except (SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
    raise ValueError(f"a header is damaged ({type(error).__name__})") from error
  if not all(0 <= size <= sys.maxsize for size in shape) or math.prod(shape) > sys.maxsize:
    raise ValueError(f"a header says that the shape is {list(shape)}")
  if dtype.hasobject:
    raise ValueError("it holds pickled Python objects, which can run programs when read")
  return np.broadcast_to(np.empty((), dtype), shape), file.tell()
