"""A labelled set of images, in memory or on disk, every sample with a stable id."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffence_jax.checks import check_labels, check_numbers, check_type, check_whole
from diffence_jax.data.streaming import Images, chunks, view
from diffence_jax.rng import MAX_ID

# With more than that, and so few rows or columns, these are the channels.
_MOST_CHANNELS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """Images, labels and ids; checked when made.

  Attributes:
    images: u8[N,H,W,C]; streamed ones are read whenever rows of them are asked for.
    labels: i32[N], 0 to K-1.
    ids: i64[N], unique, 0 to 2**31 - 1, the same whatever the order on disk.
    num_classes: K, 2 to 2**31 - 1.
    part: i8[N], 0 for the source's training part, 1 for its test part; all 0 if it has none.
    notes: what the source left out or took in a way of its own, for people.
    files: the samples' files, N of them; empty where samples are no files of their own.
  """

  images: Images
  labels: np.ndarray
  ids: np.ndarray
  num_classes: int
  part: np.ndarray
  notes: tuple[str, ...] = ()
  files: tuple[Path, ...] = ()

  def __post_init__(self):
    check_kinds(self.images, labels=self.labels, ids=self.ids, part=self.part)
    num = len(self.images)
    check_whole("num_classes", self.num_classes, 2, MAX_ID)
    check_labels("labels", self.labels, self.num_classes)
    if self.ids.min() < 0 or self.ids.max() > MAX_ID:
      raise ValueError(
        f"ids range from {self.ids.min()} to {self.ids.max()}; expected 0 to {MAX_ID}."
      )
    if len(np.unique(self.ids)) != num:
      raise ValueError(f"{num - len(np.unique(self.ids))} ids are not unique.")
    if self.files and len(self.files) != num:
      raise ValueError(
        f"There are {len(self.files)} files; expected one for each of {num} images."
      )
    if not np.isin(self.part, (0, 1)).all():
      raise ValueError(
        f"part ranges from {self.part.min()} to {self.part.max()}; expected 0 (training) and "
        "1 (test)."
      )
    # Only now, when nothing can overflow.
    for name, dtype in (("labels", np.int32), ("ids", np.int64), ("part", np.int8)):
      object.__setattr__(self, name, getattr(self, name).astype(dtype, copy=False))

  def take(self, ids: np.ndarray) -> "Dataset":
    """The samples with these ids, in this order.

    Args:
      ids: i[M].

    Returns:
      A dataset of M samples; images that are on disk stay there.

    Raises:
      ValueError: an id is not in the dataset.
    """
    ids = check_numbers("ids", ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
      raise ValueError(
        f"ids are {ids.dtype}{list(ids.shape)}; expected integers, [M]. Of a mask: ids[mask]."
      )
    order = np.argsort(self.ids)
    at = np.searchsorted(self.ids, ids, sorter=order)
    rows = order[np.minimum(at, len(order) - 1)]
    missing = ids[self.ids[rows] != ids]
    if missing.size:
      raise ValueError(
        f"{missing.size} ids are not in the dataset, {missing[0]} among them; "
        f"it has {len(self.ids)} samples."
      )
    return Dataset(
      view(self.images, rows),
      self.labels[rows],
      self.ids[rows],
      self.num_classes,
      self.part[rows],
      self.notes,
      tuple(self.files[row] for row in rows) if self.files else (),
    )

  def describe(self) -> str:
    """One line of what the data are, so that a misunderstanding is seen."""
    num, height, width, channels = self.images.shape
    present, counts = np.unique(self.labels, return_counts=True)
    least, most = counts.argmin(), counts.argmax()
    tested = f" ({int(self.part.sum())} of the test part)" if self.part.any() else ""
    told = [
      f"{num} images{tested}, {height} high and {width} wide, "
      f"{channels} channel{'s'[: channels > 1]}",
      f"{self.num_classes} classes, of {counts[least]} images (class {present[least]}) to "
      f"{counts[most]} (class {present[most]})"
      if counts[least] < counts[most]
      else f"{self.num_classes} classes, of {counts[most]} images each",
    ]
    if len(present) < self.num_classes:
      first = next((i for i, label in enumerate(present) if label != i), len(present))
      told.append(
        f"{self.num_classes - len(present)} classes without an image, {first} the first"
      )
    return "; ".join([*told, *self.notes])

  @functools.cached_property
  def digest(self) -> str:
    """64 hexadecimal digits that name the content, whatever its order.

    The same for images in memory and on disk; those on disk are all read for it.
    """
    order = np.argsort(self.ids)
    digest = hashlib.sha256(f"{self.images.shape} {self.num_classes}".encode())
    for values, dtype in ((self.ids, "<i8"), (self.labels, "<i8"), (self.part, "|i1")):
      digest.update(np.ascontiguousarray(values[order], dtype))
    for rows in chunks(self.images):
      digest.update(np.ascontiguousarray(self.images[order[rows]]))
    return digest.hexdigest()


def check_kinds(images: Images, **columns: np.ndarray) -> None:
  """Raises ValueError unless images are u8[N,H,W,C], and columns integers, [N].

  Only shapes and dtypes are looked at.
  """
  shape = list(images.shape)
  if images.ndim != 4 or images.dtype != np.uint8 or 0 in shape:
    raise ValueError(
      f"images are {images.dtype}{shape}; expected uint8[N, H, W, C], 0 to 255, not empty."
    )
  least, most = sorted(shape[1:3])
  if least <= _MOST_CHANNELS < min(most, shape[3]):
    raise ValueError(
      f"images are {images.dtype}{shape}, which looks like {least} channels on axis "
      f"{shape.index(least, 1)}; expected [N, H, W, C]. Use np.moveaxis, or of the source npz "
      "another data.options.layout, such as channels_first."
    )
  for name, values in columns.items():
    if values.shape != images.shape[:1] or not np.issubdtype(values.dtype, np.integer):
      raise ValueError(
        f"{name} are {values.dtype}{list(values.shape)}; expected integers, [{shape[0]}]."
      )


def make_dataset(
  images: Images,
  labels: np.ndarray,
  ids: np.ndarray | None = None,
  num_classes: int | None = None,
  part: np.ndarray | None = None,
  *,
  renumber: bool = False,
  notes: tuple[str, ...] = (),
  files: Sequence[Path] = (),
) -> Dataset:
  """Fills in what a source does not say.

  Args:
    images: u8[N,H,W,C], or u8[N,H,W] in gray.
    labels: i[N].
    ids: i[N]; None numbers the samples.
    num_classes: None counts the labels; a number allows for classes without a sample.
    part: i[N] or bool[N]; None for all 0.
    renumber: whether the labels are any K numbers, which become 0 to K-1 in their order.
    notes: as in `Dataset`.
    files: as above.

  Returns:
    The dataset.

  Raises:
    ValueError: something does not fit; or labels begin elsewhere than at 0 or have gaps, and
      neither `num_classes` nor `renumber` says how that is meant.
  """
  if isinstance(images, list | tuple) or not hasattr(images, "ndim"):
    images = check_numbers("images", images)
  check_type("renumber", renumber, bool)
  if images.ndim == 3:
    images = images[..., None]
  num = images.shape[0] if images.ndim else 0
  ids = np.arange(num) if ids is None else ids
  part = np.zeros(num, np.int8) if part is None else check_numbers("part", part)
  labels, ids = check_numbers("labels", labels), check_numbers("ids", ids)
  part = part.astype(np.int8) if part.dtype == bool else part
  check_kinds(images, labels=labels, ids=ids, part=part)
  if renumber:
    _, labels = np.unique(labels, return_inverse=True)
  if num_classes is None:
    num_classes = _count_classes(labels)
  return Dataset(images, labels, ids, num_classes, part, notes, tuple(files))


def _count_classes(labels):
  """K of labels that are all of 0 to K-1."""
  present = np.unique(labels)
  most = int(present[-1])
  if present[0] != 0 or len(present) != most + 1:
    missing = next((i for i, label in enumerate(present) if label != i), len(present))
    raise ValueError(
      f"labels range from {present[0]} to {most}, {len(present)} different ones, and no sample "
      f"has {missing}; expected all of 0 to K-1. Number them so, as renumber=True does in "
      "their order; or give num_classes=K, which keeps classes without a sample. Both are "
      "arguments of make_dataset, and in data.options of the sources npz and idx."
    )
  return most + 1
