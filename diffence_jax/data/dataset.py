"""A labelled set of images, in memory or on disk, every sample with a stable id."""

import dataclasses
import functools
import hashlib

import numpy as np

from diffence_jax.data.streaming import Images, chunks, view
from diffence_jax.rng import MAX_ID


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """Images, labels and ids; checked when made.

  Attributes:
    images: u8[N,H,W,C]; streamed ones are read whenever rows of them are asked for.
    labels: i32[N], 0 to K-1.
    ids: i64[N], unique, 0 to 2**31 - 1, the same whatever the order on disk.
    num_classes: K, 2 to 2**31 - 1.
    part: i8[N], 0 for the source's training part, 1 for its test part; all 0 if it has none.
  """

  images: Images
  labels: np.ndarray
  ids: np.ndarray
  num_classes: int
  part: np.ndarray

  def __post_init__(self):
    if self.images.ndim != 4 or self.images.dtype != np.uint8 or 0 in self.images.shape:
      raise ValueError(
        f"images are {self.images.dtype}{list(self.images.shape)}; expected uint8[N, H, W, C], "
        "not empty."
      )
    num = len(self.images)
    for name in ("labels", "ids", "part"):
      values = getattr(self, name)
      if values.shape != (num,) or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
          f"{name} are {values.dtype}{list(values.shape)}; expected integers, [{num}]."
        )
    if not 2 <= self.num_classes <= MAX_ID:
      raise ValueError(f"There are {self.num_classes} classes; expected 2 to {MAX_ID}.")
    if self.labels.min() < 0 or self.labels.max() >= self.num_classes:
      raise ValueError(
        f"labels range from {self.labels.min()} to {self.labels.max()}; "
        f"expected 0 to {self.num_classes - 1}."
      )
    if self.ids.min() < 0 or self.ids.max() > MAX_ID:
      raise ValueError(
        f"ids range from {self.ids.min()} to {self.ids.max()}; expected 0 to {MAX_ID}."
      )
    if len(np.unique(self.ids)) != num:
      raise ValueError(f"{num - len(np.unique(self.ids))} ids are not unique.")
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
    ids = np.asarray(ids)
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
    )

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


def make_dataset(
  images: Images,
  labels: np.ndarray,
  ids: np.ndarray | None = None,
  num_classes: int | None = None,
  part: np.ndarray | None = None,
) -> Dataset:
  """Fills in what a source does not say.

  Args:
    images: u8[N,H,W,C], or u8[N,H,W] in gray.
    labels: i[N].
    ids: i[N]; None numbers the samples.
    num_classes: None counts up to the largest label.
    part: i[N] or bool[N]; None for all 0.

  Returns:
    The dataset.

  Raises:
    ValueError: something does not fit.
  """
  if images.ndim == 3:
    images = images[..., None]
  num = images.shape[0] if images.ndim else 0
  if num_classes is None:
    # Labels that are not numbers count no classes: `Dataset` says what is wrong with them.
    integers = np.issubdtype(labels.dtype, np.integer)
    num_classes = int(labels.max(initial=0)) + 1 if integers else 0
  if part is None:
    part = np.zeros(num, np.int8)
  return Dataset(
    images=images,
    labels=labels,
    ids=np.arange(num) if ids is None else ids,
    num_classes=num_classes,
    part=part.astype(np.int8) if part.dtype == bool else part,
  )
