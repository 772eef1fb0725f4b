"""NumPy archives, the simplest way to bring one's own images."""

import dataclasses
from pathlib import Path

import numpy as np

from diffence_jax.checks import FilePath, check_choice
from diffence_jax.data.arrays import archive_headers, map_array, read_arrays
from diffence_jax.data.dataset import Dataset, check_kinds, make_dataset
from diffence_jax.data.memory import check_memory
from diffence_jax.data.streaming import StreamedImages
from diffence_jax.disk import check_file

_NAMES = ("images", "labels", "ids", "part")
_LAYOUTS = ("channels_last", "channels_first")


def load(
  path: FilePath,
  in_memory: bool = True,
  layout: str = _LAYOUTS[0],
  renumber: bool = False,
  num_classes: int | None = None,
) -> Dataset:
  """Loads an `.npz` file, or a folder it was unpacked to; pickled objects are refused.

  Args:
    path: a file with the arrays `images` u8[N,H,W,C] (or [N,H,W] in gray) and `labels` i[N],
      optionally `ids` i[N] and `part` i[N] (0 training, 1 test); or a folder with these as
      `images.npy`, `labels.npy`, ...
    in_memory: False reads images from `images.npy` whenever they are asked for; for a folder.
    layout: "channels_last", or "channels_first" for images u8[N,C,H,W], as PyTorch has them.
    renumber: whether labels are any numbers, which become 0 to K-1 in their order.
    num_classes: K, where some classes have no sample; None counts the labels.

  Returns:
    The dataset; without `ids` an id is the position in the file.

  Raises:
    FileNotFoundError: there is no such file or folder.
    ValueError: the file is damaged, lacks an array, or an array is not as expected; or images
      do not fit into memory, or are to be read from an `.npz` when they are asked for.
  """
  check_choice("layout", layout, _LAYOUTS)
  path = Path(path)
  if path.is_dir():
    arrays = {file.stem: map_array(file) for file in path.glob("*.npy")}
  else:
    check_file(
      path,
      "set data.options.path to an .npz file with the arrays images and labels, or to a folder "
      "with images.npy and labels.npy",
    )
    if not in_memory:
      raise ValueError(
        f"{path} is read as a whole; for data.options.in_memory=False unpack it once, "
        f"python -m zipfile -e {path} FOLDER, and set data.options.path to that folder."
      )
    arrays = archive_headers(path)
  for name in ("images", "labels"):
    if name not in arrays:
      raise ValueError(
        f"{path} has no array {name!r}; it has {', '.join(sorted(arrays)) or 'none'}."
      )
  left_out = sorted(set(arrays) - set(_NAMES))
  arrays = {name: arrays[name] for name in _NAMES if name in arrays}
  _check(arrays, layout)
  if in_memory:
    total = sum(array.nbytes for array in arrays.values())
    check_memory(
      f"The arrays of {path}",
      total,
      "unpack them to a folder, and set data.options.in_memory=False",
    )
    if path.is_dir():
      arrays = {name: np.array(array) for name, array in arrays.items()}
    else:
      arrays = read_arrays(path, list(arrays))
  dataset = make_dataset(
    _channels_last(arrays["images"], layout),
    arrays["labels"],
    arrays.get("ids"),
    num_classes,
    arrays.get("part"),
    renumber=renumber,
    notes=(f"other arrays are left out: {', '.join(left_out)}",) if left_out else (),
  )
  return dataset if in_memory else _streamed(dataset, path / "images.npy", layout)


def _streamed(dataset, file, layout):
  """The dataset with its images on disk, mapped only meanwhile: so they take no memory."""
  shape = dataset.images.shape

  def read(rows: np.ndarray) -> np.ndarray:
    images = _channels_last(map_array(file), layout)
    if images.shape[: len(shape)] != shape[: images.ndim] or images.dtype != np.uint8:
      raise ValueError(f"{file} has another shape than when the run began; run again.")
    return np.array(images[rows]).reshape(len(rows), *shape[1:])

  return dataclasses.replace(dataset, images=StreamedImages(read, shape))


def _check(arrays, layout):
  """Raises ValueError unless shapes and dtypes fit, of which no value has been read."""
  images = _channels_last(arrays["images"], layout)
  images = images[..., None] if images.ndim == 3 else images
  is_bool = lambda name: name == "part" and arrays[name].dtype == bool
  check_kinds(
    images,
    **{name: arrays[name] for name in arrays if name != "images" and not is_bool(name)},
  )


def _channels_last(images, layout):
  is_moved = layout == _LAYOUTS[1] and images.ndim == 4
  return np.moveaxis(images, 1, -1) if is_moved else images
