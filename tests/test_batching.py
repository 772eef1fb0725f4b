"""Batches: every row once, one size, and endless shuffles that can be entered anywhere."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import batching

totals, sizes = st.integers(1, 60), st.integers(1, 25)


@given(totals, sizes, st.integers(0, 70))
def test_batches_go_through_all_rows_in_order_and_have_one_size(total, size, first):
  rows, real = [], []
  for batch, num in batching.batches(total, size, first):
    assert batch.shape == (size,) and batch.max() < total
    np.testing.assert_array_equal(batch[num:], total - 1)
    rows.append(batch)
    real.extend(batch[:num])
  np.testing.assert_array_equal(real, np.arange(first, max(first, total)))


@given(totals, sizes, st.integers(1, 8))
def test_even_sizes_need_no_more_batches_and_fill_up_little(total, size, multiple):
  found = batching.even_size(total, size, multiple)
  assert found % multiple == 0 and found < size + multiple
  num = -(-total // size)
  assert -(-total // found) <= num
  assert num * found - total < num * multiple


@settings(deadline=None)
@given(totals, sizes)
def test_a_function_in_batches_is_the_function_and_sees_one_size(total, size):
  seen = set()

  def function(rows):
    seen.add(len(rows))
    return jnp.asarray(rows) * 2

  np.testing.assert_array_equal(
    batching.in_batches(function, total, size), np.arange(total) * 2
  )
  assert seen == {min(size, total)}


@given(st.integers(0, 60), st.lists(sizes, min_size=1, max_size=4, unique=True))
def test_cuts_cover_all_rows_and_fit(num, sizes):
  sizes = sorted(sizes, reverse=True)
  parts = list(batching.cut(num, sizes))
  covered = [row for part, _ in parts for row in range(num)[part]]
  assert covered == list(range(num))
  for part, size in parts[:-1]:
    assert part.stop - part.start == size
  for part, size in parts[-1:]:
    assert part.stop - part.start <= size
  assert {size for _, size in parts} <= set(sizes)


@given(st.integers(1, 10**6), st.integers(1, 8))
def test_rounding_up_keeps_few_binary_digits(num, bits):
  found = batching.round_up(num, bits)
  assert num <= found < num * (1 + 2.0 ** (1 - bits)) + 1
  assert found & -found >= 1 << max(0, num.bit_length() - bits)


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 5))
def test_every_device_is_filled_and_every_row_found_again(num, num_devices, spare):
  size = -(-num // num_devices) + spare
  rows, at = batching.fill_devices(num, num_devices, size)
  assert rows.shape == (num_devices * size,) and at.shape == (num,)
  np.testing.assert_array_equal(rows[at], np.arange(num))


@pytest.mark.parametrize("seed", [3, (3, 4)])
def test_shuffles_can_be_entered_at_any_step(seed):
  take = lambda first: itertools.islice(batching.index_batches(10, 4, seed, first), 8 - first)
  whole = list(take(0))
  for first in range(8):
    np.testing.assert_array_equal(list(take(first)), whole[first:])
  # Epochs of ten each, all different.
  epochs = np.concatenate(whole)[:30].reshape(3, 10)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(10))
  assert len({tuple(epoch) for epoch in epochs}) == 3


def test_groups_have_orders_of_their_own():
  batches = batching.shuffled(members=5, reference=5)({"members": 20, "reference": 20}, 0, 0)
  first = next(batches)
  assert not np.array_equal(first["members"], first["reference"])
  np.testing.assert_array_equal(first["members"], next(batching.index_batches(20, 5, [0])))


def test_bytes_are_divided_by_255_in_float32():
  images = np.arange(256, dtype=np.uint8)
  expected = np.arange(256, dtype=np.float32) / np.float32(255)
  np.testing.assert_array_equal(batching.to_float(images), expected)
  found = batching.to_float(jnp.asarray(images))
  assert found.dtype == np.float32
  # XLA multiplies by the reciprocal.
  np.testing.assert_allclose(found, expected, rtol=1e-7)
