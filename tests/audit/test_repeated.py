"""Repeated queries answered from one record: as `select` answers them one by one."""

import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax.audit.repeated import select_repeatedly, windows
from diffence_jax.defense.select import interval_rank, keeps_label, rank_options


def record(seed, num_images=5, num_recorded=12, spread=1.5):
  """Logits of which some keep their label and some don't."""
  draw = np.random.default_rng(seed)
  raw = draw.normal(size=(num_images, 3)).astype(np.float32)
  noise = draw.normal(scale=spread, size=(num_images, num_recorded, 3))
  return raw, (raw[:, None] + noise).astype(np.float32)


def repeated(raw, candidates, interval, num_candidates, num_queries, first=None):
  ranks = np.asarray(rank_options(candidates, raw, interval_rank(interval)))
  return select_repeatedly(
    ranks, num_candidates=num_candidates, num_queries=num_queries, first=first
  )


def one_by_one(raw, candidates, interval, num_candidates, num_queries):
  """Asks `select` for each query; the next one begins behind the candidate that was taken."""
  images, num_recorded = np.arange(len(raw)), candidates.shape[1]
  chosen, drawn, position = [], np.zeros(len(raw), int), np.zeros(len(raw), int)
  for _ in range(num_queries):
    window = (position[:, None] + np.arange(num_candidates)) % num_recorded
    asked = candidates[images[:, None], window]
    index = np.asarray(dj.select(asked, raw, interval).index)
    phi, valid = np.asarray(dj.scaled_logit(asked)), np.asarray(keeps_label(asked, raw))
    inside = valid if interval is None else valid & (phi >= interval[0]) & (phi <= interval[1])
    used = np.where(inside.any(axis=1), inside.argmax(axis=1) + 1, num_candidates)
    taken = window[images, np.minimum(index, num_candidates - 1)]
    chosen.append(np.where(index == num_candidates, num_recorded, taken))
    drawn += used
    position = (position + used) % num_recorded
  return np.stack(chosen, axis=1), drawn


@pytest.mark.parametrize("num_candidates", [1, 4, 12])
@pytest.mark.parametrize(
  "interval", [None, (0.0, 0.5), (-1.0, 3.0), (50.0, 60.0), (-9.0, -8.0)]
)
def test_answers_are_those_of_select(interval, num_candidates):
  raw, candidates = record(11, num_images=100)
  found = repeated(raw, candidates, interval, num_candidates, 6)
  chosen, drawn = one_by_one(raw, candidates, interval, num_candidates, 6)
  np.testing.assert_array_equal(found.index, chosen)
  np.testing.assert_array_equal(found.drawn, drawn)


def test_a_single_query_is_the_selection_of_the_first_candidates():
  raw, candidates = record(3, num_images=200)
  for interval in (None, (0.0, 1.0)):
    found = repeated(raw, candidates, interval, 5, 1).index[:, 0]
    index = np.asarray(dj.select(candidates[:, :5], raw, interval).index)
    np.testing.assert_array_equal(np.where(index == 5, 12, index), found)


def test_until_the_record_ends_no_candidate_answers_twice():
  raw, candidates = record(5, num_images=300, num_recorded=64, spread=0.5)
  found = repeated(raw, candidates, None, 8, 16)
  fresh = found.drawn <= 64
  assert fresh.sum() > 100
  for row in found.index[fresh]:
    taken = row[row < 64]
    assert len(np.unique(taken)) == len(taken)


def test_beginning_elsewhere_is_reading_a_rotated_record():
  raw, candidates = record(7, num_images=50)
  first = np.random.default_rng(0).integers(0, 12, 50)
  found = repeated(raw, candidates, (0.0, 1.0), 4, 5, first)
  places = (first[:, None] + np.arange(12)) % 12
  rotated = np.take_along_axis(candidates, places[..., None], axis=1)
  expected = repeated(raw, rotated, (0.0, 1.0), 4, 5).index
  back = np.where(expected == 12, 12, (expected + first[:, None]) % 12)
  np.testing.assert_array_equal(found.index, back)


def test_windows_of_different_queries_share_no_candidate_and_begin_where_they_are_told():
  first = np.array([0, 5, 11])
  drawn = windows(12, num_candidates=4, num_queries=9, first=first)
  assert drawn.shape == (3, 3, 4)
  for i, start in enumerate(first):
    expected = (start + np.arange(12)) % 12
    np.testing.assert_array_equal(drawn[:, i].reshape(-1), expected)
  few = windows(12, num_candidates=4, num_queries=2, first=first)
  np.testing.assert_array_equal(few, drawn[:2])
  # What does not fill a window is left out.
  assert windows(11, num_candidates=4, num_queries=9, first=first).shape == (2, 3, 4)


def test_too_short_a_record_is_refused():
  raw, candidates = record(0)
  with pytest.raises(ValueError, match="needs 13 candidates and 12 are recorded"):
    repeated(raw, candidates, None, 13, 1)
  with pytest.raises(ValueError, match="needs 13 candidates and 12 are recorded"):
    windows(12, num_candidates=13, num_queries=1, first=np.zeros(1, int))
