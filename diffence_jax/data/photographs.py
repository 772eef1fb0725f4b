"""Tiles of the two photographs that scikit-learn ships: colour images without downloads."""

import numpy as np

from diffence_jax.data.dataset import Dataset, make_dataset


def load(tile: int = 32) -> Dataset:
  """Cuts the photographs of a Chinese palace and of a flower into tiles that do not overlap.

  Args:
    tile: the side of a tile, 8 to 427 pixels.

  Returns:
    u8[N,tile,tile,3], row by row of the first photograph, then of the second; 520 tiles of 32.
    Two classes: which photograph a tile is of.

  Raises:
    ValueError: the side is out of its range.
  """
  from sklearn.datasets import load_sample_images

  photographs = load_sample_images().images  # u8[427,640,3] each
  most = min(photographs[0].shape[:2])
  if not 8 <= tile <= most:
    raise ValueError(f"data.options.tile is {tile}; expected 8 to {most} pixels.")
  tiles = [_tiles(photograph, tile) for photograph in photographs]
  labels = np.repeat(np.arange(len(tiles)), [len(of_photograph) for of_photograph in tiles])
  return make_dataset(np.concatenate(tiles), labels)


def _tiles(photograph, side):
  rows, columns = (length // side for length in photograph.shape[:2])
  grid = photograph[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
  return grid.swapaxes(1, 2).reshape(rows * columns, side, side, 3)
