"""UTKFace (Zhang, Song & Qi, CVPR 2017): faces, classified by race as in the Diffence paper."""

import re

import numpy as np

from diffence_jax.checks import FilePath
from diffence_jax.data.dataset import Dataset, make_dataset
from diffence_jax.data.image_files import check_folder, find_images, ids_of
from diffence_jax.data.image_pixels import read_images

_NUM_CLASSES = 4
# The release has three.
_MOST_MISNAMED = 10
# [age]_[gender]_[race]_[date and time].jpg, or .jpg.chip.jpg where faces are cut out.
_NAME = re.compile(r"\d+_\d_([0-4])_\d")


def load(path: FilePath, image_size: int | None = 64, in_memory: bool = True) -> Dataset:
  """Loads `path/**/[age]_[gender]_[race]_[date].jpg`.

  Three files of the release lack the race in their names, and are left out as they are in the
  literature. So are up to 10 names that cannot be read; more are an error, as they must come
  from something else than the release.

  Args:
    path: the folder, such as the release's UTKFace, of faces that are aligned and cut out.
    image_size: as in `folder.load`.
    in_memory: as above.

  Returns:
    4 classes: the races 0 to 3 (White, Black, Asian and Indian); those of 4, others, are left
    out. All of one part. An id is a checksum of the file's path below `path`.

  Raises:
    FileNotFoundError: there is no such folder, or no image of a race from 0 to 3 in it.
    ValueError: too many files have other names; an image is damaged, or sizes differ.
  """
  expected = "UTKFace's, with files [age]_[gender]_[race]_[date].jpg"
  root = check_folder(path, expected)
  files = find_images(root).images
  names = [_NAME.match(file.name) for file in files]
  misnamed = [file.name for file, name in zip(files, names, strict=True) if not name]
  if len(misnamed) > _MOST_MISNAMED:
    raise ValueError(
      f"{len(misnamed)} of {len(files)} images in {path} have names from which no race can be "
      f"read, {', '.join(misnamed[:3])} among them; expected {expected}, and at most "
      f"{_MOST_MISNAMED} others. Rename or remove them."
    )
  races = [(file, int(name[1])) for file, name in zip(files, names, strict=True) if name]
  kept = [(file, race) for file, race in races if race < _NUM_CLASSES]
  if not kept:
    raise FileNotFoundError(
      f"There are no images of a race from 0 to 3 in {path}; expected {expected}."
    )
  files = [file for file, _ in kept]
  return make_dataset(
    read_images(files, image_size, in_memory).images,
    np.array([race for _, race in kept]),
    ids_of(file.relative_to(root).as_posix() for file in files),
    num_classes=_NUM_CLASSES,
    files=files,
  )
