"""IDX files, the format of MNIST and Fashion-MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from diffence_jax.data.dataset import Dataset, make_dataset

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
_FILES = (
  ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
  ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


def load(path: str = FASHION_MNIST) -> Dataset:
  """Loads the four files of an MNIST-like dataset, plain or gzipped.

  Args:
    path: their folder; by default where Debian's package of Fashion-MNIST puts them.

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
  return make_dataset(images, labels, part=part)


def _read(folder, name, ndim):
  plain, zipped = folder / name, folder / f"{name}.gz"
  if not plain.is_file() and not zipped.is_file():
    raise FileNotFoundError(
      f"Neither {plain} nor {zipped.name} is there. Fashion-MNIST comes with Debian's package: "
      f"apt-get install dataset-fashion-mnist, which puts it into {FASHION_MNIST}. For other "
      "files set data.options.path to their folder."
    )
  path = plain if plain.is_file() else zipped
  try:
    content = path.read_bytes() if path is plain else gzip.decompress(path.read_bytes())
  except (OSError, EOFError, zlib.error) as error:
    raise ValueError(f"{path} is damaged: {error}.") from error
  header = 4 + 4 * ndim
  # Two zero bytes, 8 for unsigned bytes, and the number of axes.
  if len(content) < header or content[:4] != bytes([0, 0, 8, ndim]):
    raise ValueError(f"{path} is not an IDX file of unsigned bytes with {ndim} axes.")
  shape = tuple(int(size) for size in np.frombuffer(content[4:header], ">u4"))
  if len(content) - header != math.prod(shape):
    raise ValueError(
      f"{path} is damaged: {len(content) - header} bytes for the shape {list(shape)}."
    )
  return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
