"""Checkpoint files of PyTorch to state dicts; nothing that a file holds is ever run."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401, makes bfloat16 known to NumPy, and so to safetensors
import numpy as np

from diffence_jax.interop.pickles import INSTALL, damaged, read_pickle
from diffence_jax.interop.weights import find_weights

_PICKLES = (".pt", ".pth", ".pth.tar", ".bin", ".ckpt")
_SAFETENSORS = ".safetensors"
# Names the files that a large state dict is spread over.
INDEX = ".index.json"
_MOST_JSON_BYTES = 100_000_000
_LFS_POINTER = b"version https://git-lfs"


class StoredArray:
  """An array in a file, read anew by each `numpy()`.

  Attributes:
    shape: its shape.
  """

  def __init__(self, shape: tuple[int, ...], read: Callable[[], np.ndarray]):
    """An array of `shape` that `read()` reads."""
    self.shape = tuple(shape)
    self._read = read

  def numpy(self) -> np.ndarray:
    """The array, in the file's dtype."""
    return self._read().reshape(self.shape)

  def reshape(self, *shape: int) -> "StoredArray":
    """The same array in another shape of the same size."""
    return StoredArray(shape, self._read)


def read_state_dict(path: str | os.PathLike) -> Mapping[str, Any]:
  """Opens a checkpoint file, and finds the weights in it; see `read_checkpoint`."""
  return find_weights(read_checkpoint(path)).state_dict


def read_checkpoint(path: str | os.PathLike) -> Any:
  """Opens a checkpoint file.

  Args:
    path: a file of `torch.save` (.pt, .pth, .pth.tar, .bin, .ckpt), read with
      `weights_only=True`, a .safetensors file, or the .index.json of several files.
      `weights.find_weights` says where in it the weights may be.

  Returns:
    What the file holds: PyTorch's names to tensors that are mapped from the file where its
    format allows, or to `StoredArray`s; so it takes (almost) no memory, and the file has to
    stay as it is while the state dict is in use.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: the file needs a package that is not installed, or one that is too old.
    ValueError: the file is damaged, has another ending, or holds what only running its code
      could load; none of it has been run.
  """
  path = Path(path)
  if not path.exists():
    raise FileNotFoundError(f"There is no file {path}; expected a checkpoint.")
  name = path.name.lower()
  if not path.is_file() or not name.endswith((*_PICKLES, _SAFETENSORS, INDEX)):
    raise ValueError(
      f"{path} is a {_kind(path)}; expected a checkpoint: {', '.join(_PICKLES)}, "
      f"{_SAFETENSORS} or {_SAFETENSORS}{INDEX}."
    )
  _check_head(path)
  if name.endswith(INDEX):
    return _read_shards(path)
  return _read_safetensors(path) if name.endswith(_SAFETENSORS) else read_pickle(path)


def files_of(path: str | os.PathLike) -> tuple[Path, ...]:
  """The files that a checkpoint is: itself, and what it names where it is an .index.json."""
  path = Path(path)
  if not path.name.lower().endswith(INDEX):
    return (path,)
  return (path, *(path.parent / name for name in sorted(set(_weight_map(path).values()))))


def _kind(path: Path) -> str:
  """What a path is that is no checkpoint."""
  if path.is_file():
    return "file with another ending"
  return "folder" if path.is_dir() else "device, pipe or socket"


def _check_head(path: Path) -> None:
  """Raises ValueError where a file begins as none with weights does."""
  with open(path, "rb") as handle:
    head = handle.read(512)
  if head.startswith(_LFS_POINTER):
    raise ValueError(
      f"{path} is not the checkpoint but Git LFS's pointer to it. Fetch it with: git lfs pull"
    )
  text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
  if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
    raise ValueError(
      f"{path} is a web page and not the checkpoint: the address was that of a page about it, "
      "or the server asked for a login. Look at it in a browser, and fetch the file itself."
    )


def read_json(path: Path) -> dict[str, Any]:
  """A mapping from a JSON file beside weights; ValueError where it is none, or very large."""
  if path.stat().st_size > _MOST_JSON_BYTES:
    raise ValueError(f"{path} has more than {_MOST_JSON_BYTES:,} bytes; expected options.")
  try:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is damaged, it is not JSON: {error}.") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path} holds a {type(content).__name__}; expected options.")
  return content


def _weight_map(path: Path) -> dict[str, str]:
  """Parameter to file, of an index."""
  try:
    names = read_json(path)["weight_map"]
    are_plain = all(
      isinstance(file, str) and file == os.path.basename(file) and file not in ("", ".", "..")
      for file in names.values()
    )
  except (LookupError, AttributeError) as error:
    raise damaged(path, error) from error
  if not (names and are_plain):
    raise ValueError(
      f"{path} names no files, or files outside of its folder; expected a weight_map from "
      "parameters to the names of files beside it."
    )
  return names


def _read_shards(path: Path) -> dict[str, Any]:
  """The parameters of all files that an index names."""
  weight_map, files = _weight_map(path), {}
  for name in dict.fromkeys(weight_map.values()):
    if name.lower().endswith(INDEX):
      raise ValueError(f"{path} names {name}, an index as well; expected files of weights.")
    if not (path.parent / name).exists():
      raise FileNotFoundError(f"{path} names {name}, which is not beside it; fetch it as well.")
    files[name] = read_state_dict(path.parent / name)
  missing = [weight for weight, name in weight_map.items() if weight not in files[name]]
  if missing:
    raise ValueError(
      f"{path} says that {missing[0]!r} is in {weight_map[missing[0]]}, and it is not, nor are "
      f"{len(missing) - 1} others. Fetch the index and its files from one place."
    )
  return {weight: files[name][weight] for weight, name in weight_map.items()}


def _read_safetensors(path: Path) -> dict[str, StoredArray]:
  """The arrays of a safetensors file, none of them read yet."""
  try:
    import safetensors
  except ImportError as error:
    raise ImportError(f"Reading {path} needs the package safetensors: {INSTALL}") from error
  try:
    file = safetensors.safe_open(path, framework="numpy")
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
  except safetensors.SafetensorError as error:
    raise damaged(path, error) from error

  def reader(name):
    def read():
      try:
        return file.get_tensor(name)
      except (TypeError, AttributeError) as error:
        dtype = file.get_slice(name).get_dtype()
        raise ValueError(
          f"{name!r} in {path} is of the type {dtype}, which NumPy does not have; save the "
          "weights as float32, float16 or bfloat16."
        ) from error

    return read

  return {name: StoredArray(shape, reader(name)) for name, shape in shapes.items()}
