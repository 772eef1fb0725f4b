"""Images on disk: the same as in memory, wherever they go, and no more memory for more."""

import dataclasses
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

import diffence_jax as dj
from diffence_jax import data, parallel
from diffence_jax.data import StreamedImages
from diffence_jax.experiment.plan import plan
from diffence_jax.training import TrainSettings
from diffence_jax.training.advreg import advreg
from diffence_jax.training.ensemble import train_ensemble
from diffence_jax.training.selena import selena

NUM = 70


def images_of(num, *shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (num, *shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Two classes of images of several sizes."""
  root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
  for i in range(NUM):
    height, width = rng.integers(8, 14, 2)
    (root / "ab"[i % 2]).mkdir(exist_ok=True)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
    image.save(root / "ab"[i % 2] / f"{i}.png")
  return str(root)


@pytest.fixture(scope="module")
def pair(folder):
  """The same data in memory and on disk."""
  return [
    data.load("folder", path=folder, image_size=8, in_memory=in_memory)
    for in_memory in (True, False)
  ]


def counting(images):
  """Images that are read from an array, and the rows that have been read."""
  read = []

  def rows_of(rows):
    read.extend(rows.tolist())
    return images[rows]

  return StreamedImages(rows_of, images.shape), read


@pytest.mark.parametrize(
  "rows",
  [
    3,
    -1,
    slice(2, 9, 3),
    slice(0, 0),
    np.array([5, 0, 5, -1, 19]),
    np.array([[1, 2], [2, 0]]),
    np.arange(20) % 3 == 0,
    [4, 2],
  ],
)
def test_rows_are_those_of_the_array(rows):
  images = images_of(20, 3, 2, 1)
  streamed, _ = counting(images)
  np.testing.assert_array_equal(streamed[rows], images[rows])
  assert streamed[rows].dtype == np.uint8
  if np.ndim(images[rows]) == 4:
    view = data.view(streamed, rows)
    assert isinstance(view, StreamedImages) and view.shape == images[rows].shape
    np.testing.assert_array_equal(view, images[rows])
    np.testing.assert_array_equal(view.view(slice(None, None, -1)), images[rows][::-1])


def test_what_is_asked_for_is_read_once_and_nothing_else():
  streamed, read = counting(images_of(20, 3, 2, 1))
  view = streamed.view(np.array([7, 3, 11, 3]))
  assert not read and len(view) == 4
  _ = view[np.array([0, 1, 0, 3, 1])]
  assert sorted(read) == [3, 7]


def test_an_array_is_a_copy():
  images = images_of(1200, 2, 2, 1)
  streamed, _ = counting(images)
  np.testing.assert_array_equal(np.asarray(streamed), images)
  assert np.asarray(streamed, np.float32).dtype == np.float32
  with pytest.raises(ValueError, match="copied into memory"):
    np.array(streamed, copy=False)
  with pytest.raises(IndexError):
    streamed[1200]
  assert sum(1 for _ in streamed) == 1200


def test_taken_samples_stay_on_disk_and_the_digest_is_that_of_memory(pair):
  memory, disk = pair
  assert isinstance(memory.images, np.ndarray) and isinstance(disk.images, StreamedImages)
  assert memory.digest == disk.digest
  ids = memory.ids[np.random.default_rng(0).permutation(NUM)[:30]]
  taken = disk.take(ids)
  assert isinstance(taken.images, StreamedImages)
  np.testing.assert_array_equal(taken.images, memory.take(ids).images)
  np.testing.assert_array_equal(taken.labels, memory.take(ids).labels)
  assert taken.digest == memory.take(ids).digest != disk.digest


def test_an_image_that_is_damaged_later_is_named_when_it_is_read(tmp_path):
  (tmp_path / "a").mkdir()
  (tmp_path / "b").mkdir()
  for name in ("a/0.png", "a/1.png", "b/2.png"):
    Image.fromarray(images_of(1, 40, 40, 3)[0]).save(tmp_path / name)
  path = tmp_path / "a" / "1.png"
  # The header is whole, the pixels are not.
  path.write_bytes(path.read_bytes()[:2000])
  with pytest.raises(ValueError, match=r"a/1.png cannot be read as an image"):
    data.load("folder", path=str(tmp_path))
  dataset = data.load("folder", path=str(tmp_path), in_memory=False)
  assert dataset.images[[0, 2]].shape == (2, 40, 40, 3)
  with pytest.raises(ValueError, match=r"a/1.png cannot be read as an image"):
    _ = dataset.images[1]
  with pytest.raises(ValueError, match=r"a/1.png cannot be read as an image"):
    _ = dataset.digest
  # What is no image at all is found at once.
  path.write_bytes(b"none")
  with pytest.raises(ValueError, match=r"a/1.png cannot be read as an image"):
    data.load("folder", path=str(tmp_path), in_memory=False)


def test_images_that_change_after_they_have_been_read_are_named(tmp_path):
  for name in ("a/0.png", "a/1.png", "b/2.png"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.fromarray(images_of(1, 8, 8, 3)[0]).save(tmp_path / name)
  dataset = data.load("folder", path=str(tmp_path), in_memory=False)
  view = dataset.take(dataset.ids[1:])
  _ = dataset.digest
  Image.fromarray(images_of(1, 8, 8, 3, seed=1)[0]).save(tmp_path / "a" / "1.png")
  assert dataset.images[[0, 2]].shape == (2, 8, 8, 3)
  for images, row in ((dataset.images, 1), (view.images, 0)):
    with pytest.raises(
      ValueError, match=r"have changed while .*/a/1\.png among them; run again"
    ):
      _ = images[row]
  # Other files with the same pixels are the same images.
  Image.fromarray(images_of(1, 8, 8, 3)[0]).save(tmp_path / "a" / "1.png", compress_level=0)
  np.testing.assert_array_equal(dataset.images[1], images_of(1, 8, 8, 3)[0])


def test_an_array_that_changes_after_it_has_been_read_is_named(tmp_path):
  np.save(tmp_path / "images.npy", images_of(4, 5, 5, 1))
  np.save(tmp_path / "labels.npy", np.arange(4) % 2)
  dataset = data.load("npz", path=str(tmp_path), in_memory=False)
  _ = dataset.digest
  np.save(tmp_path / "images.npy", images_of(4, 5, 5, 1, seed=1))
  with pytest.raises(ValueError, match="have changed while they were used, image 2 among them"):
    _ = dataset.images[2]
  np.save(tmp_path / "images.npy", images_of(4, 5, 6, 1))
  with pytest.raises(
    ValueError, match=r"images\.npy has another shape than when the run began"
  ):
    _ = dataset.images[2]


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5)])
def test_an_unpacked_archive_is_read_in_memory_or_from_disk(tmp_path, shape):
  images, labels, ids = images_of(9, *shape), np.arange(9) % 2, 3 * np.arange(9)
  np.savez(tmp_path / "a.npz", images=images, labels=labels, ids=ids)
  archive = data.load("npz", path=str(tmp_path / "a.npz"))
  with pytest.raises(ValueError, match=r"zipfile -e .*a\.npz"):
    data.load("npz", path=str(tmp_path / "a.npz"), in_memory=False)
  folder = str(tmp_path / "unpacked")
  command = [sys.executable, "-m", "zipfile", "-e", str(tmp_path / "a.npz"), folder]
  subprocess.run(command, check=True)
  for in_memory in (True, False):
    dataset = data.load("npz", path=folder, in_memory=in_memory)
    assert isinstance(dataset.images, np.ndarray) == in_memory
    assert dataset.digest == archive.digest
  np.testing.assert_array_equal(dataset.take([24, 3]).images, archive.images[[8, 1]])


def test_unpacked_archives_that_are_not_right_are_refused(tmp_path):
  with pytest.raises(ValueError, match="no array 'images'; it has none"):
    data.load("npz", path=str(tmp_path), in_memory=False)
  np.save(tmp_path / "labels.npy", np.arange(4) % 2)
  np.save(tmp_path / "images.npy", np.zeros((4, 2, 2, 1)))
  with pytest.raises(ValueError, match="expected uint8"):
    data.load("npz", path=str(tmp_path), in_memory=False)
  (tmp_path / "images.npy").write_bytes(b"")
  with pytest.raises(ValueError, match=r"images\.npy cannot be read"):
    data.load("npz", path=str(tmp_path), in_memory=False)


def small_run(folder, in_memory, **more):
  """Everything that needs no shadow models, too small to learn anything."""
  small = {"channels": 8, "multipliers": (1,), "attention_levels": (), "num_res_blocks": 1}
  options = {"path": folder, "image_size": 8, "in_memory": in_memory}
  sizes = {"num_members": 20, "num_nonmembers": 20, "num_reference": 20}
  return {
    "data": {"source": "folder", "options": options, **sizes},
    "classifier": {"fields": {"width": 4, "stages": (1,)}, "epochs": 1, "batch_size": 8},
    "diffusion": {"fields": small, "num_steps": 4, "batch_size": 8, "warmup_steps": 0},
    "purify": {"num_candidates": 2},
    "compute": {"chunk_size": 40, "batch_size": 40},
    "samples": {"num_images": 2, "num_reconstructions": 1, "num_ddim_steps": 1},
    "audit": {"attacks": ("loss", "confidence", "quantile_regression")},
    **more,
  }


def test_a_run_comes_to_the_same_bits(folder, tmp_path):
  results = []
  for in_memory in (True, False):
    found = dj.run(small_run(folder, in_memory), tmp_path / str(in_memory))
    results.append(dataclasses.replace(found, settings={}, answer_time=None))
  assert results[0] == results[1]
  for name in ("queries/*/raw.npy", "queries/*/candidates.npy", "samples/*/images.npz"):
    (first,), (second,) = ((tmp_path / where).glob(name) for where in ("True", "False"))
    assert first.read_bytes() == second.read_bytes() and first.parent.name == second.parent.name


def test_shadow_models_draw_from_the_same_pool(folder):
  # Blank ones are in memory, after those of the folder.
  kinds = {"num_canaries": 4, "canaries": ("mislabelled", "blank")}
  shadow = {"num_models": 6, "near_duplicates": True, **kinds}
  plans = [plan(small_run(folder, where, shadow=shadow)) for where in (True, False)]
  for name, stage in plans[0].stages.items():
    assert plans[1].stages[name].fingerprint == stage.fingerprint
  for images_of_plan in (
    lambda own: own.stages["shadow_queries"].samples.images,
    lambda own: own.stages["near_duplicates"].samples.images,
    lambda own: own.classifier.members.images,
  ):
    memory, disk = (images_of_plan(own) for own in plans)
    assert isinstance(memory, np.ndarray) and isinstance(disk, StreamedImages)
    np.testing.assert_array_equal(disk, memory)


def test_an_ensemble_with_teachers_and_one_with_a_reference_set_are_the_same(pair):
  settings = TrainSettings(20, 1, 10, 1e-3, 0.0)
  trained = []
  for dataset in pair:
    images, labels = data.view(dataset.images, slice(0, 20)), dataset.labels[:20]
    members = {"images": images, "labels": labels}
    reference = {"images": data.view(dataset.images, slice(20, 40)), "labels": labels}
    kept = []
    with jax.numpy_dtype_promotion("standard"):
      for recipe in (
        selena(Linear(), settings, num_teachers=2, num_left_out=1),
        advreg(Linear(), settings),
      ):
        train_ensemble(
          recipe,
          members,
          reference if recipe.needs_reference else None,
          np.ones((1, 20), bool),
          names=["shadow/0"],
          keep=lambda i, variables, kept=kept: kept.append(variables),
          seed=0,
          mesh=parallel.batch_mesh(),
        )
    trained.append(kept)
  jax.tree.map(np.testing.assert_array_equal, *trained)


class Linear(nn.Module):
  """The least there is to train."""

  @nn.compact
  def __call__(self, images, *, train=False):
    del train
    return nn.Dense(2)(images.reshape(len(images), -1))


_MEMORY = r"""
import re, sys
from pathlib import Path
import flax.linen as nn
import jax
import numpy as np
from diffence_jax import data, parallel
from diffence_jax.training import TrainSettings, train_classifier
from diffence_jax.training.baselines import undefended

class Coarse(nn.Module):
  @nn.compact
  def __call__(self, images, train=False):
    return nn.Dense(2)(nn.avg_pool(images, (64, 64), (64, 64)).reshape(len(images), -1))

def peak():
  # Not getrusage, which begins with what the process that started this one took.
  return re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]

peaks = []
for path, in_memory in ((sys.argv[1], False), (sys.argv[2], False), (sys.argv[2], True)):
  dataset = data.load("folder", path=path, in_memory=in_memory)
  dataset.digest
  members = dataset.take(dataset.ids)
  recipe = undefended(Coarse(), TrainSettings(len(members.ids), 1, 8, 1e-3, 0.0))
  train_classifier(
    recipe, {"images": members.images, "labels": members.labels}, checkpoint_every=1000,
    seed=0, mesh=parallel.batch_mesh(), directory=Path(sys.argv[3]) / str(len(peaks)),
  )
  peaks.append(peak())
print(*peaks)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_data(tmp_path):
  for name, num in (("small", 200), ("large", 700)):  # 39 and 138 MB
    for label in ("a", "b"):
      (tmp_path / name / label).mkdir(parents=True)
      for i in range(num // 2):
        image = Image.new("RGB", (256, 256), (i % 256, i // 256, 0))
        image.save(tmp_path / name / label / f"{i}.png", compress_level=1)
  arguments = [str(tmp_path / name) for name in ("small", "large", "runs")]
  process = subprocess.run(
    [sys.executable, "-c", _MEMORY, *arguments], capture_output=True, text=True
  )
  assert process.returncode == 0, process.stderr
  small, large, memory = (int(peak) / 1024 for peak in process.stdout.split())
  print(f"peaks: {small:.0f}, {large:.0f} and in memory {memory:.0f} MB")
  assert large - small < 45
  assert memory - large > 120
