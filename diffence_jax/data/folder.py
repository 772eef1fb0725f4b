"""Image files, a folder a class."""

from pathlib import Path

import numpy as np

from diffence_jax.checks import FilePath
from diffence_jax.data.dataset import Dataset, make_dataset
from diffence_jax.data.image_files import Listing, check_folder, find_images, ids_of, visible
from diffence_jax.data.image_pixels import read_images

# Names of folders that are no classes, but parts of a data set.
_TRAIN, _TEST, _VALIDATION = (
  ("train", "training"), ("test", "testing"), ("val", "valid", "validation"),
)  # fmt: skip


def load(
  path: FilePath,
  image_size: int | None = None,
  in_memory: bool = True,
  parts: bool = False,
  orient: bool = False,
) -> Dataset:
  """Loads `path/<class>/**/<image>`; classes are numbered in the order of their names.

  Args:
    path: the folder of class folders.
    image_size: the side that images are scaled to (the shorter one, antialiased, then cropped
      to a square from the middle), up to 16,384; None takes images as they are, all of one
      size.
    in_memory: whether all images are decoded now and kept; False decodes them whenever they
      are asked for.
    parts: whether class folders are those of `path/train/` and `path/test/`, the training and
      the test part. Of `path/val/` it is the test part where there is no other.
    orient: whether images are turned as their EXIF orientation says.

  Returns:
    Gray images if all files are gray, else colour. An id is a checksum of the file's path
    below `path`, so that adding a file changes no other's, but for a rare clash, see
    `image_files.ids_of`. What is hidden or put there by systems is passed over, other files
    too, which is noted.

  Raises:
    FileNotFoundError: there is no such folder, or no images in it; or a link leads nowhere.
    ValueError: an image is damaged, too large or a gray one of more than 8 bits, or sizes
      differ; or a class has no image; or folders are parts, or none where they should be.
  """
  root = check_folder(path, "one with a folder a class")
  part_of = _parts(root, parts)
  loose = [file for folder in part_of for file in visible(folder) if not file.is_dir()]
  folders = [(folder, part) for top, part in part_of.items() for folder in _folders(top)]
  listings = [find_images(folder) for folder, _ in folders]
  files = [file for listing in listings for file in listing.images]
  if not files:
    raise FileNotFoundError(
      f"There are no images in {path}; expected {path}/{'train/' if parts else ''}<class>/"
      "<image>, with an ending such as .png or .jpg."
    )
  for (folder, _), listing in zip(folders, listings, strict=True):
    if not listing.images:
      raise ValueError(
        f"The class folder {folder} has no images; remove it, or let its name begin with a dot "
        "if it is none."
      )
  classes = sorted({folder.name for folder, _ in folders})
  counts = [len(listing.images) for listing in listings]
  read = read_images(files, image_size, in_memory, orient)
  return make_dataset(
    read.images,
    np.repeat([classes.index(folder.name) for folder, _ in folders], counts),
    ids_of(file.relative_to(root).as_posix() for file in files),
    num_classes=len(classes),
    part=np.repeat([part for _, part in folders], counts),
    notes=_notes(loose, listings, 0 if orient else read.num_turned),
    files=files,
  )


def _parts(root: Path, parts: bool) -> dict[Path, int]:
  """Folders of class folders: 0 for the training, 1 for the test part."""
  folders = {folder: folder.name.lower() for folder in _folders(root)}
  names = set(folders.values())
  are_parts = bool(names) and names <= {*_TRAIN, *_TEST, *_VALIDATION}
  listed = ", ".join(folder.name for folder in folders) or "none"
  if not parts:
    if are_parts:
      raise ValueError(
        f"The folders of {root} are {listed}, which are parts of a data set and no classes; "
        "set data.options.parts=True to read the class folders in them, or data.options.path "
        "to one of them. Rename them if they are classes."
      )
    return {root: 0}
  if not are_parts or not names & set(_TRAIN):
    raise ValueError(
      f"data.options.parts is True, and the folders of {root} are {listed}; expected train, "
      "and test or val."
    )
  test = _TEST if names & set(_TEST) else _VALIDATION
  return {folder: int(name in test) for folder, name in folders.items()}


def _folders(folder: Path) -> list[Path]:
  return [path for path in visible(folder) if path.is_dir()]


def _notes(loose: list[Path], listings: list[Listing], num_turned: int) -> tuple[str, ...]:
  """What is not taken as somebody may expect."""
  others = [file for listing in listings for file in listing.others]
  links = [link for listing in listings for link in listing.repeated]
  notes = [
    f"{len(paths)} {what} left out, such as {paths[0]}"
    for paths, what in (
      (loose, "files in no class folder"),
      (others, "files without an image's ending"),
      (links, "links to folders that are there already"),
    )
    if paths
  ]
  if num_turned:
    notes.append(
      f"{num_turned} images are not turned as their EXIF orientation says "
      "(data.options.orient=True does)"
    )
  return tuple(notes)
