"""NumPy archives, the simplest way to bring one's own images."""

import zipfile

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
  try:
    with np.load(path, allow_pickle=False) as archive:
      if not hasattr(archive, "files"):
        raise ValueError("it is a single array")
      arrays = {name: archive[name] for name in archive.files}
  except FileNotFoundError:
    raise FileNotFoundError(
      f"There is no file {path}; set data.options.path to an .npz file with the arrays "
      "images and labels."
    ) from None
  except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
    raise ValueError(f"{path} cannot be read as an .npz of plain arrays: {error}.") from error
  for name in ("images", "labels"):
    if name not in arrays:
      raise ValueError(
        f"{path} has no array {name!r}; it has {', '.join(sorted(arrays)) or 'none'}."
      )
  return make_dataset(
    arrays["images"], arrays["labels"], ids=arrays.get("ids"), part=arrays.get("part")
  )
