"""How image files become arrays."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from diffence_jax.checks import check_whole
from diffence_jax.data.image_files import image_formats
from diffence_jax.data.memory import check_memory
from diffence_jax.data.streaming import Images, StreamedImages

# Files that are decoded at the same time.
_THREADS = min(16, os.cpu_count() or 1)
_MOST_PIXELS_A_SIDE = 16_384
# Of EXIF's eight orientations those that exchange width and height; 1 is an image as it is.
_ON_ITS_SIDE = (5, 6, 7, 8)


class Read(NamedTuple):
  """Images of files.

  Attributes:
    images: u8[N,H,W,C].
    num_turned: how many have an EXIF orientation, by which viewers turn or mirror them.
  """

  images: Images
  num_turned: int


class _Header(NamedTuple):
  is_gray: bool
  size: tuple[int, int]  # width and height
  orientation: int


def read_images(
  files: Sequence[Path], image_size: int | None, in_memory: bool, orient: bool = False
) -> Read:
  """Images of files, all of one size.

  Every file is opened for its mode and its size, so that one that is no image is found here;
  pixels are decoded, by several threads, here or when they are asked for.

  Args:
    files: at least one.
    image_size: the side that images are scaled to (the shorter one, antialiased, then cropped
      to a square from the middle), up to 16,384; None takes images as they are.
    in_memory: whether all images are decoded now, and kept.
    orient: whether images are turned as their EXIF orientation says.

  Returns:
    u8[N,H,W,C]; gray, C = 1, if all files are gray, else colour, C = 3. Images that are not in
    memory raise ValueError when they are read and turn out to be damaged.

  Raises:
    ValueError: a file is not an image or damaged, too large, or a gray one of more than 8 bits;
      or sizes differ; or all together take more memory than there is.
  """
  if image_size is not None:
    check_whole("image_size", image_size, 1, _MOST_PIXELS_A_SIDE)
  headers = _in_threads(_header, files)
  mode = "L" if all(header.is_gray for header in headers) else "RGB"
  sizes = [_turned(header) if orient else header.size for header in headers]
  width, height = size = sizes[0] if image_size is None else (image_size, image_size)
  for file, file_size in zip(files, sizes, strict=True):
    _check_pixels(file, file_size if image_size is None else _scaled(file_size, image_size))
    if image_size is None and file_size != size:
      raise ValueError(
        f"{file} is {file_size[0]}x{file_size[1]} and {files[0].name} is {width}x{height}; "
        "set data.options.image_size."
      )
  shape = (height, width, len(mode))

  def read(rows: np.ndarray) -> np.ndarray:
    images = np.empty((len(rows), *shape), np.uint8)

    def decode(place: int) -> None:
      file = files[rows[place]]
      image = _decode(file, mode, image_size, orient)
      if image.shape[:2] != shape[:2]:
        raise ValueError(f"{file} has another size than when the run began; run again.")
      images[place] = image.reshape(shape)

    _in_threads(decode, range(len(rows)))
    return images

  streamed = StreamedImages(read, (len(files), *shape), name_of=lambda row: str(files[row]))
  if in_memory:
    total = len(files) * height * width * len(mode)
    remedy = "set data.options.in_memory=False, or a smaller data.options.image_size"
    check_memory(f"{len(files)} images of {width}x{height}", total, remedy)
  images = np.asarray(streamed) if in_memory else streamed
  return Read(images, sum(header.orientation != 1 for header in headers))


def _in_threads(function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
  with ThreadPoolExecutor(_THREADS) as pool:
    return list(pool.map(function, values))


def _header(file):
  """What is known of an image before it is decoded."""
  if not file.is_file():  # a pipe would be waited for
    raise ValueError(f"{file} is no regular file; remove it.")
  try:
    with _open(file) as image:
      mode, size, orientation = image.mode, image.size, _orientation(image)
  except Image.DecompressionBombError:
    raise _too_large(file) from None
  except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
    raise _damaged(file, error) from error
  if mode.startswith(("I", "F")):  # Pillow cuts these off at 255: nearly all white.
    raise ValueError(f"{file} is gray with more than 8 bits; scale it to 8 bits first.")
  _check_pixels(file, size)
  return _Header(_is_gray(mode), size, orientation)


def _orientation(image):
  """EXIF's, 1 to 8; 1 where it says nothing."""
  if "exif" not in image.info:  # nor in the header: Pillow would decode the image for it
    return 1
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # as for damaged images, but the image may be whole
    return 1
  return orientation if orientation in range(1, 9) else 1


def _open(file):
  return Image.open(file, formats=image_formats())


def _turned(header):
  return header.size[::-1] if header.orientation in _ON_ITS_SIDE else header.size


def _check_pixels(file, size):
  """Pillow's own bound, at which it warns; see PIL.Image.MAX_IMAGE_PIXELS."""
  most = Image.MAX_IMAGE_PIXELS
  if most is not None and size[0] * size[1] > most:
    raise _too_large(file)


def _too_large(file):
  return ValueError(
    f"{file} has, or is scaled to, more than {Image.MAX_IMAGE_PIXELS:,} pixels, the bound "
    "PIL.Image.MAX_IMAGE_PIXELS; scale it down or crop it first."
  )


def _decode(file, mode, image_size, orient):
  """u8[H,W] or u8[H,W,3]."""
  try:
    with _open(file) as image:
      if orient:
        ImageOps.exif_transpose(image, in_place=True)
      image = image.convert("L" if _is_gray(image.mode) else "RGB")
  except Exception as error:
    raise _damaged(file, error) from error
  if image_size is not None:
    image = image.resize(_scaled(image.size, image_size))
    left, top = ((side - image_size) // 2 for side in image.size)
    image = image.crop((left, top, left + image_size, top + image_size))
  return np.asarray(image.convert(mode))


def _scaled(size, image_size):
  """The size whose shorter side is `image_size`."""
  scale = image_size / min(size)
  return tuple(max(image_size, round(side * scale)) for side in size)


def _is_gray(mode):
  return mode in ("1", "L", "LA")


def _damaged(file, error):
  return ValueError(f"{file} cannot be read as an image: {error}.")
