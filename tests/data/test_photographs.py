"""Tiles of scikit-learn's photographs."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from diffence_jax import data


def test_tiles_are_cut_row_by_row_and_do_not_overlap():
  dataset = data.load("photographs")
  assert dataset.images.shape == (520, 32, 32, 3) and dataset.num_classes == 2
  np.testing.assert_array_equal(np.bincount(dataset.labels), [260, 260])
  flower = load_sample_image("flower.jpg")
  np.testing.assert_array_equal(dataset.images[260 + 21], flower[32:64, 32:64])


@pytest.mark.parametrize("tile", [7, 428])
def test_a_tile_out_of_range_is_refused(tile):
  with pytest.raises(ValueError, match="expected 8 to 427 pixels"):
    data.load("photographs", tile=tile)
