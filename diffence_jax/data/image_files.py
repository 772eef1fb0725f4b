"""Image files: which there are below a folder, and their ids."""

import dataclasses
import functools
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from diffence_jax.rng import MAX_ID

# What Pillow knows by its name only, or leaves to other programs.
_NOT_READ = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
# Put there by file servers and systems, not by people; so is what begins with a dot.
_NOBODYS = ("#recycle", "$RECYCLE.BIN", "@eaDir", "Thumbs.db", "__MACOSX", "desktop.ini",
            "lost+found")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Listing:
  """What lies below a folder.

  Attributes:
    images: files with an ending of images, in the order of their names.
    others: all other files.
    repeated: links to folders that are among those found without them.
  """

  images: list[Path]
  others: list[Path]
  repeated: list[Path]


def check_folder(path: str | os.PathLike, expected: str) -> Path:
  """The folder; FileNotFoundError if there is none, `expected` says what it should be."""
  root = Path(path)
  if not root.is_dir():
    raise FileNotFoundError(f"There is no folder {path}; expected {expected}.")
  return root


@functools.cache
def image_formats() -> tuple[str, ...]:
  """Pillow's names of the formats that are read; no other program is started for any."""
  Image.init()
  return tuple(sorted(set(Image.OPEN) - set(_NOT_READ)))


@functools.cache
def image_endings() -> tuple[str, ...]:
  """The endings of these formats' files, in small letters."""
  known = Image.registered_extensions()
  return tuple(sorted(ending for ending in known if known[ending] in image_formats()))


def find_images(folder: Path) -> Listing:
  """All image files below a folder, and below the folders that links in it lead to.

  Hidden files and folders, and what systems put there, are passed over.

  Raises:
    FileNotFoundError: a link leads nowhere.
    OSError: a folder cannot be read.
  """
  listing = Listing([], [], [])
  folders, links, seen = [folder], [], set()
  # A folder is read once, and under its own name rather than a link's, so that ids stay.
  while folders or links:
    here = folders.pop() if folders else links.pop(0)
    status = here.stat()
    if (status.st_dev, status.st_ino) in seen:
      listing.repeated.append(here)
      continue
    seen.add((status.st_dev, status.st_ino))
    for path in visible(here):
      if path.is_dir():
        (links if path.is_symlink() else folders).append(path)
      else:
        is_image = path.suffix.lower() in image_endings()
        (listing.images if is_image else listing.others).append(path)
  for files in (listing.images, listing.others, listing.repeated):
    files.sort()
  return listing


def visible(folder: Path) -> list[Path]:
  """What people put into a folder, in the order of the names; see `find_images`."""
  paths = sorted(
    path for path in folder.iterdir()
    if not path.name.startswith(".") and path.name not in _NOBODYS
  )  # fmt: skip
  for path in paths:
    if path.is_symlink() and not path.exists():
      raise FileNotFoundError(
        f"The link {path} leads nowhere ({os.readlink(path)}); mend it or remove it."
      )
  return paths


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
    content = name.encode("utf-8", "surrogateescape")  # as on disk, also where it is no UTF-8
    number, tries = zlib.crc32(content) & MAX_ID, 0
    while number in ids:
      tries += 1
      number = zlib.crc32(content + f"\0{tries}".encode()) & MAX_ID
    ids[number] = None
  return np.array(list(ids), np.int64)
