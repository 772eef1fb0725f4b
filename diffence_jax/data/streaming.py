"""Images that stay on disk, and are read when they are asked for."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# Bytes that are read together where all images are wanted, one after another.
_CHUNK_BYTES = 2**24


class StreamedImages:
  """Stands for an array u8[N,H,W,C]: `images[rows]` reads these rows, `np.asarray` all.

  Attributes:
    shape: (N, H, W, C).
    dtype: uint8.
    ndim: 4.
  """

  dtype = np.dtype(np.uint8)
  ndim = 4

  def __init__(
    self,
    read: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int, ...],
    rows: np.ndarray | None = None,
  ):
    """Reads nothing yet.

    Args:
      read: rows i64[B], rising, to images u8[B,H,W,C].
      shape: of all that can be read, (N, H, W, C).
      rows: i64[M], of those that this one has, in its order; None for all.
    """
    self._read = read
    self._rows = np.arange(shape[0]) if rows is None else rows
    self.shape = (len(self._rows), *shape[1:])

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, rows: Any) -> np.ndarray:
    """Reads images; `rows` is whatever indexes an array of rank 1."""
    chosen = self._rows[rows]
    # A row that is asked for often, as for its versions, is read once.
    distinct, places = np.unique(chosen, return_inverse=True)
    return self._read(distinct)[places.reshape(np.shape(chosen))]

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    """Reads all images into memory."""
    if copy is False:
      raise ValueError("Images on disk become an array by being copied into memory only.")
    array = np.empty(self.shape, self.dtype)
    for rows in chunks(self):
      array[rows] = self[rows]
    return array if dtype is None else array.astype(dtype, copy=False)

  def view(self, rows: Any) -> "StreamedImages":
    """Some of the images, still on disk; `rows` is as for indexing, but no single row."""
    return StreamedImages(self._read, self.shape, self._rows[rows])


Images = np.ndarray | StreamedImages


def view(images: Images, rows: Any) -> Images:
  """Some images: those in memory in memory, those on disk on disk.

  Args:
    images: u8[N,H,W,C].
    rows: i[M], bool[N] or a slice.

  Returns:
    u8[M,H,W,C].
  """
  return images.view(rows) if isinstance(images, StreamedImages) else images[rows]


def chunks(images: Images) -> Iterator[slice]:
  """The rows of images u8[N,H,W,C] in their order, in parts that take little memory."""
  num = max(1, _CHUNK_BYTES // math.prod(images.shape[1:]))
  for start in range(0, len(images), num):
    yield slice(start, start + num)
