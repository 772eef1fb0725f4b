"""Batches that are balanced between sides."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax.rng import balanced_epoch

sizes = st.lists(st.integers(1, 12), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(sizes=sizes, batch_size=st.integers(1, 8), seed=st.integers(0, 99))
def test_an_epoch_goes_through_every_side_in_an_order_of_its_own(sizes, batch_size, seed):
  rows = np.asarray(balanced_epoch(jax.random.key(seed), sizes, batch_size))
  assert rows.shape == (-(-max(sizes) // batch_size), len(sizes), batch_size)
  for side, size in enumerate(sizes):
    seen = np.bincount(rows[:, side].ravel(), minlength=size)
    # Whole rounds of the side, and the start of one more.
    assert len(seen) == size and seen.min() >= 1 and seen.max() - seen.min() <= 1


def test_sides_and_epochs_are_shuffled_differently():
  first, second = (np.asarray(balanced_epoch(jax.random.key(i), [50, 50], 50)) for i in (0, 1))
  assert (first[0, 0] != first[0, 1]).any() and (first != second).any()
