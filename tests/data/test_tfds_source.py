"""TFDS without TensorFlow, on datasets that are built on disk here."""

import io
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from diffence_jax import data

NUM = {"train": 12, "test": 5}


def image(split, i):
  return np.random.default_rng([NUM[split], i]).integers(0, 256, (6, 6, 3)).astype(np.uint8)


def encoded(array):
  """A PNG file in memory: TFDS encodes arrays with TensorFlow, files it copies."""
  file = io.BytesIO()
  Image.fromarray(array).save(file, "PNG")
  file.seek(0)
  return file


def build(folder, with_id):
  """Prepares a small dataset in array_record; TFDS hashes the order on disk."""

  class TinyImages(tfds.core.GeneratorBasedBuilder):
    """Six by six."""

    VERSION = tfds.core.Version("1.0.0")
    name = "tiny_with_id" if with_id else "tiny"

    def _info(self):
      features = {
        "image": tfds.features.Image(shape=(6, 6, 3)),
        "label": tfds.features.ClassLabel(num_classes=3),
      }
      if with_id:
        features["id"] = tfds.features.Text()
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      del dl_manager
      return {split: self._generate_examples(split) for split in NUM}

    def _generate_examples(self, split):
      for i in range(NUM[split]):
        example = {"image": encoded(image(split, i)), "label": i % 3}
        if with_id:
          example["id"] = f"{split}_{i:05d}"
        yield f"{split}{i}", example

  builder = TinyImages(data_dir=str(folder), file_format="array_record")
  builder.download_and_prepare()
  return builder.name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tfds")
  for with_id in (True, False):
    build(folder, with_id)
  return str(folder)


def test_ids_carry_the_original_order(folder):
  dataset = data.load("tfds", name="tiny_with_id", data_dir=folder)
  assert dataset.images.shape == (17, 6, 6, 3) and dataset.num_classes == 3
  assert not np.array_equal(dataset.ids, np.sort(dataset.ids))
  ordered = dataset.take(np.arange(17))
  expected = [image(split, i) for split in NUM for i in range(NUM[split])]
  np.testing.assert_array_equal(ordered.images, expected)
  np.testing.assert_array_equal(ordered.labels, [i % 3 for n in NUM.values() for i in range(n)])
  np.testing.assert_array_equal(ordered.part, [0] * 12 + [1] * 5)


def test_without_ids_the_position_on_disk_is_used(folder):
  dataset = data.load("tfds", name="tiny", data_dir=folder)
  np.testing.assert_array_equal(dataset.ids, np.arange(17))
  assert sorted(map(bytes, dataset.images[:12])) == sorted(
    bytes(image("train", i)) for i in range(12)
  )


def test_tensorflow_is_not_needed(folder):
  data.load("tfds", name="tiny", data_dir=folder, test_split=None)
  assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("name", ["cifar10", "no_such_dataset"])
def test_a_dataset_that_is_not_prepared_says_how_to(tmp_path, name):
  with pytest.raises(FileNotFoundError, match=r"diffence_jax\[tfds\]") as error:
    data.load("tfds", name=name, data_dir=str(tmp_path))
  assert "file_format='array_record'" in str(error.value) and name in str(error.value)


def test_a_split_that_is_not_there_is_named(folder):
  with pytest.raises(ValueError, match="no split 'validation'; it has test, train"):
    data.load("tfds", name="tiny", data_dir=folder, test_split="validation")
