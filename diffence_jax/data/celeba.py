"""CelebA (Liu et al., ICCV 2015): faces, classified by some of their 40 attributes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffence_jax.checks import FilePath
from diffence_jax.data.dataset import Dataset, make_dataset
from diffence_jax.data.image_files import check_folder
from diffence_jax.data.image_pixels import read_images
from diffence_jax.named import nearest
from diffence_jax.rng import MAX_ID

_IMAGES = "img_align_celeba"
_ATTRIBUTES = "list_attr_celeba.txt"
_PARTITION = "list_eval_partition.txt"
_TEST = 2  # in the partition; 0 is training, 1 is validation
_MOST_ATTRIBUTES = 16


def load(
  path: FilePath,
  image_size: int | None = 64,
  attributes: Sequence[str] = ("Heavy_Makeup", "Mouth_Slightly_Open", "Smiling"),
  in_memory: bool = True,
) -> Dataset:
  """Loads the aligned images, in the files of the release.

  Args:
    path: a folder with the images in `img_align_celeba/`, with `list_attr_celeba.txt` and, if
      non-members are to come from the test part, with `list_eval_partition.txt`.
    image_size: as in `folder.load`; None for 178x218 pixels.
    attributes: A of them, 1 to 16; the default ones make the 8 classes of the literature.
    in_memory: as in `folder.load`.

  Returns:
    2**A classes, the attributes as a binary number whose highest bit is the first: by default
    4 for Heavy_Makeup + 2 for Mouth_Slightly_Open + 1 for Smiling. An id is the number in the
    file's name, 1 for 000001.jpg. Part 0 has training and validation, part 1 the test part;
    all is part 0 without a partition.

  Raises:
    FileNotFoundError: the folder, the list of attributes or an image is missing.
    ValueError: there is no such attribute, a list is damaged, or an image is, or sizes differ.
  """
  root = check_folder(path, f"one with {_IMAGES}/ and {_ATTRIBUTES}")
  names, table = _read_attributes(root / _ATTRIBUTES)
  columns = _columns(attributes, list(names))
  there = {file.name for file in (root / _IMAGES).glob("*")}
  missing = [name for name in table if name not in there]
  if missing:
    raise FileNotFoundError(
      f"{len(missing)} of the {len(table)} images in {_ATTRIBUTES} are not in "
      f"{root / _IMAGES}, {missing[0]} among them; expected all of the release."
    )
  bits = np.array(list(table.values()), np.int8)[:, columns] > 0
  labels = bits @ (2 ** np.arange(len(columns))[::-1])
  part = None
  if (root / _PARTITION).is_file():
    parts = _read_partition(root / _PARTITION)
    unlisted = [name for name in table if name not in parts]
    if unlisted:
      raise ValueError(
        f"{root / _PARTITION} lacks {len(unlisted)} of the {len(table)} images in "
        f"{_ATTRIBUTES}, {unlisted[0]} among them; expected both files of one release."
      )
    part = np.array([parts[name] == _TEST for name in table])
  files = [root / _IMAGES / name for name in table]
  return make_dataset(
    read_images(files, image_size, in_memory).images,
    labels,
    np.array([_number(name) for name in table], np.int64),
    num_classes=2 ** len(columns),
    part=part,
    files=files,
  )


def _columns(attributes, names):
  """The attributes' columns."""
  if isinstance(attributes, str) or not 1 <= len(attributes) <= _MOST_ATTRIBUTES:
    raise ValueError(
      f"data.options.attributes is {attributes!r}; expected a list of 1 to {_MOST_ATTRIBUTES} "
      "names."
    )
  for attribute in attributes:
    if attribute not in names:
      raise ValueError(f"CelebA has no attribute {attribute!r}{nearest(attribute, names)}")
  if len(set(attributes)) != len(attributes):
    raise ValueError(f"data.options.attributes is {attributes!r}; expected every name once.")
  return [names.index(attribute) for attribute in attributes]


def _read_attributes(path: Path) -> tuple[list[str], dict[str, list[int]]]:
  """The attributes' names, and image to values, -1 or 1."""
  if not path.is_file():
    raise FileNotFoundError(
      f"There is no file {path}; get CelebA's list of attributes, and put it beside {_IMAGES}/."
    )
  lines = _lines(path)
  count = lines[0].strip() if lines else ""
  if not count.isdecimal() or len(lines) < 2:
    raise ValueError(
      f"{path} does not begin with the number of images and the names of the attributes."
    )
  names = lines[1].split()
  what = f"an image and {len(names)} times 1 or -1"
  table = _read_table(path, lines, 2, len(names), ("1", "-1"), what)
  if len(table) != int(count):
    raise ValueError(f"{path} says that it lists {count} images, and lists {len(table)}.")
  return names, table


def _read_partition(path):
  """Image to part: 0, 1 or 2."""
  table = _read_table(path, _lines(path), 0, 1, ("0", "1", "2"), "an image and 0, 1 or 2")
  return {name: part for name, (part,) in table.items()}


def _lines(path):
  try:
    return path.read_text("utf-8").splitlines()
  except UnicodeDecodeError as error:
    raise ValueError(f"{path} is not a text file: {error}.") from error


def _read_table(path, lines, start, width, allowed, what):
  """Image to numbers, of lines such as `000001.jpg -1 1`, from line `start` on."""
  table = {}
  for number, line in enumerate(lines[start:], start + 1):
    if not line.strip():
      continue
    name, *values = line.split()
    if len(values) != width or not set(values) <= set(allowed) or _number(name) is None:
      raise ValueError(f"Line {number} of {path} is {line[:60]!r}; expected {what}.")
    if name in table:
      raise ValueError(f"Line {number} of {path} has {name} again.")
    table[name] = [int(value) for value in values]
  return table


def _number(name):
  """1 for 000001.jpg; None for a name of another kind."""
  stem = name.partition(".")[0]
  is_number = stem.isascii() and stem.isdecimal()
  return int(stem) if is_number and int(stem) <= MAX_ID else None
