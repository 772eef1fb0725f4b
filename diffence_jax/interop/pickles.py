"""Files of `torch.save`: tensors and plain values; nothing that a file holds is ever run."""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

# Files made for the purpose get code past `weights_only` of older versions (CVE-2025-32434,
# CVE-2026-24747).
_SAFE_TORCH = (2, 10)
INSTALL = "pip install -e '.[torch]'"


class NotLoaded:
  """Stands for an object beside the weights, whose class is not imported: what it was given."""

  def __init__(self, *args: Any):
    self.args = args

  def __setstate__(self, state: Any) -> None:
    self.state = state


def _scalar(dtype: Any, data: Any) -> Any:
  """A NumPy scalar as a Python one; None where it is not one of numbers."""
  name = dtype.args[0] if isinstance(dtype, NotLoaded) and dtype.args else None
  if not (isinstance(name, str) and isinstance(data, bytes)):
    return None
  if not re.fullmatch(r"[<>|=]?[biuf][1248]", name) or len(data) != int(name[-1]):
    return None
  return np.frombuffer(data, name)[0].item()


def _text(*parts: Any) -> str:
  """A path as text."""
  return "/".join(map(str, parts))


# What people save beside weights, by the names that pickles have for it, to what stands for it:
# nothing of theirs is called.
_STAND_INS = {
  "argparse.Namespace": NotLoaded,
  "types.SimpleNamespace": NotLoaded,
  "datetime.datetime": NotLoaded,
  "datetime.timedelta": NotLoaded,
  "numpy.dtype": NotLoaded,
  "numpy.ndarray": NotLoaded,
  "numpy._core.multiarray._reconstruct": NotLoaded,
  "numpy.core.multiarray._reconstruct": NotLoaded,
  "numpy._core.multiarray.scalar": _scalar,
  "numpy.core.multiarray.scalar": _scalar,
  "pathlib.Path": _text,
  "pathlib.PosixPath": _text,
  "pathlib.WindowsPath": _text,
  "pathlib._local.PosixPath": _text,
  "pathlib._local.WindowsPath": _text,
}


def read_pickle(path: Path) -> Any:
  """What `torch.save` wrote, tensors and plain values only.

  Args:
    path: the file.

  Raises:
    ImportError: torch is not installed, or too old.
    ValueError: the file is damaged, is compressed, or holds what only running its code could
      load; none of it has been run.
  """
  torch = _import_torch(path)
  # Only the zip format can be mapped, torch's since version 1.6.
  is_zip = zipfile.is_zipfile(path)
  if is_zip:
    _check_zip(path)
  else:
    with open(path, "rb") as handle:
      if handle.read(1) != b"\x80":  # of every pickle since 2003
        raise damaged(path, ValueError("it does not begin as a file of torch.save"))
  try:
    allowed = [(module, name) for name, module in _STAND_INS.items()]
    with torch.serialization.safe_globals(allowed):
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
    raise damaged(path, error) from error


def _check_zip(path: Path) -> None:
  """Raises unless sizes and checksums are right, which torch does not look at."""
  try:
    with zipfile.ZipFile(path) as file:
      _check_entries(path, file.infolist())
      wrong = file.testzip()
  except _RefusedError:
    raise
  except Exception as error:  # as above
    raise damaged(path, error) from error
  if wrong is not None:
    raise damaged(path, zipfile.BadZipFile(f"the checksum of {wrong} is wrong"))


class _RefusedError(ValueError):
  """A file that is not read, for what its directory says."""


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
  """Raises for programs, and for entries compressed or too large, before any is read."""
  if any(each.filename.endswith("/constants.pkl") for each in entries):
    raise _RefusedError(
      f"{path} is a TorchScript program, which was not run. Save the weights alone: "
      "torch.save(model.state_dict(), path)."
    )
  packed = next((each for each in entries if each.compress_type != zipfile.ZIP_STORED), None)
  if packed is not None:
    raise _RefusedError(
      f"{path} has compressed entries, such as {packed.filename} of {packed.file_size:,} "
      "bytes, which torch.save does not write; it was not unpacked. Load and save it anew "
      "where it comes from."
    )
  claimed, size = sum(each.file_size for each in entries), path.stat().st_size
  if claimed > size:
    raise _RefusedError(
      f"{path} is damaged: its entries are {claimed:,} bytes, and the file has {size:,}. Fetch "
      "or copy it again."
    )


def _import_torch(path: Path) -> Any:
  """The package torch, new enough to refuse code."""
  try:
    import torch
  except ImportError as error:
    raise ImportError(f"Reading {path} needs the package torch: {INSTALL}") from error
  version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
  if version < _SAFE_TORCH:
    raise ImportError(
      f"torch {torch.__version__} can be made to run code by the file that it reads; {path} "
      f"needs {'.'.join(map(str, _SAFE_TORCH))} or later: {INSTALL} --upgrade"
    )
  return torch


def damaged(path: Path, error: Exception) -> ValueError:
  """The error for a file that its format's reader fails on."""
  lines = str(error).strip().splitlines()
  reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
  return ValueError(
    f"{path} is damaged, truncated or no checkpoint ({reason}). Fetch or copy it again."
  )
