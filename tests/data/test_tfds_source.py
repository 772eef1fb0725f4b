"""TFDS without TensorFlow, on datasets that are built on disk here."""

import io
import json
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from diffence_jax import data
from diffence_jax.data import memory

NUM = {"train": 12, "test": 5}


def image(split, i):
  return np.random.default_rng([NUM[split], i]).integers(0, 256, (6, 6, 3)).astype(np.uint8)


def encoded(array):
  """A PNG file in memory: TFDS encodes arrays with TensorFlow, files it copies."""
  file = io.BytesIO()
  Image.fromarray(array).save(file, "PNG")
  file.seek(0)
  return file


def build(folder, with_id, in_order=False):
  """Prepares a small dataset in array_record; TFDS hashes the order on disk, or not."""

  class TinyImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Six by six."""

    VERSION = tfds.core.Version("1.0.0")
    name = ("tiny_with_id" if with_id else "tiny") + "_in_order" * in_order

    def _info(self):
      features = {
        "image": tfds.features.Image(shape=(6, 6, 3)),
        "label": tfds.features.ClassLabel(num_classes=3),
      }
      if with_id:
        features["id"] = tfds.features.Text()
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=in_order,
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {split: self._generate_examples(split) for split in NUM}

    def _generate_examples(self, split):
      for i in range(NUM[split]):
        example = {"image": encoded(image(split, i)), "label": i % 3}
        if with_id:
          example["id"] = f"{split}_{i:05d}"
        yield (i if in_order else f"{split}{i}"), example

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


def test_an_index_file_names_images_by_their_original_order(folder, tmp_path):
  """Whatever their order on disk, as the reference's partition of CIFAR-10 does."""
  groups = {"members": [7, 2, 11, 0], "nonmembers": [16, 12, 13, 15], "reference": [5, 3]}
  index_file = tmp_path / "split.json"
  index_file.write_text(json.dumps(groups))
  originals = [(split, i) for split in NUM for i in range(NUM[split])]
  orders, splits = [], []
  in_order = build(tmp_path, with_id=True, in_order=True)
  for name, data_dir in (("tiny_with_id", folder), (in_order, str(tmp_path))):
    dataset = data.load("tfds", name=name, data_dir=data_dir)
    split = data.read_index_file(index_file, dataset)
    for side in groups:
      ids = getattr(split, side)
      assert set(ids) == set(groups[side])
      samples = dataset.take(ids)
      np.testing.assert_array_equal(samples.images, [image(*originals[i]) for i in ids])
      np.testing.assert_array_equal(samples.labels, [originals[i][1] % 3 for i in ids])
      np.testing.assert_array_equal(samples.part, [originals[i][0] == "test" for i in ids])
    orders.append(dataset.ids)
    splits.append(split.groups())
  assert not np.array_equal(*orders)
  for name in splits[0]:
    np.testing.assert_array_equal(splits[0][name], splits[1][name])


@pytest.mark.parametrize("name", ["tiny_with_id", "tiny"])
def test_images_on_disk_are_those_in_memory(folder, name):
  memory = data.load("tfds", name=name, data_dir=folder)
  disk = data.load("tfds", name=name, data_dir=folder, in_memory=False)
  assert isinstance(disk.images, data.StreamedImages)
  assert disk.digest == memory.digest
  ids = memory.ids[[16, 3, 3, 12]]
  np.testing.assert_array_equal(disk.take(ids[:2]).images, memory.take(ids[:2]).images)
  rows = [16, 3, 3, 12]
  np.testing.assert_array_equal(disk.images[rows], memory.images[rows])


def test_without_ids_the_position_on_disk_is_used(folder):
  dataset = data.load("tfds", name="tiny", data_dir=folder)
  np.testing.assert_array_equal(dataset.ids, np.arange(17))
  assert sorted(map(bytes, dataset.images[:12])) == sorted(
    bytes(image("train", i)) for i in range(12)
  )


def test_tensorflow_is_not_needed(folder):
  data.load("tfds", name="tiny", data_dir=folder, test_split=None)
  assert "tensorflow" not in sys.modules


def test_stock_cifar10_is_read(tmp_path):
  # TFDS's own builder and layout; only the source of the examples is replaced.
  builder = tfds.builder(
    "cifar10", data_dir=str(tmp_path), file_format="array_record", try_gcs=False
  )

  def examples(split):
    for i in range(NUM[split]):
      array = np.resize(image(split, i), (32, 32, 3))
      name = f"{split}_{i:05d}"
      yield name, {"id": name, "image": encoded(array), "label": i % 10}

  builder._split_generators = lambda _: {split: examples(split) for split in NUM}
  builder.download_and_prepare()
  dataset = data.load("tfds", name="cifar10", data_dir=str(tmp_path))
  assert dataset.images.shape == (17, 32, 32, 3) and dataset.num_classes == 10
  ordered = dataset.take(np.arange(17))
  np.testing.assert_array_equal(ordered.labels, [i % 10 for n in (12, 5) for i in range(n)])
  np.testing.assert_array_equal(ordered.images[13], np.resize(image("test", 1), (32, 32, 3)))


@pytest.fixture
def copy(folder, tmp_path):
  """A copy of one dataset, to damage."""
  shutil.copytree(Path(folder) / "tiny", tmp_path / "tiny")
  return tmp_path


def test_a_format_that_only_tensorflow_reads_says_what_to_do(copy):
  (path,) = copy.rglob("dataset_info.json")
  path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
  with pytest.raises(FileNotFoundError, match="as tfrecord, which only TensorFlow") as error:
    data.load("tfds", name="tiny", data_dir=str(copy))
  # Where it is, TFDS would refuse: the command must name another place.
  assert f"data_dir={str(copy)!r}" not in str(error.value)
  with pytest.raises(ValueError, match=r"already set|does not match"):
    tfds.builder("tiny", data_dir=str(copy), file_format="array_record")


@pytest.mark.parametrize("damage", ["flipped", "missing", "info"])
def test_damaged_files_are_named(copy, damage):
  (path,) = copy.rglob("dataset_info.json" if damage == "info" else "*train.array_record*")
  if damage == "missing":
    path.unlink()
  elif damage == "info":
    path.write_text("{")
  else:
    content = bytearray(path.read_bytes())
    content[300:400] = bytes(100)
    path.write_bytes(content)
  with pytest.raises(ValueError, match="cannot be opened" if damage == "info" else "damaged"):
    data.load("tfds", name="tiny", data_dir=str(copy))


@pytest.mark.parametrize("name", ["cifar10", "no_such_dataset"])
def test_a_dataset_that_is_not_prepared_says_how_to(tmp_path, monkeypatch, name):
  def no_network(*args, **kwargs):
    raise AssertionError(f"network access: {args}")

  monkeypatch.setattr(socket.socket, "connect", no_network)
  monkeypatch.setattr(socket, "getaddrinfo", no_network)
  with pytest.raises(FileNotFoundError, match=r"-e '\.\[tfds\]'") as error:
    data.load("tfds", name=name, data_dir=str(tmp_path))
  assert "file_format='array_record'" in str(error.value) and name in str(error.value)


def test_a_split_that_is_not_there_is_named(folder):
  with pytest.raises(ValueError, match="no split 'validation'; it has test, train"):
    data.load("tfds", name="tiny", data_dir=folder, test_split="validation")


def test_images_that_do_not_fit_into_memory_are_refused(folder, monkeypatch):
  monkeypatch.setattr(memory, "memory_size", lambda: 100)
  with pytest.raises(ValueError, match=r"images of tiny take .*data\.options\.in_memory=False"):
    data.load("tfds", name="tiny", data_dir=folder)
  assert len(data.load("tfds", name="tiny", data_dir=folder, in_memory=False).ids) == 17
