"""Image files, a folder a class."""

import numpy as np

from diffence_jax.checks import FilePath
from diffence_jax.data.dataset import Dataset, make_dataset
from diffence_jax.data.image_files import (
  SUFFIXES,
  check_folder,
  find_images,
  ids_of,
  is_hidden,
  read_images,
)


def load(path: FilePath, image_size: int | None = None, in_memory: bool = True) -> Dataset:
  """Loads `path/<class>/**/<image>`; classes are numbered in the order of their names.

  Args:
    path: the folder of class folders.
    image_size: the side that images are scaled to (the shorter one, antialiased, then cropped
      to a square from the middle); None takes images as they are, all of one size.
    in_memory: whether all images are decoded now and kept; False decodes them whenever they
      are asked for.

  Returns:
    Gray images if all files are gray, else colour. An id is a checksum of the file's path
    below `path`, so that adding a file changes no other's, but for a rare clash, see
    `image_files.ids_of`. Names that begin with a dot are passed over.

  Raises:
    FileNotFoundError: there is no such folder, or no images in it.
    ValueError: an image is damaged or a gray one of more than 8 bits, or sizes differ.
  """
  root = check_folder(path, "one with a folder a class")
  folders = sorted(
    folder
    for folder in root.iterdir()
    if folder.is_dir() and not is_hidden(folder.relative_to(root))
  )
  found = [find_images(folder) for folder in folders]
  files = [file for own in found for file in own]
  if not files:
    raise FileNotFoundError(
      f"There are no images in {path}; expected {path}/<class>/<image>, "
      f"with one of the endings {', '.join(SUFFIXES)}."
    )
  return make_dataset(
    read_images(files, image_size, in_memory),
    np.repeat(np.arange(len(folders)), [len(own) for own in found]),
    ids_of(file.relative_to(root).as_posix() for file in files),
    num_classes=len(folders),
  )
