"""IDX files, the format of MNIST and Fashion-MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from diffence_jax.checks import FilePath
from diffence_jax.data.dataset import Dataset, make_dataset
from diffence_jax.data.memory import check_memory

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
_FILES = (
  ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
  ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


def load(
  path: FilePath = FASHION_MNIST, renumber: bool = False, num_classes: int | None = None
) -> Dataset:
  """Loads the four files of an MNIST-like dataset, plain or gzipped.

  Args:
    path: their folder; by default where Debian's package of Fashion-MNIST puts them.
    renumber: whether labels are any numbers, which become 0 to K-1 in their order: those of
      EMNIST's letters are 1 to 26.
    num_classes: K, where some classes have no sample; None counts the labels.

  Returns:
    The training part, then the test part; an id is the position in that order.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is damaged, or not what its name says.
  """
  parts = [
    tuple(_read(Path(path), name, ndim) for name, ndim in zip(names, (3, 1), strict=True))
    for names in _FILES
  ]
  for (images, labels), (name, _) in zip(parts, _FILES, strict=True):
    if len(images) != len(labels):
      raise ValueError(f"{path}: {name} has {len(images)} images for {len(labels)} labels.")
  (train, _), (test, _) = parts
  if train.shape[1:] != test.shape[1:]:
    raise ValueError(
      f"{path}: the images of {_FILES[1][0]} are {list(test.shape[1:])} and those of "
      f"{_FILES[0][0]} are {list(train.shape[1:])}; expected one size."
    )
  images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
  part = np.repeat([0, 1], [len(images) for images, _ in parts])
  return make_dataset(images, labels, num_classes=num_classes, part=part, renumber=renumber)


def _read(folder, name, ndim):
  plain, zipped = folder / name, folder / f"{name}.gz"
  if not plain.is_file() and not zipped.is_file():
    raise FileNotFoundError(
      f"Neither {plain} nor {zipped.name} is a file. Fashion-MNIST comes with Debian's "
      f"package: apt-get install dataset-fashion-mnist, which puts it into {FASHION_MNIST}. "
      "For other files set data.options.path to their folder."
    )
  path = plain if plain.is_file() else zipped
  try:
    with (open if path is plain else gzip.open)(path, "rb") as file:
      return _read_array(path, file, ndim)
  except (OSError, EOFError, zlib.error) as error:
    raise ValueError(f"{path} is damaged: {error}.") from error


def _read_array(path, file, ndim):
  """The array; not a byte more is read than its header announces, and one to see the end."""
  size = 4 + 4 * ndim
  header = file.read(size)
  # Two zero bytes, 8 for unsigned bytes, and the number of axes.
  if len(header) < size or header[:4] != bytes([0, 0, 8, ndim]):
    raise ValueError(f"{path} is not an IDX file of unsigned bytes with {ndim} axes.")
  shape = tuple(int(size) for size in np.frombuffer(header[4:], ">u4"))
  num = math.prod(shape)
  check_memory(
    f"The {list(shape)} bytes that {path} announces", num, "it is damaged, or no data set"
  )
  content = file.read(num)
  if len(content) != num or file.read(1):
    there = "more" if len(content) == num else len(content)
    raise ValueError(f"{path} is damaged: {there} bytes for the shape {list(shape)}.")
  return np.frombuffer(content, np.uint8).reshape(shape)
