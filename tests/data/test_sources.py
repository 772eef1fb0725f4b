"""Data sources: what they give, and what missing or damaged files say."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffence_jax import data
from diffence_jax.data import idx, make_dataset


def random_images(num, *shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (num, *shape)).astype(np.uint8)


def test_digits():
  dataset = data.load("digits")
  assert dataset.images.shape == (1797, 8, 8, 1) and dataset.images.dtype == np.uint8
  assert (dataset.images.min(), dataset.images.max()) == (0, 255)
  assert dataset.num_classes == 10
  np.testing.assert_array_equal(dataset.ids, np.arange(1797))


# IDX.


def idx_bytes(array):
  return (
    bytes([0, 0, 8, array.ndim])
    + struct.pack(f">{array.ndim}I", *array.shape)
    + array.tobytes()
  )


def write_idx(folder, zipped=False):
  images, labels = random_images(8, 5, 4), (np.arange(8) % 3).astype(np.uint8)
  for (image_name, label_name), rows in zip(
    idx._FILES, (slice(0, 5), slice(5, 8)), strict=True
  ):
    for name, array in ((image_name, images[rows]), (label_name, labels[rows])):
      content = idx_bytes(array)
      path = folder / (f"{name}.gz" if zipped else name)
      path.write_bytes(gzip.compress(content) if zipped else content)
  return images, labels


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files(tmp_path, zipped):
  images, labels = write_idx(tmp_path, zipped)
  dataset = data.load("idx", path=str(tmp_path))
  np.testing.assert_array_equal(dataset.images[..., 0], images)
  np.testing.assert_array_equal(dataset.labels, labels)
  np.testing.assert_array_equal(dataset.part, [0] * 5 + [1] * 3)


def test_missing_idx_files_name_the_package(tmp_path):
  with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
    data.load("idx", path=str(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "magic", "gzip", "counts"])
def test_damaged_idx_files_are_named(tmp_path, damage):
  write_idx(tmp_path, zipped=damage == "gzip")
  name = idx._FILES[0][0]
  path = tmp_path / (f"{name}.gz" if damage == "gzip" else name)
  content = path.read_bytes()
  path.write_bytes(
    {
      "cut": content[:-1],
      "magic": b"\x00\x00\x09\x03" + content[4:],
      "gzip": content[: len(content) // 2],
      "counts": idx_bytes(random_images(4, 5, 4)),
    }[damage]
  )
  with pytest.raises(ValueError, match=name):
    data.load("idx", path=str(tmp_path))


@pytest.mark.skipif(
  not Path(idx.FASHION_MNIST).is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_fashion_mnist():
  dataset = data.load("idx")
  assert dataset.images.shape == (70_000, 28, 28, 1) and dataset.part.sum() == 10_000
  np.testing.assert_array_equal(np.bincount(dataset.labels), [7000] * 10)


# NumPy archives.


def test_npz(tmp_path):
  images, labels, ids = random_images(6, 4, 4, 3), np.arange(6) % 2, np.arange(6) * 10
  path = tmp_path / "a.npz"
  np.savez(path, images=images, labels=labels, ids=ids, part=np.arange(6) > 3)
  dataset = data.load("npz", path=str(path))
  np.testing.assert_array_equal(dataset.images, images)
  np.testing.assert_array_equal(dataset.ids, ids)
  assert dataset.part.sum() == 2 and dataset.num_classes == 2


class Bomb:
  """Leaves a file behind where it is unpickled."""

  def __reduce__(self):
    return (open, ("bomb-went-off", "w"))


@pytest.mark.parametrize(
  "arrays, match",
  [
    ({"images": random_images(2, 4, 4)}, "no array 'labels'"),
    ({"images": random_images(2, 4, 4), "labels": np.arange(3)}, "labels are"),
    ({"images": random_images(2, 4, 4) / 255, "labels": np.arange(2)}, "expected uint8"),
    ({"images": random_images(2, 4, 4), "labels": np.zeros(2)}, "expected integers"),
    ({"images": random_images(2, 4, 4), "labels": np.array([1, -1])}, "labels range"),
    ({"images": random_images(2, 4, 4), "labels": np.arange(2), "ids": [1, 1]}, "not unique"),
    (
      {"images": random_images(2, 4, 4), "labels": np.arange(2), "ids": [1, 2**31]},
      "ids range",
    ),
    ({"images": np.array([Bomb()]), "labels": np.arange(1)}, "plain arrays"),
  ],
)
def test_archives_that_are_not_right_are_refused(tmp_path, monkeypatch, arrays, match):
  monkeypatch.chdir(tmp_path)
  np.savez("a.npz", **arrays)
  with pytest.raises(ValueError, match=match):
    data.load("npz", path="a.npz")
  assert not Path("bomb-went-off").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not an archive"])
def test_damaged_archives_are_refused(tmp_path, content):
  (tmp_path / "a.npz").write_bytes(content)
  with pytest.raises(ValueError, match=r"cannot be read as an .npz"):
    data.load("npz", path=str(tmp_path / "a.npz"))


# Folders of images.


def write_folder(root, mode="RGB", size=(6, 5)):
  shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
  for label, name in enumerate(["ant", "bee"]):
    (root / name).mkdir(parents=True)
    for i in range(3):
      Image.fromarray(random_images(1, *shape, seed=10 * label + i)[0]).save(
        root / name / f"{i}.png"
      )


@pytest.mark.parametrize("mode, channels", [("RGB", 3), ("L", 1)])
def test_folder(tmp_path, mode, channels):
  write_folder(tmp_path, mode)
  dataset = data.load("folder", path=str(tmp_path))
  assert dataset.images.shape == (6, 5, 6, channels)
  np.testing.assert_array_equal(dataset.labels, [0, 0, 0, 1, 1, 1])
  expected = random_images(1, 5, 6, *((3,) if mode == "RGB" else ()), seed=11)[0]
  np.testing.assert_array_equal(dataset.images[4].squeeze(), expected)


def test_a_new_file_changes_no_other_id(tmp_path):
  write_folder(tmp_path)
  before = data.load("folder", path=str(tmp_path))
  Image.fromarray(random_images(1, 5, 6, 3)[0]).save(tmp_path / "ant" / "00.png")
  after = data.load("folder", path=str(tmp_path))
  assert len(after.ids) == 7 and set(before.ids) < set(after.ids)
  np.testing.assert_array_equal(after.take(before.ids).images, before.images)


def test_images_of_many_sizes_are_scaled_when_asked(tmp_path):
  write_folder(tmp_path)
  Image.fromarray(random_images(1, 12, 9, 3)[0]).save(tmp_path / "bee" / "big.png")
  with pytest.raises(ValueError, match=r"set data.options.image_size"):
    data.load("folder", path=str(tmp_path))
  assert data.load("folder", path=str(tmp_path), image_size=4).images.shape == (7, 4, 4, 3)


def test_folders_that_are_not_right_say_so(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no folder"):
    data.load("folder", path=str(tmp_path / "nowhere"))
  with pytest.raises(FileNotFoundError, match=r"no images"):
    data.load("folder", path=str(tmp_path))
  write_folder(tmp_path)
  (tmp_path / "ant" / "1.png").write_bytes(b"not a png")
  with pytest.raises(ValueError, match=r"1.png cannot be read"):
    data.load("folder", path=str(tmp_path))


# The registry, and what all datasets can do.


@pytest.mark.parametrize(
  "source, options, match",
  [
    ("digit", {}, "no data source 'digit'; did you mean 'digits'"),
    ("npz", {"pth": "a"}, "no option 'pth'; did you mean 'path'"),
    ("npz", {}, "needs the option data.options.path"),
    ("digits", {"path": "a"}, "it takes none"),
  ],
)
def test_what_a_source_does_not_know_is_named(source, options, match):
  with pytest.raises(ValueError, match=match):
    data.load(source, **options)


def test_samples_are_taken_by_id():
  images = random_images(5, 2, 2)
  dataset = make_dataset(images, np.array([0, 1, 0, 1, 1]), ids=np.array([9, 2, 7, 4, 0]))
  np.testing.assert_array_equal(dataset.take([4, 9]).images[..., 0], images[[3, 0]])
  with pytest.raises(ValueError, match="2 ids are not in the dataset, 3 among them"):
    dataset.take([9, 3, 100])


def test_the_digest_is_of_the_content_not_of_the_order():
  images, labels, ids = random_images(5, 2, 2), np.arange(5) % 2, np.arange(5)
  order = np.array([3, 1, 4, 0, 2])
  first = make_dataset(images, labels, ids).digest()
  assert first == make_dataset(images[order], labels[order], ids[order]).digest()
  changed = images.copy()
  changed[2, 0, 0] ^= 1
  assert first != make_dataset(changed, labels, ids).digest()
  assert first != make_dataset(images, labels, ids + 1).digest()
