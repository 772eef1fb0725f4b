"""What a randomised defense answers to the same query again and again.

A query's answer is one of M fresh candidates. All that the selection did not look at could as
well be drawn later, so from one record of R candidates an image many queries can be answered:
each goes on behind the candidate where the one before it stopped. Up to R candidates the
answers are exactly those of independent queries; after that the record is read again from its
start.
"""

from typing import NamedTuple

import numpy as np

from diffence_jax.defense.select import ACCEPTED


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
  ranks: np.ndarray,
  *,
  num_candidates: int,
  num_queries: int,
  first: np.ndarray | None = None,
) -> RepeatedSelection:
  """Selects as a `RankPolicy` does, once for each of k queries.

  Args:
    ranks: f32[N,R+1], of the recorded candidates and, last, of the raw prediction; see
      `defense.select.rank_options`.
    num_candidates: M, candidates that the defense draws for a query, at most R.
    num_queries: k.
    first: i[N], the candidate where the first query of an image begins; None for 0. Models
      that share re-generations begin at different ones, not to share their noise as well.

  Returns:
    The selections.

  Raises:
    ValueError: fewer candidates are recorded than one query needs.
  """
  ranks, raw_rank = ranks[:, :-1], ranks[:, -1]
  num_images, num_recorded = ranks.shape
  check_recorded(num_candidates, num_recorded)
  ahead = _distance_to_next(ranks == ACCEPTED)
  is_reached = ahead < num_candidates
  start = np.arange(num_recorded)
  choice = np.where(is_reached, (start + ahead) % num_recorded, num_recorded)
  # Where nothing is accepted, the best of the window; of two equally good ones the earlier.
  image, at = np.nonzero(~is_reached & (raw_rank != ACCEPTED)[:, None])
  window = (at[:, None] + np.arange(num_candidates)) % num_recorded
  best_of = ranks[image[:, None], window]
  best = np.argmin(best_of, axis=1)
  rows = np.arange(len(image))
  is_better = best_of[rows, best] <= raw_rank[image]
  choice[image, at] = np.where(is_better, window[rows, best], num_recorded)
  looked_at = np.where(is_reached, ahead + 1, num_candidates)

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


def windows(
  num_recorded: int, *, num_candidates: int, num_queries: int, first: np.ndarray
) -> np.ndarray:
  """Which candidates each query about an image draws, where all of them are looked at.

  Args:
    num_recorded: R.
    num_candidates: M, at most R.
    num_queries: k.
    first: i[N], the candidate where the first query of an image begins.

  Returns:
    i64[W,N,M], W = min(k, R // M): of the queries that have candidates of their own. Further
    ones go through these again.

  Raises:
    ValueError: fewer candidates are recorded than one query needs.
  """
  check_recorded(num_candidates, num_recorded)
  queries = np.arange(min(num_recorded // num_candidates, num_queries))
  starts = first[None] + queries[:, None] * num_candidates
  return (starts[..., None] + np.arange(num_candidates)) % num_recorded


def check_recorded(num_candidates: int, num_recorded: int) -> None:
  """Raises ValueError where fewer candidates are recorded than one query needs."""
  if not 1 <= num_candidates <= num_recorded:
    raise ValueError(
      f"A query needs {num_candidates} candidates and {num_recorded} are recorded; record at "
      "least as many."
    )


def _distance_to_next(inside):
  """For every place the steps to the next True, around the end; 2R where there is none."""
  num = inside.shape[1]
  twice = np.concatenate([inside, inside], axis=1)
  places = np.where(twice, np.arange(2 * num), 3 * num)
  following = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1][:, :num]
  return np.minimum(following - np.arange(num), 2 * num)
