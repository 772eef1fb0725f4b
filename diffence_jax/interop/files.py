"""Checkpoint files of PyTorch to state dicts; nothing that a file holds is ever run."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401, makes bfloat16 known to NumPy, and so to safetensors
import numpy as np

# What a checkpoint may hold the weights under, the better ones first: those averaged over
# training (EMA) are the ones to sample with.
WRAPPERS = ("ema_model", "state_dict", "model_state_dict", "model", "net_model")

_PICKLES = (".pt", ".pth", ".pth.tar", ".bin")
_SAFETENSORS = ".safetensors"
# Files made for the purpose get code past `weights_only` of older versions (CVE-2025-32434,
# CVE-2026-24747).
_SAFE_TORCH = (2, 10)
_INSTALL = "pip install 'diffence_jax[torch]'"
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
  """Opens a checkpoint file.

  Args:
    path: a file of `torch.save` (.pt, .pth, .pth.tar, .bin), read with `weights_only=True`, or
      a .safetensors file. `unwrap` says where in it the weights may be.

  Returns:
    The state dict: PyTorch's names to tensors that are mapped from the file where its format
    allows, or to `StoredArray`s; so it takes (almost) no memory, and the file has to stay as it
    is while the state dict is in use.

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
  if not path.is_file() or not name.endswith((*_PICKLES, _SAFETENSORS)):
    what = "file with another ending" if path.is_file() else "folder"
    raise ValueError(
      f"{path} is a {what}; expected a checkpoint: {', '.join(_PICKLES)} or {_SAFETENSORS}."
    )
  with open(path, "rb") as handle:
    if handle.read(len(_LFS_POINTER)) == _LFS_POINTER:
      raise ValueError(
        f"{path} is not the checkpoint but Git LFS's pointer to it. Fetch it with: git lfs pull"
      )
  return unwrap(_read_safetensors(path) if name.endswith(_SAFETENSORS) else _read_pickle(path))


def unwrap(checkpoint: Any) -> Mapping[str, Any]:
  """Finds the state dict in a checkpoint.

  Args:
    checkpoint: a state dict, or a mapping that holds one under a name of `WRAPPERS`. Of several
      the first of that order is taken, the weights averaged over training (`ema_model`) before
      all others.

  Returns:
    The state dict, its names as they are.

  Raises:
    TypeError: `checkpoint` is no mapping.
  """
  if not isinstance(checkpoint, Mapping):
    raise TypeError(
      f"The checkpoint is a {type(checkpoint).__name__}; expected a mapping from parameter "
      f"names to arrays, or one that holds such a mapping as {', '.join(WRAPPERS)}."
    )
  for name in WRAPPERS:
    if isinstance(checkpoint.get(name), Mapping):
      return unwrap(checkpoint[name])
  return checkpoint


def _read_pickle(path: Path) -> Any:
  """What `torch.save` wrote, tensors and plain values only."""
  torch = _import_torch(path)
  # Only the zip format can be mapped, torch's since version 1.6.
  is_zip = zipfile.is_zipfile(path)
  if is_zip:
    _check_zip(path)
  try:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
  except pickle.UnpicklingError as error:
    # Of torch's advice, which goes on to loading it unsafely, only the reason is of use.
    patterns = (r"GLOBAL \S+", r"[Uu]nsupported [^\n.]+")
    reason = next(filter(None, (re.search(each, str(error)) for each in patterns)), None)
    reason = f" ({reason[0]})" if reason else ""
    raise ValueError(
      f"{path} holds more than tensors and plain values{reason}; loading it would run code, so "
      "it was refused and nothing was run. Where the model was made, save the weights alone: "
      "torch.save(model.state_dict(), path)."
    ) from error
  except Exception as error:  # damage shows as almost any exception
    raise _damaged(path, error) from error


def _check_zip(path: Path) -> None:
  """Raises unless the checksums are right, which torch does not look at."""
  try:
    with zipfile.ZipFile(path) as file:
      names, wrong = file.namelist(), file.testzip()
  except Exception as error:  # as above
    raise _damaged(path, error) from error
  if wrong is not None:
    raise _damaged(path, zipfile.BadZipFile(f"the checksum of {wrong} is wrong"))
  if any(name.endswith("/constants.pkl") for name in names):
    raise ValueError(
      f"{path} is a TorchScript program, which was not run. Save the weights alone: "
      "torch.save(model.state_dict(), path)."
    )


def _import_torch(path: Path) -> Any:
  """The package torch, new enough to refuse code."""
  try:
    import torch
  except ImportError as error:
    raise ImportError(f"Reading {path} needs the package torch: {_INSTALL}") from error
  version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
  if version < _SAFE_TORCH:
    raise ImportError(
      f"torch {torch.__version__} can be made to run code by the file that it reads; {path} "
      f"needs {'.'.join(map(str, _SAFE_TORCH))} or later: {_INSTALL} --upgrade"
    )
  return torch


def _read_safetensors(path: Path) -> dict[str, StoredArray]:
  """The arrays of a safetensors file, none of them read yet."""
  try:
    import safetensors
  except ImportError as error:
    raise ImportError(f"Reading {path} needs the package safetensors: {_INSTALL}") from error
  try:
    file = safetensors.safe_open(path, framework="numpy")
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
  except safetensors.SafetensorError as error:
    raise _damaged(path, error) from error

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


def _damaged(path: Path, error: Exception) -> ValueError:
  """The error for a file that its format's reader fails on."""
  lines = str(error).strip().splitlines()
  reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
  return ValueError(
    f"{path} is damaged, truncated or no checkpoint ({reason}). Fetch or copy it again."
  )
