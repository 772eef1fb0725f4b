"""Members and non-members as people have them: folders by class, archives, lists of files."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffence_jax.batching import to_float
from diffence_jax.checks import check_labels, check_numbers
from diffence_jax.data import folder as folders
from diffence_jax.data import npz
from diffence_jax.data.dataset import check_kinds
from diffence_jax.data.image_pixels import read_images
from diffence_jax.disk import check_file
from diffence_jax.rng import MAX_ID


class Side(NamedTuple):
  """The samples of one side, members or non-members.

  Attributes:
    images: u8[N,H,W,C], or f32[N,H,W,C] in [0, 1].
    labels: i64[N]; of named classes, places in `classes`.
    names: of the samples: paths, or ids as text.
    classes: names of the classes, sorted; None where labels are numbers.
    notes: what was left out, for people.
  """

  images: np.ndarray
  labels: np.ndarray
  names: list[str]
  classes: tuple[str, ...] | None
  notes: tuple[str, ...] = ()

  @property
  def floats(self) -> np.ndarray:
    """The images f32[N,H,W,C] in [0, 1]."""
    return to_float(self.images) if self.images.dtype == np.uint8 else self.images


def read_side(path: str | Path, group: str, image_size: int | None = None) -> Side:
  """Reads the samples of one side.

  Args:
    path: a folder of images, a subfolder a class; an `.npz` with `images` u8[N,H,W,C] and
      `labels` i[N]; or an index file, JSON: a list, or an object that has one under `group`, of
      paths of images (relative ones begin at its folder, the class is the name of the folder
      that an image lies in), or of ids of samples of an `.npz` that it names as "data".
    group: "members" or "nonmembers", which list of an index file is read.
    image_size: the side that image files are scaled to; None takes them as they are.

  Raises:
    FileNotFoundError: there is no such file or folder, or no image in it.
    ValueError: something in it is damaged or does not fit.
  """
  path = Path(path).expanduser()
  try:
    if path.is_dir():
      return _of_folder(path, image_size)
    check_file(
      path, f"expected {group} as a folder of class folders, an .npz, or an index file .json"
    )
    if path.suffix.lower() == ".npz":
      return _of_archive(path)
    return _of_index(path, group, image_size)
  except (ValueError, FileNotFoundError) as error:
    # Sources speak to configs.
    text = str(error).replace("data.options.image_size", "--image_size=N (image_size=N)")
    raise type(error)(text) from error


def number_sides(
  members: Side,
  nonmembers: Side | None,
  num_classes: int,
  classes: Sequence[str] | None = None,
) -> list[np.ndarray]:
  """Labels i64[N] of either side, so that one class has one number on both.

  Args:
    members: one side; with `nonmembers` None the only one.
    nonmembers: the other.
    num_classes: K, of the classifier.
    classes: names of the classifier's classes in the order of its outputs; None for those of
      both sides, sorted.

  Raises:
    ValueError: a class is on one side only, there are not K of them, or a label is none.
  """
  sides = [side for side in (members, nonmembers) if side is not None]
  named = [side.classes for side in sides if side.classes is not None]
  if named and classes is None:
    classes = _common_classes(named, num_classes)
  numbered = []
  for side in sides:
    labels = side.labels
    if side.classes is not None:
      places = {name: place for place, name in enumerate(classes)}
      if unknown := sorted(set(side.classes) - set(places)):
        raise ValueError(
          f"There is a class folder {unknown[0]!r}, which is none of --classes: "
          f"{', '.join(classes)}."
        )
      labels = np.array([places[name] for name in side.classes])[labels]
    check_labels("labels", labels, num_classes)
    numbered.append(labels.astype(np.int64))
  return numbered


def check_alike(members: Side, nonmembers: Side) -> None:
  """Raises ValueError where the sides differ in what is no membership, or share an image."""
  shapes = [side.images.shape[1:] for side in (members, nonmembers)]
  if shapes[0] != shapes[1]:
    kinds = [
      f"{height}x{width} in {'gray' if channels == 1 else f'{channels} channels'}"
      for height, width, channels in shapes
    ]
    raise ValueError(
      f"Members are {kinds[0]}, non-members {kinds[1]}; expected the same, or any attack tells "
      "them apart by that. Convert the files, or scale both by --image_size=N (image_size=N)."
    )
  first, second = (_places(side.floats) for side in (members, nonmembers))
  if both := sorted(first.keys() & second.keys(), key=first.get):
    place = first[both[0]], second[both[0]]
    raise ValueError(
      f"{len(both)} images are on both sides, such as {members.names[place[0]]} of the "
      f"members, which is {nonmembers.names[place[1]]} of the non-members; expected each on "
      "one."
    )


def in_order(side: Side) -> Side:
  """The samples in the order of a digest of their images, however they came.

  So what is drawn by chance for a sample is the same for a folder and for an archive of it.
  """
  digests = [hashlib.sha256(image.tobytes()).digest() for image in side.floats]
  rows = sorted(range(len(digests)), key=digests.__getitem__)
  names = [side.names[row] for row in rows]
  return side._replace(images=side.images[rows], labels=side.labels[rows], names=names)


def of_arrays(name: str, images: np.ndarray, labels: np.ndarray) -> Side:
  """Samples in arrays, images u8[N,H,W,C] or f[N,H,W,C] in [0, 1], labels i[N]."""
  images, labels = (check_numbers(f"{name} {part}", given)
                    for part, given in (("images", images), ("labels", labels)))  # fmt: skip
  if images.dtype != np.uint8:
    # As sources would, of numbers that are no bytes.
    if images.dtype.kind != "f" or images.ndim != 4 or 0 in images.shape:
      raise ValueError(
        f"{name} images are {images.dtype}{list(images.shape)}; expected uint8, or floating "
        "point in [0, 1], [N, H, W, C]."
      )
    images = images.astype(np.float32)
    if not (images.min() >= 0.0 and images.max() <= 1.0):
      raise ValueError(
        f"{name} images range from {images.min()} to {images.max()}; expected [0, 1]."
      )
    check_kinds(np.broadcast_to(np.uint8(0), images.shape), labels=labels)
  else:
    check_kinds(images, labels=labels)
  return Side(images, labels.astype(np.int64), _numbers(name, np.arange(len(labels))), None)


def _of_folder(path, image_size):
  data = folders.load(path, image_size=image_size)
  classes = sorted({file.relative_to(path).parts[0] for file in data.files})
  names = [str(file) for file in data.files]
  return Side(np.asarray(data.images), data.labels.astype(np.int64), names, tuple(classes),
              data.notes)  # fmt: skip


def _of_archive(path, ids=None):
  # Which labels there may be, the classifier says.
  data = npz.load(path, num_classes=MAX_ID)
  data = data if ids is None else data.take(np.array(ids))
  names = _numbers(path.name, data.ids)
  return Side(np.asarray(data.images), data.labels.astype(np.int64), names, None, data.notes)


def _of_index(path, group, image_size):
  try:
    content = json.loads(path.read_text("utf-8-sig"))
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is no index file, JSON: {error}.") from error
  archive = content.get("data") if isinstance(content, dict) else None
  listed = content.get(group) if isinstance(content, dict) else content
  if not isinstance(listed, list) or not listed:
    raise ValueError(
      f"{path} has no list of {group}; expected one, not empty, of paths or ids."
    )
  kinds = {type(item) for item in listed}
  if kinds not in ({str}, {int}) or len(set(listed)) < len(listed):
    raise ValueError(f"{path}: {group} are not all paths, or all ids, each once.")
  if kinds == {int}:
    if not isinstance(archive, str):
      raise ValueError(
        f'{path} names {group} by ids; expected "data", the .npz that they are of, or paths.'
      )
    return _of_archive(path.parent / archive, listed)
  files = [path.parent / name for name in listed]
  images = read_images(files, image_size, in_memory=True).images
  folders_of = [file.absolute().parent.name for file in files]
  classes, labels = np.unique(folders_of, return_inverse=True)
  return Side(np.asarray(images), labels, [str(file) for file in files],
              tuple(classes.tolist()))  # fmt: skip


def _common_classes(named, num_classes):
  """The names of all sides, sorted, as most programs number folders."""
  if only := sorted(set(named[0]) ^ set(named[-1])):
    raise ValueError(
      f"The class {only[0]!r} is on one side only; expected the same on both. Where that is "
      "meant, name the classifier's in the order of its outputs: --classes=NAME,... "
      "(classes=[...])."
    )
  classes = sorted(set(named[0]))
  if len(classes) != num_classes:
    raise ValueError(
      f"There are {len(classes)} classes, {classes[0]} to {classes[-1]}, and the classifier "
      f"has {num_classes} outputs; name its classes in their order: --classes=NAME,... "
      "(classes=[...])."
    )
  if all(name.isdecimal() for name in classes) and sorted(classes, key=int) != classes:
    raise ValueError(
      f"Classes are numbers, whose order as text, {', '.join(classes[:3])}, is not theirs; say "
      "which one is the classifier's: --classes=NAME,... (classes=[...])."
    )
  return classes


def _places(images):
  """The bytes of every image, and where the first of these is."""
  places = {}
  for place, image in enumerate(images):
    places.setdefault(image.tobytes(), place)
  return places


def _numbers(name, ids):
  return [f"{name} {number}" for number in ids.tolist()]
