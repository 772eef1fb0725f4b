"""NumPy archives, the simplest way to bring one's own images."""

import dataclasses
import zipfile
import zlib
from pathlib import Path

import numpy as np

from diffence_jax.data.dataset import Dataset, make_dataset
from diffence_jax.data.streaming import StreamedImages


def load(path: str, in_memory: bool = True) -> Dataset:
  """Loads an `.npz` file, or a folder it was unpacked to; pickled objects are refused.

  Args:
    path: a file with the arrays `images` u8[N,H,W,C] (or [N,H,W] in gray) and `labels` i[N],
      optionally `ids` i[N] and `part` i[N] (0 training, 1 test); or a folder with these as
      `images.npy`, `labels.npy`, ...
    in_memory: False reads images from `images.npy` whenever they are asked for; for a folder.

  Returns:
    The dataset; without `ids` an id is the position in the file.

  Raises:
    FileNotFoundError: there is no such file or folder.
    ValueError: the file is damaged, lacks an array, or an array is not as expected; or images
      are to be read from an `.npz` when they are asked for.
  """
  if not Path(path).exists():
    raise FileNotFoundError(
      f"There is no file {path}; set data.options.path to an .npz file with the arrays "
      "images and labels, or to a folder with images.npy and labels.npy."
    )
  if Path(path).is_dir():
    arrays = {file.stem: _read_array(file, in_memory) for file in Path(path).glob("*.npy")}
  elif in_memory:
    arrays = read_arrays(path)
  else:
    raise ValueError(
      f"{path} is read as a whole; for data.options.in_memory=False unpack it once, "
      f"python -m zipfile -e {path} FOLDER, and set data.options.path to that folder."
    )
  for name in ("images", "labels"):
    if name not in arrays:
      raise ValueError(
        f"{path} has no array {name!r}; it has {', '.join(sorted(arrays)) or 'none'}."
      )
  dataset = make_dataset(
    arrays["images"], arrays["labels"], ids=arrays.get("ids"), part=arrays.get("part")
  )
  if in_memory:
    return dataset
  # The file is mapped only meanwhile, so that what has been read takes no memory.
  file, shape = Path(path) / "images.npy", dataset.images.shape
  read = lambda rows: np.array(_read_array(file, False)[rows]).reshape(len(rows), *shape[1:])
  return dataclasses.replace(dataset, images=StreamedImages(read, shape))


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
  """All arrays of an `.npz` file by name.

  Args:
    path: a file that exists.

  Returns:
    Name to array.

  Raises:
    ValueError: the file is damaged, holds pickled objects, or is not an `.npz`.
  """
  try:
    archive = np.load(path, allow_pickle=False)
    if isinstance(archive, np.ndarray):
      raise ValueError("it is a single array")
    with archive:
      return {name: archive[name] for name in archive.files}
  # RuntimeError: an encrypted file, or one of a later zip version.
  except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(f"{path} cannot be read as an .npz of plain arrays: {error}.") from error


def _read_array(path, in_memory):
  """The array of an `.npy` file, in memory or mapped."""
  try:
    return np.load(path, mmap_mode=None if in_memory else "r", allow_pickle=False)
  except (ValueError, OSError, EOFError) as error:
    raise ValueError(f"{path} cannot be read as an .npy of one array: {error}.") from error
