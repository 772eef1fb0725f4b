"""Image files: which there are, their ids, and how they become arrays."""

import os
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from diffence_jax.data.streaming import Images, StreamedImages
from diffence_jax.rng import MAX_ID

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Files that are decoded at the same time.
_THREADS = min(16, os.cpu_count() or 1)


def check_folder(path: str | os.PathLike, expected: str) -> Path:
  """The folder; FileNotFoundError if there is none, `expected` says what it should be."""
  root = Path(path)
  if not root.is_dir():
    raise FileNotFoundError(f"There is no folder {path}; expected {expected}.")
  return root


def find_images(folder: Path) -> list[Path]:
  """All image files below a folder, in the order of their names.

  Names that begin with a dot are passed over: .ipynb_checkpoints, macOS's ._image.png.
  """
  return sorted(
    file
    for file in folder.rglob("*")
    if file.suffix.lower() in SUFFIXES and not is_hidden(file.relative_to(folder))
  )


def is_hidden(path: Path) -> bool:
  """Whether a part of the path begins with a dot."""
  return any(part.startswith(".") for part in path.parts)


def ids_of(names: Iterable[str]) -> np.ndarray:
  """Ids that files keep whatever other files come and go.

  Args:
    names: of the files, distinct, always in the same order.

  Returns:
    i64[N], 0 to 2**31 - 1, checksums of the names. Among some 60,000 files two with the same
    are to be expected: the later one then takes the checksum of its name and a number.
  """
  ids: dict[int, None] = {}  # in order
  for name in names:
    found, tries = zlib.crc32(name.encode()) & MAX_ID, 0
    while found in ids:
      tries += 1
      found = zlib.crc32(f"{name}\0{tries}".encode()) & MAX_ID
    ids[found] = None
  return np.array(list(ids), np.int64)


def read_images(files: Sequence[Path], image_size: int | None, in_memory: bool) -> Images:
  """Images of files, all of one size.

  Every file is opened for its mode and its size, so that one that is no image is found here;
  pixels are decoded, by several threads, here or when they are asked for.

  Args:
    files: at least one.
    image_size: the side that images are scaled to (the shorter one, antialiased, then cropped
      to a square from the middle); None takes images as they are.
    in_memory: whether all images are decoded now, and kept.

  Returns:
    u8[N,H,W,C]; gray, C = 1, if all files are gray, else colour, C = 3. Images that are not in
    memory raise ValueError when they are read and turn out to be damaged.

  Raises:
    ValueError: a file is not an image or damaged, or a gray one of more than 8 bits; or sizes
      differ; or `image_size` is less than 1.
  """
  if image_size is not None and image_size < 1:
    raise ValueError(f"data.options.image_size is {image_size}; expected at least 1.")
  headers = _in_threads(_header, files)
  mode = "L" if all(gray for gray, _ in headers) else "RGB"
  width, height = size = headers[0][1] if image_size is None else (image_size, image_size)
  if image_size is None:
    for file, (_, own) in zip(files, headers, strict=True):
      if own != size:
        raise ValueError(
          f"{file} is {own[0]}x{own[1]} and {files[0].name} is {width}x{height}; "
          "set data.options.image_size."
        )

  def read(rows: np.ndarray) -> np.ndarray:
    images = np.empty((len(rows), *shape), np.uint8)

    def decode(place: int) -> None:
      file = files[rows[place]]
      image = _decode(file, mode, image_size)
      if image.shape[:2] != shape[:2]:
        raise ValueError(f"{file} has another size than when the run began; run again.")
      images[place] = image.reshape(shape)

    _in_threads(decode, range(len(rows)))
    return images

  shape = (height, width, len(mode))
  streamed = StreamedImages(read, (len(files), *shape))
  return np.asarray(streamed) if in_memory else streamed


def _in_threads(function, values):
  with ThreadPoolExecutor(_THREADS) as pool:
    return list(pool.map(function, values))


def _header(file):
  """Whether an image is gray, and its (width, height)."""
  try:
    with Image.open(file) as image:
      mode, size = image.mode, image.size
  except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
    raise _damaged(file, error) from error
  if mode.startswith(("I", "F")):  # Pillow cuts these off at 255: nearly all white.
    raise ValueError(f"{file} is gray with more than 8 bits; scale it to 8 bits first.")
  return _is_gray(mode), size


def _decode(file, mode, image_size):
  """u8[H,W] or u8[H,W,3]."""
  try:
    with Image.open(file) as image:
      image = image.convert("L" if _is_gray(image.mode) else "RGB")
  except Exception as error:
    raise _damaged(file, error) from error
  if image_size is not None:
    scale = image_size / min(image.size)
    image = image.resize([max(image_size, round(side * scale)) for side in image.size])
    left, top = ((side - image_size) // 2 for side in image.size)
    image = image.crop((left, top, left + image_size, top + image_size))
  return np.asarray(image.convert(mode))


def _is_gray(mode):
  return mode in ("1", "L", "LA")


def _damaged(file, error):
  return ValueError(f"{file} cannot be read as an image: {error}.")
