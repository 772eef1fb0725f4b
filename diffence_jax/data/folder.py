"""Image files, a folder a class."""

import zlib
from pathlib import Path

import numpy as np

from diffence_jax.data.dataset import Dataset, make_dataset
from diffence_jax.rng import MAX_ID

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def load(path: str, image_size: int | None = None) -> Dataset:
  """Loads `path/<class>/**/<image>`; classes are numbered in the order of their names.

  Args:
    path: the folder of class folders.
    image_size: the side that images are scaled to (the shorter one, antialiased, then cropped
      to a square from the middle); None takes images as they are, all of one size.

  Returns:
    Gray images if all files are gray, else colour. An id is a checksum of the file's path
    below `path`, so that adding a file changes no other's. Names that begin with a dot are
    passed over.

  Raises:
    FileNotFoundError: there is no such folder, or no images in it.
    ValueError: an image is damaged or a gray one of more than 8 bits, sizes differ, or two ids
      are the same.
  """
  from PIL import Image

  if image_size is not None and image_size < 1:
    raise ValueError(f"data.options.image_size is {image_size}; expected at least 1.")
  root = Path(path)
  if not root.is_dir():
    raise FileNotFoundError(f"There is no folder {path}; expected one with a folder a class.")
  # Not .ipynb_checkpoints or macOS's ._image.png, which would be a class and an image.
  classes = sorted(folder.name for folder in _visible(root, root.iterdir()) if folder.is_dir())
  files = [
    (file, label)
    for label, name in enumerate(classes)
    for file in sorted(_visible(root, (root / name).rglob("*")))
    if file.suffix.lower() in _SUFFIXES
  ]
  if not files:
    raise FileNotFoundError(
      f"There are no images in {path}; expected {path}/<class>/<image>, "
      f"with one of the endings {', '.join(_SUFFIXES)}."
    )
  images = [_open(Image, file, image_size) for file, _ in files]
  mode = "L" if all(image.mode == "L" for image in images) else "RGB"
  arrays = [np.asarray(image.convert(mode)) for image in images]
  for (file, _), array in zip(files, arrays, strict=True):
    if array.shape != arrays[0].shape:
      raise ValueError(
        f"{file} is {array.shape[1]}x{array.shape[0]} and {files[0][0].name} is "
        f"{arrays[0].shape[1]}x{arrays[0].shape[0]}; set data.options.image_size."
      )
  names = [file.relative_to(root).as_posix() for file, _ in files]
  ids = np.array([zlib.crc32(name.encode()) & MAX_ID for name in names], np.int64)
  if len(np.unique(ids)) != len(ids):
    first = {}
    clash = next(
      (n, first[i]) for n, i in zip(names, ids, strict=True) if first.setdefault(i, n) != n
    )
    raise ValueError(f"{clash[0]} and {clash[1]} get the same id; rename one of them.")
  labels = np.array([label for _, label in files])
  return make_dataset(np.stack(arrays), labels, ids, num_classes=len(classes))


def _visible(root, paths):
  for path in paths:
    if not any(part.startswith(".") for part in path.relative_to(root).parts):
      yield path


def _open(Image, file, image_size):
  try:
    with Image.open(file) as image:
      deep = image.mode.startswith(("I", "F"))
      gray = image.mode in ("1", "L", "LA")
      image = image.convert("L" if gray else "RGB")
  except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
    raise ValueError(f"{file} cannot be read as an image: {error}.") from error
  if deep:  # Pillow cuts these off at 255: nearly all white.
    raise ValueError(f"{file} is gray with more than 8 bits; scale it to 8 bits first.")
  if image_size is None:
    return image
  scale = image_size / min(image.size)
  image = image.resize([max(image_size, round(side * scale)) for side in image.size])
  left, top = ((side - image_size) // 2 for side in image.size)
  return image.crop((left, top, left + image_size, top + image_size))
