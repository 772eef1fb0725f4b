"""Files on disk: what is in them, and whether they are there to stay."""

import hashlib
import os


def file_digest(path: str | os.PathLike) -> str:
  """SHA-256 of a file, in hexadecimal."""
  with open(path, "rb") as handle:
    return hashlib.file_digest(handle, "sha256").hexdigest()


def sync(path: str | os.PathLike) -> None:
  """Waits until a file, or what a folder lists, is on disk."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
