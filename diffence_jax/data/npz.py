"""NumPy archives, the simplest way to bring one's own images."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from diffence_jax.data.dataset import Dataset, make_dataset


def load(path: str) -> Dataset:
  """Loads an `.npz` file; pickled objects in it are refused, never executed.

  Args:
    path: a file with the arrays `images` u8[N,H,W,C] (or [N,H,W] in gray) and `labels` i[N],
      optionally `ids` i[N] and `part` i[N] (0 training, 1 test).

  Returns:
    The dataset; without `ids` an id is the position in the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is damaged, lacks an array, or an array is not as expected.
  """
  if not Path(path).exists():
    raise FileNotFoundError(
      f"There is no file {path}; set data.options.path to an .npz file with the arrays "
      "images and labels."
    )
  arrays = read_arrays(path)
  for name in ("images", "labels"):
    if name not in arrays:
      raise ValueError(
        f"{path} has no array {name!r}; it has {', '.join(sorted(arrays)) or 'none'}."
      )
  return make_dataset(
    arrays["images"], arrays["labels"], ids=arrays.get("ids"), part=arrays.get("part")
  )


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
