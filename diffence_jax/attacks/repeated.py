"""What a randomised defense answers to the same query again and again.

A query's answer is one of M fresh candidates. All that the selection did not look at could as
well be drawn later, so from one record of R candidates an image many queries can be answered:
each goes on behind the candidate where the one before it stopped. Up to R candidates the
answers are exactly those of independent queries; after that the record is read again from its
start.
"""

from typing import NamedTuple

import numpy as np


class RepeatedSelection(NamedTuple):
  """Which recorded candidate answers which query.

  Attributes:
    index: i64[N,k], the candidate; R is the raw prediction.
    drawn: i64[N], candidates that the k queries of an image looked at; more than R means that
      some answers are not independent.
  """

  index: np.ndarray
  drawn: np.ndarray


def select_repeatedly(
  kept: np.ndarray,
  phi: np.ndarray,
  raw_phi: np.ndarray,
  interval: tuple[float, float] | None,
  *,
  num_candidates: int,
  num_queries: int,
  first: np.ndarray | None = None,
) -> RepeatedSelection:
  """Selects as `diffence_jax.select` does, once for each of k queries.

  Args:
    kept: bool[N,R], which recorded candidates keep the label (`defense.select.keeps_label`).
    phi: f32[N,R], their scaled logits.
    raw_phi: f32[N], that of the raw prediction.
    interval: (lo, hi) on phi; None for scenario 3.
    num_candidates: M, candidates that the defense draws for a query, at most R.
    num_queries: k.
    first: i[N], the candidate where the first query of an image begins; None for 0. Models
      that share re-generations begin at different ones, not to share their noise as well.

  Returns:
    The selections.

  Raises:
    ValueError: fewer candidates are recorded than one query needs.
  """
  num_images, num_recorded = kept.shape
  if not 1 <= num_candidates <= num_recorded:
    raise ValueError(
      f"A query needs {num_candidates} candidates and {num_recorded} are recorded; record at "
      "least as many."
    )
  inside = kept if interval is None else kept & (phi >= interval[0]) & (phi <= interval[1])
  ahead = _distance_to_next(inside)
  found = ahead < num_candidates
  start = np.arange(num_recorded)
  choice = np.where(found, (start + ahead) % num_recorded, num_recorded)
  if interval is not None:
    middle = 0.5 * interval[0] + 0.5 * interval[1]
    outside = ~((raw_phi >= interval[0]) & (raw_phi <= interval[1]))
    image, at = np.nonzero(~found & outside[:, None])
    window = (at[:, None] + np.arange(num_candidates)) % num_recorded
    # As in `select`: finite distances, and the earlier of two equally near.
    largest = np.finfo(np.float32).max
    distance = np.where(kept, _distance(phi, middle, largest), np.inf)[image[:, None], window]
    nearest = np.argmin(distance, axis=1)
    rows = np.arange(len(image))
    is_nearer = distance[rows, nearest] <= _distance(raw_phi, middle, largest)[image]
    choice[image, at] = np.where(is_nearer, window[rows, nearest], num_recorded)
  looked_at = np.where(found, ahead + 1, num_candidates)

  index = np.empty((num_images, num_queries), np.int64)
  position = np.zeros(num_images, np.int64) if first is None else np.asarray(first)
  images = np.arange(num_images)
  drawn = np.zeros(num_images, np.int64)
  for query in range(num_queries):
    index[:, query] = choice[images, position]
    used = looked_at[images, position]
    drawn += used
    position = (position + used) % num_recorded
  return RepeatedSelection(index, drawn)


def mean_over_queries(values: np.ndarray, queries: tuple[int, ...]) -> np.ndarray:
  """The means of the first k answers, for every k.

  Args:
    values: f[N,Q], a statistic of each answer.
    queries: the k, each 1 to Q.

  Returns:
    f64[N,len(queries)].
  """
  sums = np.cumsum(values, axis=1, dtype=np.float64)
  counts = np.asarray(queries)
  return sums[:, counts - 1] / counts


def _distance(phi, middle, largest):
  phi = np.clip(phi, -largest, largest)
  distance = np.abs(phi - np.float32(middle))
  return np.minimum(np.where(np.isnan(distance), largest, distance), largest)


def _distance_to_next(inside):
  """For every place the steps to the next True, around the end; 2R where there is none."""
  num = inside.shape[1]
  twice = np.concatenate([inside, inside], axis=1)
  places = np.where(twice, np.arange(2 * num), 3 * num)
  following = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1][:, :num]
  return np.minimum(following - np.arange(num), 2 * num)
