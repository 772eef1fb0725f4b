"""CelebA and UTKFace, in the files of their releases."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffence_jax import data
from diffence_jax.experiment import run as pipeline

CONFIGS = Path(__file__).parents[2] / "configs"

# Attributes of made-up images: name to values, in an order of its own.
NAMES = ("Bald", "Smiling", "Heavy_Makeup", "Male", "Mouth_Slightly_Open")
VALUES = {
  "000001.jpg": (-1, 1, -1, 1, -1),
  "000002.jpg": (-1, -1, 1, -1, 1),
  "000004.jpg": (1, 1, 1, 1, 1),
  "000003.jpg": (-1, -1, -1, 1, -1),
  "182638.jpg": (-1, 1, -1, -1, 1),
}
PARTS = {name: 0 for name in VALUES} | {"000004.jpg": 1, "182638.jpg": 2}


def face(seed, size=(178, 218)):
  """Smooth, so that JPEG keeps it."""
  draw = np.random.default_rng(seed).integers(0, 256, (3, 3, 3)).astype(np.uint8)
  return Image.fromarray(draw).resize(size, Image.Resampling.BICUBIC)


def write_celeba(root, parts=PARTS, values=VALUES, size=(178, 218)):
  (root / "img_align_celeba").mkdir(parents=True)
  for i, name in enumerate(values):
    face(i, size).save(root / "img_align_celeba" / name)
  lines = [f"{name} {' '.join(f'{v:2d}' for v in own)}" for name, own in values.items()]
  header = [str(len(values)), " ".join(NAMES) + " "]
  (root / "list_attr_celeba.txt").write_text("\n".join(header + lines) + "\n")
  if parts:
    lines = [f"{name} {part}\n" for name, part in parts.items()]
    (root / "list_eval_partition.txt").write_text("".join(lines))
  return str(root)


def test_celeba(tmp_path):
  dataset = data.load("celeba", path=write_celeba(tmp_path))
  assert dataset.images.shape == (5, 64, 64, 3) and dataset.num_classes == 8
  np.testing.assert_array_equal(dataset.ids, [1, 2, 4, 3, 182638])
  # Makeup is the highest bit, then the mouth, then the smile.
  np.testing.assert_array_equal(dataset.labels, [1, 6, 7, 0, 3])
  np.testing.assert_array_equal(dataset.part, [0, 0, 0, 0, 1])
  streamed = data.load("celeba", path=str(tmp_path), in_memory=False)
  assert streamed.digest == dataset.digest


def test_celeba_images_are_squares_from_the_middle(tmp_path):
  path = write_celeba(tmp_path)
  whole = data.load("celeba", path=path, image_size=None)
  assert whole.images.shape == (5, 218, 178, 3)
  square = data.load("celeba", path=path, image_size=178)
  np.testing.assert_array_equal(square.images, whole.images[:, 20:198])


def test_celeba_attributes_and_parts_can_be_others(tmp_path):
  path = write_celeba(tmp_path, parts={})
  dataset = data.load("celeba", path=path, attributes=["Male", "Bald"], image_size=8)
  np.testing.assert_array_equal(dataset.labels, [2, 0, 3, 2, 0])
  assert dataset.num_classes == 4 and not dataset.part.any()


@pytest.mark.parametrize(
  "attributes, match",
  [
    (["Smilling"], "no attribute 'Smilling'; did you mean 'Smiling'"),
    (["Male", "Male"], "expected every name once"),
    ("Male", "attributes is 'Male'; expected a tuple"),
    ([], "expected a list of 1 to 16 names"),
  ],
)
def test_celeba_attributes_that_are_not_there_are_named(tmp_path, attributes, match):
  path = write_celeba(tmp_path)
  with pytest.raises(ValueError, match=match):
    data.load("celeba", path=path, attributes=attributes)


@pytest.mark.parametrize(
  "line, content, match",
  [
    (0, "many", "does not begin with the number of images"),
    (0, "6", "says that it lists 6 images, and lists 5"),
    (2, "000001.jpg -1 1 -1 1", r"Line 3 of .* expected an image and 5 times 1 or -1"),
    (3, "000002.jpg -1 -1 1 -1 2", r"Line 4 of .*list_attr_celeba.txt is '000002.jpg -1"),
    (3, "-1 -1 1 -1 2", "Line 4 of"),
    (4, "../secret.jpg 1 1 1 1 1", "Line 5 of"),
    (4, "000001.jpg 1 1 1 1 1", r"Line 5 of .* has 000001.jpg again"),
    (5, "", "lists 5 images, and lists 4"),
  ],
)
def test_damaged_lines_of_celeba_are_named(tmp_path, line, content, match):
  path = write_celeba(tmp_path)
  listed = tmp_path / "list_attr_celeba.txt"
  lines = listed.read_text().splitlines()
  lines[line] = content
  listed.write_text("\n".join(lines))
  with pytest.raises(ValueError, match=match):
    data.load("celeba", path=path)


@pytest.mark.parametrize("content", [b"", b"5", b"\xff\xd8\xff\xe0"])
def test_celeba_lists_that_are_no_lists_are_refused(tmp_path, content):
  path = write_celeba(tmp_path)
  (tmp_path / "list_attr_celeba.txt").write_bytes(content)
  with pytest.raises(ValueError, match=r"list_attr_celeba.txt (is not|does not begin)"):
    data.load("celeba", path=path)


def test_a_partition_of_another_release_is_refused(tmp_path):
  path = write_celeba(tmp_path)
  partition = tmp_path / "list_eval_partition.txt"
  lines = partition.read_text().splitlines()
  partition.write_text("\n".join(lines[1:]))
  with pytest.raises(ValueError, match=r"lacks 1 of the 5 images .* 000001.jpg among them"):
    data.load("celeba", path=path)
  partition.write_text("\n".join([*lines[:-1], "182638.jpg 3"]))
  with pytest.raises(ValueError, match=r"Line 5 of .* expected an image and 0, 1 or 2"):
    data.load("celeba", path=path)


def test_missing_files_of_celeba_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.* img_align_celeba/"):
    data.load("celeba", path=str(tmp_path / "nowhere"))
  with pytest.raises(FileNotFoundError, match=r"no file .*list_attr_celeba.txt"):
    data.load("celeba", path=str(tmp_path))
  path = write_celeba(tmp_path)
  for name in ("000002.jpg", "000004.jpg"):
    (tmp_path / "img_align_celeba" / name).unlink()
  with pytest.raises(FileNotFoundError, match=r"^2 of the 5 images .* 000002.jpg among them"):
    data.load("celeba", path=path)
  shutil.rmtree(tmp_path / "img_align_celeba")
  with pytest.raises(FileNotFoundError, match=r"^5 of the 5 images"):
    data.load("celeba", path=path)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_damaged_face_is_named(tmp_path, in_memory):
  path = write_celeba(tmp_path)
  image = tmp_path / "img_align_celeba" / "000004.jpg"
  image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
  with pytest.raises(ValueError, match=r"000004.jpg cannot be read as an image"):
    _ = data.load("celeba", path=path, in_memory=in_memory).digest


FACES = {
  "26_1_0_20170116184024662.jpg.chip.jpg": 0,
  "1_0_3_20161219140623097.jpg.chip.jpg": 3,
  "116_1_2_20170112213257263.jpg": 2,
  "35_0_1_20170116220224657 .jpg.chip.jpg": 1,
}


def write_utkface(root, names):
  root.mkdir(exist_ok=True)
  for i, name in enumerate(names):
    face(i, (20, 20)).save(root / name)
  return str(root)


def test_utkface(tmp_path):
  others = ("9_1_4_20170103200637399.jpg.chip.jpg", "61_1_20170109150557335.jpg.chip.jpg")
  path = write_utkface(tmp_path, [*FACES, *others])
  dataset = data.load("utkface", path=path, image_size=10)
  assert dataset.images.shape == (4, 10, 10, 3)
  assert dataset.num_classes == 4 and not dataset.part.any()
  np.testing.assert_array_equal(dataset.labels, [FACES[name] for name in sorted(FACES)])
  write_utkface(tmp_path, ["0_0_0_20170103200637399.jpg.chip.jpg"])
  more = data.load("utkface", path=path, image_size=10, in_memory=False)
  assert len(more.ids) == 5 and set(dataset.ids) < set(more.ids)
  assert more.take(dataset.ids).digest == dataset.digest


def test_utkface_folders_that_are_not_right_say_so(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no folder"):
    data.load("utkface", path=str(tmp_path / "nowhere"))
  with pytest.raises(FileNotFoundError, match=r"no images of a race from 0 to 3"):
    data.load("utkface", path=str(tmp_path))
  names = [f"{age}_1_20170109150557335.jpg" for age in range(10)]
  write_utkface(tmp_path, [*FACES, *names])
  assert len(data.load("utkface", path=str(tmp_path)).ids) == 4
  path = write_utkface(tmp_path, ["holiday.jpg"])
  with pytest.raises(ValueError, match=r"^11 of 15 images .* 0_1_20170109150557335.jpg, 1_1_"):
    data.load("utkface", path=path)


def config_of(name, path):
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("smoke")
  config.data.options.path = path
  return config


def write_for_config(name, root):
  """Enough images for the smoke variant of a config."""
  if name == "utkface":
    dates = range(20170103200637000, 20170103200637112)
    return write_utkface(root, [f"30_0_{date % 4}_{date}.jpg.chip.jpg" for date in dates])
  names = [f"{i:06d}.jpg" for i in range(1, 113)]
  values = {
    name: [1 if i >> bit & 1 else -1 for bit in range(5)] for i, name in enumerate(names)
  }
  parts = {name: 2 * (i >= 64) for i, name in enumerate(names)}
  return write_celeba(root, parts, values, (20, 24))


@pytest.mark.parametrize("name", ["celeba", "utkface"])
def test_configs_of_faces_can_be_planned(tmp_path, name):
  config = config_of(name, write_for_config(name, tmp_path / "data"))
  experiment = pipeline.plan(config)
  assert experiment.dataset.images.shape == (112, 64, 64, 3)
  assert experiment.dataset.num_classes == {"celeba": 8, "utkface": 4}[name]
  told = pipeline.describe(experiment, tmp_path / "run")
  assert "48 images" not in told and "96 images, 576 evaluations" in told
  tested = {"celeba": " (48 of the test part)", "utkface": ""}[name]
  assert told.startswith(
    f"data            112 images{tested}, 64 high and 64 wide, 3 channels;"
  )
  config.data.options.in_memory = False
  streamed = pipeline.plan(config)
  assert streamed.stages["audit"].fingerprint == experiment.stages["audit"].fingerprint
