"""The contract of data sources, for every one of ours: what is loaded, and that it stays so."""

import inspect

import numpy as np
import pytest
from data.test_faces import FACES, write_celeba, write_utkface
from data.test_sources import random_images, write_folder, write_idx
from data.test_tfds_source import build

from diffence_jax import data
from diffence_jax.data import SOURCES


def npz(folder):
  arrays = {"images": random_images(6, 4, 4, 3), "labels": np.arange(6) % 2}
  for name, array in arrays.items():
    np.save(folder / f"{name}.npy", array)
  return {"path": str(folder)}


def with_path(write):
  def made(folder):
    write(folder)
    return {"path": str(folder)}

  return made


# Source to what makes its files and gives its options; those that need no file are not here.
FILES = {
  "celeba": with_path(write_celeba),
  "folder": with_path(write_folder),
  "idx": with_path(write_idx),
  "npz": npz,
  "tfds": lambda folder: {"name": build(folder, with_id=True), "data_dir": str(folder)},
  "utkface": with_path(lambda folder: write_utkface(folder, FACES)),
}


@pytest.fixture(params=SOURCES.known)
def choice(request, tmp_path):
  """Every source, of files as small as they can be."""
  make = FILES.get(request.param, lambda folder: {})
  return SOURCES.choose(request.param, make(tmp_path))


def test_what_a_source_gives(choice):
  dataset = data.load(choice)
  num = len(dataset.ids)
  assert dataset.images.shape[0] == num and dataset.images.dtype == np.uint8
  assert len(np.unique(dataset.ids)) == num and dataset.ids.min() >= 0
  assert set(np.unique(dataset.part)) <= {0, 1}
  some = dataset.ids[:: max(1, num // 5)][::-1]
  taken = dataset.take(some)
  np.testing.assert_array_equal(taken.ids, some)
  for row, sample in enumerate(some):
    (place,) = np.flatnonzero(dataset.ids == sample)
    np.testing.assert_array_equal(taken.images[row : row + 1][0], dataset.images[place])
    assert taken.labels[row] == dataset.labels[place]


def test_it_is_the_same_twice_and_on_disk(choice):
  first, second = data.load(choice), data.load(choice)
  np.testing.assert_array_equal(first.ids, second.ids)
  assert first.digest == second.digest
  if "in_memory" in inspect.signature(SOURCES.find(choice.name)).parameters:
    streamed = SOURCES.choose(choice.name, {**choice.options, "in_memory": False})
    assert data.load(streamed).digest == first.digest
