"""Shadow ensembles: who is in which."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax.audit.membership import membership_matrix


@settings(max_examples=30, deadline=None)
@given(
  num_pairs=st.integers(1, 8),
  more=st.integers(0, 4),
  num_examples=st.integers(2, 50),
  seed=st.integers(0, 2**31 - 1),
)
def test_memberships_are_balanced_and_can_be_extended(num_pairs, more, num_examples, seed):
  membership = membership_matrix(2 * num_pairs, num_examples, seed)
  np.testing.assert_array_equal(membership.sum(axis=0), num_pairs)
  sizes = membership.sum(axis=1)
  assert set(sizes) <= {num_examples // 2, -(-num_examples // 2)}
  longer = membership_matrix(2 * (num_pairs + more), num_examples, seed)
  np.testing.assert_array_equal(longer[: 2 * num_pairs], membership)


def test_memberships_of_different_pairs_and_seeds_are_unrelated():
  membership = membership_matrix(40, 4000, 0)[::2].astype(float)
  others = membership_matrix(40, 4000, 1)[::2].astype(float)
  correlation = np.corrcoef(np.concatenate([membership, others]))
  # 780 pairs of rows, a standard deviation of 1 / sqrt(4000) each: five of them.
  assert np.abs(correlation - np.eye(40)).max() < 5 / np.sqrt(4000)


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="even number"):
    membership_matrix(5, 10, 0)
  with pytest.raises(ValueError, match="at least 2"):
    membership_matrix(4, 1, 0)


@pytest.mark.parametrize("sizes", [("2", 10), (4.0, 10), (2.5, 10), (None, 10), (4, 10.5)])
def test_numbers_of_models_and_examples_are_whole(sizes):
  with pytest.raises(ValueError, match=r"num_\w+ is .*; expected a whole number, at least 2"):
    membership_matrix(*sizes, seed=0)
