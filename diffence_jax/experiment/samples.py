"""Samples that stages work on: which ones, by what they are and not where they lie."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from diffence_jax.audit.canaries import make_canaries
from diffence_jax.audit.pool import Pool
from diffence_jax.data import Dataset, Images, Split
from diffence_jax.data.streaming import joined
from diffence_jax.experiment.stage import fingerprint
from diffence_jax.named import Choice
from diffence_jax.rng import numpy_seed

# The groups that are queried, in the order of every record.
GROUPS = ("known_members", "target_members", "known_nonmembers", "target_nonmembers")


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
  """Some samples of a data set.

  Attributes:
    dataset: that they are of.
    ids: i64[N].
    labels: i32[N], that they are trained with; wrong ones for canaries.
  """

  dataset: Dataset
  ids: np.ndarray
  labels: np.ndarray

  @functools.cached_property
  def fingerprint(self) -> str:
    """Over the whole data set's content, the ids and the labels."""
    return fingerprint({"data": self.dataset.digest, "ids": self.ids, "labels": self.labels})

  def __len__(self) -> int:
    return len(self.ids)

  @property
  def images(self) -> Images:
    """u8[N,H,W,C], in memory or on disk as the data set is."""
    return self.dataset.take(self.ids).images

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H,W,C)."""
    return self.dataset.images.shape[1:]

  @property
  def num_classes(self) -> int:
    """K."""
    return self.dataset.num_classes

  def take(self, rows: np.ndarray | slice) -> "Samples":
    """Some of them, by place or by a mask."""
    return Samples(self.dataset, self.ids[rows], self.labels[rows])

  def join(self, other: "Samples") -> "Samples":
    """These, then others of the same data set."""
    both = [
      np.concatenate(pair) for pair in ((self.ids, other.ids), (self.labels, other.labels))
    ]
    return Samples(self.dataset, *both)


def samples_of(dataset: Dataset, ids: np.ndarray) -> Samples:
  """The samples with these ids and the labels that the data set gives them; maybe none."""
  labels = dataset.take(ids).labels if len(ids) else np.empty(0, np.int32)
  return Samples(dataset, ids, labels)


def draw_canaries(
  dataset: Dataset, reference: np.ndarray, kinds: Sequence[Choice], num: int, seed: int
) -> tuple[Pool, np.ndarray]:
  """Canaries of several kinds, half of each trained on (Aerni et al. 2024).

  Args:
    dataset: that they are made of.
    reference: i64[], the reference set's ids, the first of which become canaries.
    kinds: from `CANARIES`; a kind leaves those before it as they are.
    num: how many of each.
    seed: of the run.

  Returns:
    The canaries kind by kind, of which nothing is known, and their images u8[n,H,W,C].

  Raises:
    ValueError: a kind cannot be made.
  """
  draw = np.random.default_rng(numpy_seed(seed, "canaries"))
  pools, images = [], [np.empty((0, *dataset.images.shape[1:]), np.uint8)]
  for place, kind in enumerate(kinds if num else ()):
    some = dataset.take(reference[place * num : (place + 1) * num])
    given = np.asarray(some.images)
    made, labels = make_canaries(kind, given, some.labels, dataset.num_classes, draw)
    is_member = draw.permutation(num) < num // 2
    none, every = np.zeros(num, bool), np.ones(num, bool)
    pools.append(Pool(some.ids, labels, is_member, none, every))
    images.append(made)
  if not pools:
    nobody = Pool(reference[:0], np.empty(0, np.int32), *np.empty((3, 0), bool))
    return nobody, images[0]
  return Pool(*map(np.concatenate, zip(*pools, strict=True))), np.concatenate(images)


def with_canaries(dataset: Dataset, pool: Pool, images: np.ndarray) -> Dataset:
  """Where the samples of a pool have their images: a data set in which canaries have theirs.

  Args:
    dataset: that the samples are of.
    pool: canaries last.
    images: u8[n,H,W,C], the canaries'.

  Returns:
    The data set itself where no canary has another image than it has there.
  """
  canaries = pool.take(pool.is_canary).ids
  if not len(canaries) or np.array_equal(dataset.take(canaries).images, images):
    return dataset
  natural = dataset.take(pool.natural.ids)
  return Dataset(
    joined(natural.images, images),
    pool.labels,
    pool.ids,
    dataset.num_classes,
    np.zeros(len(pool.ids), np.int8),
  )


def make_pool(dataset: Dataset, split: Split, canaries: Pool) -> Pool:
  """The samples that models are asked about: `GROUPS` one after another, then the canaries."""
  groups = [getattr(split, group) for group in GROUPS]
  ids = np.concatenate(groups)
  each = lambda *values: np.repeat(values, [len(group) for group in groups])
  natural = Pool(
    ids,
    dataset.take(ids).labels,
    is_member=each(True, True, False, False),
    is_known=each(True, False, True, False),
    is_canary=np.zeros(len(ids), bool),
  )
  return Pool(*(np.concatenate(pair) for pair in zip(natural, canaries, strict=True)))
