"""Data sources: what they give, and what missing or damaged files say."""

import gzip
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from diffence_jax import data
from diffence_jax.data import idx, make_dataset, memory


def random_images(num, *shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (num, *shape)).astype(np.uint8)


def test_digits():
  dataset = data.load("digits")
  assert dataset.images.shape == (1797, 8, 8, 1) and dataset.images.dtype == np.uint8
  # The file's gray levels, 0 to 16, to the nearest of 0 to 255.
  levels = sklearn.datasets.load_digits().images[..., None]
  np.testing.assert_allclose(dataset.images, levels * 15.9375, atol=0.5)
  assert dataset.num_classes == 10 and not dataset.part.any()
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


@pytest.mark.parametrize("damage", ["cut", "magic", "gzip", "counts", "size"])
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
      "size": idx_bytes(random_images(5, 4, 5)),
    }[damage]
  )
  with pytest.raises(ValueError, match=name):
    data.load("idx", path=str(tmp_path))


def test_no_more_of_an_idx_file_is_read_than_it_announces(tmp_path, monkeypatch):
  write_idx(tmp_path, zipped=True)
  path = tmp_path / f"{idx._FILES[0][0]}.gz"
  path.write_bytes(gzip.compress(idx_bytes(random_images(5, 5, 4)) + bytes(10**7)))
  with pytest.raises(ValueError, match=r"is damaged: more bytes for the shape \[5, 5, 4\]"):
    data.load("idx", path=str(tmp_path))
  header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**31, 2**31)
  path.write_bytes(gzip.compress(header + bytes(100)))
  with pytest.raises(ValueError, match=r"announces take .* GB of memory; it is damaged"):
    data.load("idx", path=str(tmp_path))


def test_idx_labels_that_do_not_begin_at_0_are_renumbered_on_request(tmp_path):
  _, labels = write_idx(tmp_path)
  for (_, name), rows in zip(idx._FILES, (slice(0, 5), slice(5, 8)), strict=True):
    (tmp_path / name).write_bytes(idx_bytes(labels[rows] + np.uint8(1)))
  with pytest.raises(ValueError, match=r"labels range from 1 to 3, .*renumber=True"):
    data.load("idx", path=str(tmp_path))
  dataset = data.load("idx", path=str(tmp_path), renumber=True)
  np.testing.assert_array_equal(dataset.labels, labels)


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
  np.testing.assert_array_equal(dataset.part, [0, 0, 0, 0, 1, 1])
  assert dataset.num_classes == 2
  assert [a.dtype for a in (dataset.labels, dataset.ids, dataset.part)] == ["i4", "i8", "i1"]


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
    ({"images": np.uint8(1), "labels": np.arange(2)}, r"images are uint8\[\]"),
    ({"images": random_images(2, 4, 4), "labels": np.array(["a", "b"])}, "labels are <U1"),
    ({"images": random_images(2, 4, 4), "labels": np.array([0, 2**32])}, "no sample has 1;"),
    (
      {"images": random_images(2, 4, 4), "labels": np.array([[0], [1]])},
      r"labels are .*\[2, 1",
    ),
    (
      {"images": random_images(9, 3, 16, 16), "labels": np.arange(9)},
      "looks like [13] channels on axis 1",
    ),
    (
      {"images": random_images(9, 1, 28, 28), "labels": np.arange(9)},
      "looks like [13] channels on axis 1",
    ),
    (
      {"images": random_images(10, 4, 4), "labels": np.arange(1, 11)},
      "no sample has 0; .*renum",
    ),
    ({"images": random_images(2, 4, 4), "labels": np.array([0, 1449764])}, "no sample has 1; "),
    (
      {"images": random_images(2, 4, 4), "labels": np.array([0, 2])},
      "no sample has 1; .*num_cl",
    ),
    ({"images": random_images(2, 4, 4), "labels": np.arange(2), "part": [0, 256]}, "part ra"),
    ({"images": random_images(2, 4, 4), "labels": np.arange(2), "part": [0, 0.5]}, "part are"),
    ({"images": np.array([Bomb()]), "labels": np.arange(1)}, "plain arrays"),
  ],
)
def test_archives_that_are_not_right_are_refused(tmp_path, monkeypatch, arrays, match):
  monkeypatch.chdir(tmp_path)
  np.savez("a.npz", **arrays)
  with pytest.raises(ValueError, match=match):
    data.load("npz", path="a.npz")
  assert not Path("bomb-went-off").exists()


def test_labels_that_are_any_numbers_are_renumbered_on_request(tmp_path):
  images, numbers = random_images(6, 4, 4), np.array([-1, 40, 2, 40, 2, -1])
  np.savez(tmp_path / "a.npz", images=images, labels=numbers)
  dataset = data.load("npz", path=str(tmp_path / "a.npz"), renumber=True)
  np.testing.assert_array_equal(dataset.labels, [0, 2, 1, 2, 1, 0])
  assert dataset.num_classes == 3


def test_classes_without_a_sample_are_kept_on_request_and_told(tmp_path):
  np.savez(tmp_path / "a.npz", images=random_images(5, 4, 4), labels=[0, 3, 3, 3, 0])
  dataset = data.load("npz", path=str(tmp_path / "a.npz"), num_classes=10)
  assert dataset.num_classes == 10
  assert "10 classes, of 2 images (class 0) to 3 (class 3)" in dataset.describe()
  assert "8 classes without an image, 1 the first" in dataset.describe()
  with pytest.raises(ValueError, match="num_classes is -1; expected a whole number, 2"):
    data.load("npz", path=str(tmp_path / "a.npz"), num_classes=-1)


@pytest.mark.parametrize("in_memory", [True, False])
def test_channels_first_is_a_layout(tmp_path, in_memory):
  images, labels = random_images(7, 3, 6, 5), np.arange(7) % 2
  np.save(tmp_path / "images.npy", images)
  np.save(tmp_path / "labels.npy", labels)
  options = {"path": str(tmp_path), "in_memory": in_memory}
  with pytest.raises(ValueError, match=r"3 channels on axis 1; .* data\.options\.layout"):
    data.load("npz", **options)
  dataset = data.load("npz", layout="channels_first", **options)
  expected = data.make_dataset(np.moveaxis(images, 1, -1), labels)
  np.testing.assert_array_equal(dataset.images, expected.images)
  assert dataset.digest == expected.digest
  np.save(tmp_path / "images.npy", np.moveaxis(random_images(7, 3, 6, 5), 1, -1))
  with pytest.raises(ValueError, match="looks like 3 channels on axis 2"):
    data.load("npz", layout="channels_first", **options)
  with pytest.raises(ValueError, match=r"data.options.layout is 'chw'; expected one of"):
    data.load("npz", layout="chw", **options)


def test_sizes_are_looked_at_before_arrays_are_read(tmp_path, monkeypatch):
  path = tmp_path / "a.npz"
  np.savez_compressed(path, images=np.zeros((200, 50, 50), np.uint8), labels=np.arange(200) % 2)
  # Of wrong kinds, and many times the size of what there is: neither is read.
  read = np.lib.format.read_array
  monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was read"))
  monkeypatch.setattr(memory, "memory_size", lambda: 400_000)
  with pytest.raises(ValueError, match=r"a.npz take 0.0 GB, .*in_memory=False"):
    data.load("npz", path=str(path))
  np.savez_compressed(path, images=np.zeros((200, 50, 50)), labels=np.arange(200) % 2)
  with pytest.raises(ValueError, match=r"images are float64\[200, 50, 50, 1\]"):
    data.load("npz", path=str(path))
  # What is no part of the data set is left alone, and told.
  monkeypatch.setattr(np.lib.format, "read_array", read)
  arrays = {"images": random_images(2, 4, 4), "labels": np.arange(2)}
  np.savez_compressed(path, **arrays, features=np.zeros(10**6))
  assert "other arrays are left out: features" in data.load("npz", path=str(path)).describe()


def test_pickles_are_refused_in_our_words(tmp_path):
  labels = np.array([0, "one"], object)
  np.savez(tmp_path / "a.npz", images=random_images(2, 4, 4), labels=labels)
  np.save(tmp_path / "images.npy", random_images(2, 4, 4))
  np.save(tmp_path / "labels.npy", labels)
  (tmp_path / "b.npz").write_bytes(b"\x80\x04N.")
  for path in ("a.npz", "", "b.npz"):
    with pytest.raises(ValueError, match=r"plain arrays|one array|not a zip") as error:
      data.load("npz", path=str(tmp_path / path))
    assert "allow_pickle" not in str(error.value)


@pytest.mark.parametrize(
  "shape, content, match",
  [
    (b"(2, 4, 4)", 31, "images has 31 bytes for its shape"),
    (b"(2, 1000, 1000)", 32, "images has 32 bytes for its shape"),
    (b"(2, 10000000000, 1000)", 32, "GB of memory"),
    (b"(2, 10000000000000, 10000000000000)", 32, "a header says that the shape is"),
    (b"(2, -4, 4)", 32, "a header says that the shape is"),
    (b"(" * 5000, 32, "a header is damaged"),
    (b"__import__('os').system('touch bomb-went-off')", 32, "cannot be read as an .npz"),
  ],
)
def test_headers_that_lie_are_refused(tmp_path, monkeypatch, shape, content, match):
  monkeypatch.chdir(tmp_path)
  np.save("labels.npy", np.arange(2))
  header = b"{'descr': '|u1', 'fortran_order': False, 'shape': " + shape + b"}\n"
  start = np.lib.format.magic(1, 0) + struct.pack("<H", len(header)) + header
  with zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("images.npy", start + bytes(content))
    archive.write("labels.npy")
  with pytest.raises(ValueError, match=match):
    data.load("npz", path="a.npz")
  assert not Path("bomb-went-off").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_never_waited_for(tmp_path):
  os.mkfifo(tmp_path / "a.npz")
  with pytest.raises(ValueError, match=r"a\.npz is no regular file; set data.options.path"):
    data.load("npz", path=str(tmp_path / "a.npz"))
  os.mkfifo(tmp_path / "images.npy")
  with pytest.raises(ValueError, match=r"images\.npy cannot be read .* no regular file"):
    data.load("npz", path=str(tmp_path))
  os.mkfifo(tmp_path / idx._FILES[0][0])
  with pytest.raises(FileNotFoundError, match="is a file"):
    data.load("idx", path=str(tmp_path))


@pytest.mark.parametrize(
  "source, options",
  [
    ("folder", {"path": 5}),
    ("folder", {"path": "a", "image_size": "x"}),
    ("folder", {"path": "a", "in_memory": "False"}),
    ("npz", {"path": "a", "num_classes": 2.5}),
    ("photographs", {"tile": "x"}),
    ("tfds", {"name": "a", "data_dir": 5}),
  ],
)
def test_options_of_a_wrong_type_are_named(source, options):
  name = list(options)[-1]
  with pytest.raises(ValueError, match=rf"^data\.options\.{name} is .*; expected "):
    data.load(source, **options)


def test_home_is_found_in_paths(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  np.savez(tmp_path / "a.npz", images=random_images(2, 4, 4), labels=np.arange(2))
  assert len(data.load("npz", path="~/a.npz").ids) == 2
  assert len(data.load("npz", path=tmp_path / "a.npz").ids) == 2
  with pytest.raises(FileNotFoundError, match=rf"no folder {tmp_path}/none;"):
    data.load("folder", path="~/none")


def test_whatever_is_damaged_in_an_archive_is_refused_or_changes_nothing(tmp_path):
  path, rng = tmp_path / "a.npz", np.random.default_rng(0)
  images, labels = random_images(20, 4, 4) // 64, np.arange(20) % 2
  np.savez_compressed(path, images=images, labels=labels)
  good, refused = path.read_bytes(), 0
  for _ in range(300):
    content = bytearray(good)
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    try:
      dataset = data.load("npz", path=str(path))
    except ValueError:
      refused += 1
    else:
      np.testing.assert_array_equal(dataset.images[..., 0], images)
      np.testing.assert_array_equal(dataset.labels, labels)
  assert refused > 100


def test_a_single_array_is_not_an_archive(tmp_path):
  np.save(tmp_path / "a.npy", random_images(2, 4, 4))
  with pytest.raises(ValueError, match="it is a single array"):
    data.load("npz", path=str(tmp_path / "a.npy"))
  with pytest.raises(FileNotFoundError, match="no file"):
    data.load("npz", path=str(tmp_path / "nowhere.npz"))


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
  with pytest.raises(ValueError, match="image_size is 0"):
    data.load("folder", path=str(tmp_path), image_size=0)


def test_scaling_keeps_the_middle_and_averages(tmp_path):
  # 8 wide, 4 high: the middle 4 columns are a checkerboard, the outer ones black.
  image = np.zeros((4, 8), np.uint8)
  image[:, 2:6] = 200 * (np.indices((4, 4)).sum(0) % 2)
  for name in ("ant", "bee"):
    (tmp_path / name).mkdir()
    Image.fromarray(image).save(tmp_path / name / "0.png")
  same = data.load("folder", path=str(tmp_path), image_size=4)
  np.testing.assert_array_equal(same.images[0, ..., 0], image[:, 2:6])
  # Without antialiasing a pixel would stay 0 or 200.
  half = data.load("folder", path=str(tmp_path), image_size=2)
  assert np.all(np.abs(half.images.astype(int) - 100) < 40)


def test_one_colour_image_makes_all_colour(tmp_path):
  write_folder(tmp_path, "L")
  Image.fromarray(random_images(1, 5, 6, 3)[0]).save(tmp_path / "bee" / "colour.png")
  dataset = data.load("folder", path=str(tmp_path))
  assert dataset.images.shape == (7, 5, 6, 3)
  gray = random_images(1, 5, 6, seed=0)[0]
  np.testing.assert_array_equal(dataset.images[0], np.repeat(gray[..., None], 3, -1))


def test_sixteen_bits_are_refused_not_cut_off(tmp_path):
  write_folder(tmp_path, "L")
  Image.fromarray(np.full((5, 6), 300, np.uint16)).save(tmp_path / "bee" / "deep.png")
  with pytest.raises(ValueError, match=r"deep.png is gray with more than 8 bits"):
    data.load("folder", path=str(tmp_path))


def test_hidden_files_and_folders_are_passed_over(tmp_path):
  write_folder(tmp_path)
  before = data.load("folder", path=str(tmp_path))
  for hidden in (".ipynb_checkpoints", "ant/.thumbs"):
    (tmp_path / hidden).mkdir()
    (tmp_path / hidden / "0.png").write_bytes((tmp_path / "ant" / "0.png").read_bytes())
  (tmp_path / "bee" / "._0.png").write_bytes(b"a resource fork")
  assert data.load("folder", path=str(tmp_path)).digest == before.digest


def test_two_files_with_one_checksum_get_different_ids(tmp_path):
  # Found by search among random names: checksums of 32 bits, the highest dropped.
  seen, rng = {}, np.random.default_rng(0)
  while True:
    name = f"ant/{rng.bytes(8).hex()}.png"
    other = seen.setdefault(zlib.crc32(name.encode()) & (2**31 - 1), name)
    if other != name:
      break
  write_folder(tmp_path)
  before = data.load("folder", path=str(tmp_path))
  for clash in (name, other):
    (tmp_path / clash).write_bytes((tmp_path / "ant" / "0.png").read_bytes())
  after = data.load("folder", path=str(tmp_path))
  assert len(np.unique(after.ids)) == len(after.ids) == 8
  assert set(before.ids) < set(after.ids)
  assert zlib.crc32(name.encode()) & (2**31 - 1) in after.ids
  np.testing.assert_array_equal(data.load("folder", path=str(tmp_path)).ids, after.ids)


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
  with pytest.raises(ValueError, match=r"ids are float64\[2\]; expected integers"):
    dataset.take([9, 7.5])


def test_the_digest_is_of_the_content_not_of_the_order():
  images, labels, ids = random_images(5, 2, 2), np.arange(5) % 2, np.arange(5)
  order = np.array([3, 1, 4, 0, 2])
  first = make_dataset(images, labels, ids).digest
  assert first == make_dataset(images[order], labels[order], ids[order]).digest
  changed = images.copy()
  changed[2, 0, 0] ^= 1
  assert first != make_dataset(changed, labels, ids).digest
  assert first != make_dataset(images, labels, ids + 1).digest
