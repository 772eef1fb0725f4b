"""scikit-learn's handwritten digits: 1,797 gray images of 8x8, shipped with the package."""

import functools

import numpy as np

from diffence_jax.data.dataset import Dataset, make_dataset


def load() -> Dataset:
  """Loads the digits; an id is the position in scikit-learn's file.

  Returns:
    u8[1797,8,8,1], 10 classes; the file's 17 gray levels are spread over 0 to 255.
  """
  images, labels = _read()
  return make_dataset(np.round(images * (255 / 16)).astype(np.uint8), labels.copy())


@functools.cache
def _read():
  """Gray levels f64[1797,8,8] and labels i64[1797]; the file is text, which takes a while."""
  from sklearn.datasets import load_digits

  digits = load_digits()
  return digits.images, digits.target
