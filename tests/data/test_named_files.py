"""Index files that name samples by their image files."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from diffence_jax import data
from diffence_jax.data import read_index_file


@pytest.fixture
def folder(tmp_path):
  """Six images of two classes, in `pictures/`."""
  for number in range(6):
    file = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), number, np.uint8)).save(file)
  return tmp_path


def _load(folder):
  return data.load("folder", path=str(folder / "pictures"))


def _write(path, members, nonmembers):
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps({"members": members, "nonmembers": nonmembers}))
  return path


def test_relative_paths_begin_at_the_index_files_folder(folder, monkeypatch):
  dataset = _load(folder)
  monkeypatch.chdir("/")
  index = _write(
    folder / "lists" / "split.json",
    ["../pictures/a/0.png", "../pictures/b/1.png"],
    [str(folder / "pictures" / "a" / "2.png"), "../pictures/../pictures/b/3.png"],
  )
  split = read_index_file(index, dataset)
  # The pixel is the file's number.
  shown = lambda ids: sorted(int(image.max()) for image in dataset.take(ids).images)
  assert shown(split.members) == [0, 1] and shown(split.nonmembers) == [2, 3]
  # By ids it is the same split.
  ids = {side: getattr(split, side).tolist() for side in ("members", "nonmembers")}
  again = read_index_file(_write(folder / "ids.json", **ids), dataset)
  for name, group in split.groups().items():
    np.testing.assert_array_equal(again.groups()[name], group)


def test_links_to_the_folder_lead_to_its_files(folder):
  os.symlink(folder / "pictures", folder / "link")
  index = _write(
    folder / "split.json", ["link/a/0.png", "link/b/1.png"], ["link/a/2.png", "link/b/3.png"]
  )
  assert len(read_index_file(index, _load(folder)).members) == 2


def test_what_is_no_sample_is_refused(folder):
  index = _write(folder / "split.json", ["pictures/a/0.png", "a/2.png"], ["pictures/b/1.png"])
  with pytest.raises(ValueError, match=r"names 1 files that are no samples .*a/2\.png among"):
    read_index_file(index, _load(folder))
  index = _write(folder / "split.json", ["pictures/a/0.png", 5], [1])
  with pytest.raises(ValueError, match="'members' is not a list of whole numbers"):
    read_index_file(index, _load(folder))
  index = _write(folder / "split.json", ["0.png"], ["1.png"])
  with pytest.raises(ValueError, match=r"are no files of their own; expected ids"):
    read_index_file(index, data.load("digits"))


def test_files_follow_their_samples(folder):
  dataset = _load(folder)
  taken = dataset.take(dataset.ids[[4, 1]])
  assert taken.files == (dataset.files[4], dataset.files[1])
  assert [int(image.max()) for image in taken.images] == [int(f.stem) for f in taken.files]
