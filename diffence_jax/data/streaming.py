"""Images that stay on disk, and are read when they are asked for."""

import copy
import math
import zlib
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
    *,
    name_of: Callable[[int], str] = "image {}".format,
  ):
    """Reads nothing yet.

    Args:
      read: rows i64[B], rising, to images u8[B,H,W,C].
      shape: of all that can be read, (N, H, W, C).
      name_of: how errors call an image, by its row.
    """
    self._read, self._name_of = read, name_of
    # Of all images that have been read once, by any view; -1 for the others.
    self._checksums = np.full(shape[0], -1, np.int64)
    self._rows, self.shape = np.arange(shape[0]), tuple(shape)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, rows: Any) -> np.ndarray:
    """Reads images; `rows` is whatever indexes an array of rank 1.

    Raises:
      ValueError: an image is not what it was when it was read before.
    """
    chosen = self._rows[rows]
    # A row that is asked for often, as for its versions, is read once.
    distinct, places = np.unique(chosen, return_inverse=True)
    images = self._read(distinct)
    self._compare(distinct, images)
    return images[places.reshape(np.shape(chosen))]

  def _compare(self, rows, images):
    now = np.array([zlib.crc32(np.ascontiguousarray(image)) for image in images], np.int64)
    before = self._checksums[rows]
    changed = rows[(before != -1) & (before != now)]
    if changed.size:
      raise ValueError(
        f"The data have changed while they were used, {self._name_of(int(changed[0]))} among "
        "them; run again, and leave them alone meanwhile."
      )
    self._checksums[rows] = now

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
    some = copy.copy(self)  # which shares the checksums
    some._rows = self._rows[rows]
    some.shape = (len(some._rows), *self.shape[1:])
    return some


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


def joined(images: Images, others: np.ndarray) -> Images:
  """Images u8[N,H,W,C], in memory or on disk, and after them u8[M,H,W,C] that are in memory."""
  if not isinstance(images, StreamedImages):
    return np.concatenate([images, others])
  num = len(images)

  def read(rows):
    before = np.searchsorted(rows, num)
    parts = [images[rows[:before]]] if before else []
    return np.concatenate([*parts, others[rows[before:] - num]])

  return StreamedImages(read, (num + len(others), *images.shape[1:]))


def chunks(images: Images) -> Iterator[slice]:
  """The rows of images u8[N,H,W,C] in their order, in parts that take little memory."""
  num = max(1, _CHUNK_BYTES // math.prod(images.shape[1:]))
  for start in range(0, len(images), num):
    yield slice(start, start + num)
