"""Folders of images as people have them: odd names, links, parts, large and turned images."""

import os

import numpy as np
import pytest
from PIL import Image

from diffence_jax import data
from diffence_jax.data import image_files, image_pixels, memory


def draw(seed, size=(6, 5), mode="RGB"):
  shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
  return Image.fromarray(
    np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8), mode
  )


def write(root, *names, size=(6, 5), mode="RGB"):
  """Images of these names, each with content of its own."""
  for seed, name in enumerate(names):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    draw(seed, size, mode).save(root / name)
  return str(root)


@pytest.fixture
def folder(tmp_path):
  write(tmp_path, "ant/0.png", "ant/1.png", "bee/0.png")
  return tmp_path


def load(root, **options):
  return data.load("folder", path=str(root), **options)


@pytest.mark.parametrize("ending", ["pgm", "jfif", "PNM", "bmp", "tga", "jp2", "webp"])
def test_all_endings_that_pillow_reads_are_images(folder, ending):
  before = load(folder)
  image = draw(9, mode="L") if ending.lower() in ("pgm", "pnm") else draw(9)
  image.save(folder / "bee" / f"9.{ending}")
  after = load(folder)
  assert len(after.ids) == 4 and set(before.ids) < set(after.ids)


def test_no_other_program_is_started_for_an_image(folder):
  assert not {".eps", ".ps", ".h5", ".mpg", ".wmf", ".pdf"} & set(image_files.image_endings())
  (folder / "bee" / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 5\n")
  with pytest.raises(ValueError, match=r"bee/1\.png cannot be read as an image"):
    load(folder)


def test_what_no_person_put_there_is_passed_over(folder):
  before = load(folder)
  for name in (
    "@eaDir/0.png",
    "__MACOSX/0.png",
    ".cache/0.png",
    "ant/@eaDir/0.png",
    "ant/._1.png",
  ):
    write(folder, name)
  for name in ("Thumbs.db", "bee/Thumbs.db", "bee/.DS_Store", "desktop.ini"):
    (folder / name).write_bytes(b"none")
  after = load(folder)
  assert after.digest == before.digest and not after.notes


def test_what_is_left_out_is_told(folder):
  assert "left out" not in load(folder).describe()
  write(folder, "loose.png")
  (folder / "bee" / "notes.txt").write_text("of bees")
  (folder / "bee" / "more.csv").write_text("of bees")
  told = load(folder).describe()
  assert f"1 files in no class folder left out, such as {folder}/loose.png" in told
  assert f"2 files without an image's ending left out, such as {folder}/bee/more.csv" in told
  assert told.startswith(
    "3 images, 5 high and 6 wide, 3 channels; 2 classes, of 1 images (class 1"
  )


def test_a_class_without_images_is_named(folder):
  (folder / "cat").mkdir()
  with pytest.raises(ValueError, match=r"class folder .*/cat has no images; remove it"):
    load(folder)


def test_folders_that_are_named_like_images_are_folders(folder):
  write(folder, "bee/x.png/1.png")
  assert len(load(folder).ids) == 4
  write(folder, "cat.jpg/1.png")
  assert load(folder).num_classes == 3


def test_links_are_followed_and_never_in_circles(folder, tmp_path_factory):
  outside = tmp_path_factory.mktemp("outside")
  write(outside, "a/0.png", "a/1.png", "b/0.png", "2.png")
  (folder / "ant" / "more").symlink_to(outside / "a")
  (folder / "ant" / "2.png").symlink_to(outside / "2.png")
  (folder / "cat").symlink_to(outside / "b")
  dataset = load(folder)
  np.testing.assert_array_equal(np.bincount(dataset.labels), [5, 1, 1])
  # Circles, and a folder that is there by two ways, change nothing.
  (outside / "a" / "up").symlink_to(outside)
  (outside / "2.png").rename(outside / "a" / "2.png")
  (folder / "ant" / "2.png").unlink()
  (folder / "ant" / "self").symlink_to(folder / "ant")
  (folder / "bee" / "self").symlink_to(".")
  (outside / "a" / "up").unlink()
  again = load(folder)
  np.testing.assert_array_equal(np.bincount(again.labels), [5, 1, 1])
  assert "2 links to folders that are there already left out" in again.describe()


@pytest.mark.parametrize("name", ["cat", "bee/1.png", "bee/more"])
def test_links_that_lead_nowhere_are_named(folder, name):
  (folder / name).symlink_to("nowhere")
  with pytest.raises(FileNotFoundError, match=rf"link .*/{name} leads nowhere \(nowhere\)"):
    load(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_among_images_is_never_waited_for(folder):
  os.mkfifo(folder / "bee" / "1.png")
  with pytest.raises(ValueError, match=r"bee/1\.png is no regular file"):
    load(folder)


def test_names_that_are_no_utf8_are_names(folder):
  before = load(folder)
  name = os.path.join(os.fsencode(folder), b"bee", b"\xff\xe9.png")
  try:
    with open(name, "wb") as file:
      draw(9).save(file, "PNG")
  except OSError:
    pytest.skip("the file system takes UTF-8 only")
  after = load(folder)
  assert len(after.ids) == 4 and set(before.ids) < set(after.ids)
  with open(name, "wb") as file:
    file.write(b"none")
  with pytest.raises(ValueError, match="cannot be read as an image"):
    load(folder)


# Parts.


def test_parts_are_no_classes(tmp_path):
  write(tmp_path, "train/ant/0.png", "train/bee/1.png", "train/bee/2.png", "test/ant/0.png")
  with pytest.raises(ValueError, match=r"are test, train, .*data\.options\.parts=True"):
    load(tmp_path)
  dataset = load(tmp_path, parts=True)
  assert dataset.num_classes == 2 and len(np.unique(dataset.ids)) == 4
  order = np.lexsort((dataset.labels, dataset.part))
  np.testing.assert_array_equal(dataset.part[order], [0, 0, 0, 1])
  np.testing.assert_array_equal(dataset.labels[order], [0, 1, 1, 0])
  assert dataset.describe().startswith("4 images (1 of the test part), 5 high and 6 wide")
  # One of them alone is a folder of classes.
  assert not load(tmp_path / "train").part.any()


def test_validation_is_the_test_part_where_there_is_no_other(tmp_path):
  write(tmp_path, "Train/ant/0.png", "Train/bee/1.png", "val/ant/2.png", "val/bee/3.png")
  assert load(tmp_path, parts=True).part.sum() == 2
  write(tmp_path, "test/bee/4.png", "training/ant/5.png")
  dataset = load(tmp_path, parts=True)
  assert len(dataset.ids) == 6 and dataset.part.sum() == 1
  assert dataset.labels[dataset.part == 1] == 1


@pytest.mark.parametrize(
  "names", [("ant/0.png", "bee/0.png"), ("test/ant/0.png", "val/bee/0.png")]
)
def test_parts_that_are_not_there_are_named(tmp_path, names):
  write(tmp_path, *names)
  with pytest.raises(
    ValueError, match=r"parts is True, and the folders .* expected train, and"
  ):
    load(tmp_path, parts=True)


# Orientations.


def test_orientations_are_told_and_followed_on_request(tmp_path):
  for label, name in enumerate(("ant", "bee")):
    (tmp_path / name).mkdir()
    for orientation in range(1, 9):
      image, exif = draw(10 * label + orientation), Image.Exif()
      exif[0x0112] = orientation
      upright = Image.fromarray(np.asarray(image)[::-1]) if orientation == 4 else image
      upright.save(tmp_path / name / f"{orientation}.png", exif=exif)
  assert "14 images are not turned as their EXIF orientation says" in load(tmp_path).describe()
  # Some are on their side.
  with pytest.raises(ValueError, match=r"set data\.options\.image_size"):
    load(tmp_path, orient=True)
  for orientation in (5, 6, 7, 8):
    for name in ("ant", "bee"):
      (tmp_path / name / f"{orientation}.png").unlink()
  turned = load(tmp_path, orient=True)
  assert turned.digest == load(tmp_path, orient=True, in_memory=False).digest
  assert not turned.notes
  mirrored = np.asarray(draw(4))  # saved upside down, and told so: 4.png is the fourth
  np.testing.assert_array_equal(turned.images[3], mirrored)
  np.testing.assert_array_equal(load(tmp_path).images[3], mirrored[::-1])


def test_images_on_their_side_change_width_and_height(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned clockwise
  for seed, name in enumerate(("ant", "bee")):
    (tmp_path / name).mkdir()
    draw(seed).save(tmp_path / name / "0.png", exif=exif)
  turned = load(tmp_path, orient=True)
  assert turned.images.shape == (2, 6, 5, 3)
  np.testing.assert_array_equal(turned.images[0], np.rot90(np.asarray(draw(0)), -1))
  assert load(tmp_path).images.shape == (2, 5, 6, 3)


# Sizes.


@pytest.mark.parametrize("size", [0, -1, 1_000_000])
def test_sizes_out_of_range_are_refused(folder, size):
  with pytest.raises(ValueError, match=rf"data.options.image_size is {size}; expected .* 1 to"):
    load(folder, image_size=size)


def test_what_does_not_fit_into_memory_is_refused_before_it_is_decoded(folder, monkeypatch):
  monkeypatch.setattr(memory, "memory_size", lambda: 10**6)
  monkeypatch.setattr(image_pixels, "_decode", lambda *_: pytest.fail("it was decoded"))
  with pytest.raises(
    ValueError, match=r"3 images of 2000x2000 take 0\.0 GB, .*in_memory=False"
  ):
    load(folder, image_size=2000)
  assert load(folder, image_size=2000, in_memory=False).images.shape == (3, 2000, 2000, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels_is_named(folder, monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
  for size in ((40, 40), (60, 60)):  # Pillow warns of the first and refuses the second
    draw(0, size).save(folder / "bee" / "large.png")
    with pytest.raises(ValueError, match=r"bee/large.png has, .*more than 1,000 pixels"):
      load(folder)
  # One that is long and narrow is large once its shorter side is.
  draw(0, (100, 1)).save(folder / "bee" / "large.png")
  with pytest.raises(ValueError, match=r"bee/large.png has, or is scaled to, more than 1,000"):
    load(folder, image_size=10)
