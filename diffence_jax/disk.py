"""Folders and files on disk: there whole or not at all, and known again by their digests.

All that is kept, an artifact of an experiment or a saved model, is a folder that was committed:
its files, and a manifest with their digests, which is written last.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from diffence_jax.checks import check_instance

# In a folder that is not committed yet: what a killed process left to go on from.
RESUME = "resume"


class ArtifactError(ValueError):
  """A folder on disk is damaged, or cannot be used."""


def file_digest(path: str | os.PathLike) -> str:
  """SHA-256 of a file, in hexadecimal."""
  with open(path, "rb") as handle:
    return hashlib.file_digest(handle, "sha256").hexdigest()


def content_digest(value: Any) -> str:
  """SHA-256, in hexadecimal, of a value that JSON has."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sync(path: str | os.PathLike) -> None:
  """Waits until a file, or what a folder lists, is on disk."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def write_atomically(path: Path, content: str | bytes) -> None:
  """Writes a file, text as UTF-8, so that it is there whole or not at all."""
  with replaced(path) as temporary, open(create(temporary), "wb") as handle:
    handle.write(content.encode() if isinstance(content, str) else content)


def create(path: Path, mode: int = 0o666) -> int:
  """Makes a new file to write, never through a link that somebody else put there."""
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
  return os.open(path, flags, mode)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
  """Gives the name of a file to write beside `path`, which then takes its place.

  Raises:
    ValueError: `path` is there and no regular file, such as a device.
  """
  if os.path.lexists(path) and not path.is_file():
    raise ValueError(f"{path} is there already and is no regular file; choose another name.")
  temporary = path.with_name(f".{path.name}.tmp")
  temporary.unlink(missing_ok=True)
  try:
    yield temporary
    sync(temporary)
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def private_text(path: Path) -> Iterator[TextIO]:
  """Opens a text file to write that its owner alone can read, there whole or not at all."""
  with (
    replaced(path) as temporary,
    open(create(temporary, 0o600), "w", newline="", encoding="utf-8") as file,
  ):
    yield file


@contextlib.contextmanager
def private_bytes(path: Path) -> Iterator[BinaryIO]:
  """As `private_text`, of a file that is no text."""
  with replaced(path) as temporary, open(create(temporary, 0o600), "wb") as file:
    yield file


@contextlib.contextmanager
def private_files() -> Iterator[None]:
  """Meanwhile, whatever this process makes can be read by its owner alone."""
  before = os.umask(0o077)
  try:
    yield
  finally:
    os.umask(before)


def make_private(workdir: Path) -> None:
  """Makes a workdir, if it is not there, that its owner alone can read."""
  if not workdir.is_dir():
    workdir.mkdir(parents=True, exist_ok=True)
    workdir.chmod(0o700)


def remove_folder(folder: Path) -> None:
  """Removes a folder, or what is left of it under another name by a call that was killed."""
  removed = folder.with_name(f"{folder.name}.removed")
  shutil.rmtree(removed, ignore_errors=True)
  if folder.is_dir():
    folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def link_or_copy(source: Path, path: Path) -> None:
  """Puts a file at another place too, in place of what is there.

  Args:
    source: the file.
    path: becomes a hard link to it, or a copy where the file system has none. Whoever replaces
      one of the two, as all here do, leaves the other as it is.
  """
  if path.is_file() and path.samefile(source):
    return
  with replaced(path) as temporary:
    try:
      os.link(source, temporary)
    except OSError:
      shutil.copy(source, temporary)


def check_file(path: str | Path, remedy: str) -> None:
  """Raises unless there is a regular file: what is none, such as a pipe, may never be read.

  Args:
    path: of the file.
    remedy: what to do, a sentence without its end.

  Raises:
    TypeError: it is no path.
    FileNotFoundError: there is nothing.
    ValueError: there is something else.
  """
  check_instance("path", path, str, os.PathLike)
  if not Path(path).exists():
    raise FileNotFoundError(f"There is no file {path}; {remedy}.")
  if not Path(path).is_file():
    raise ValueError(f"{path} is no regular file; {remedy}.")


def check_room(folder: Path, num_bytes: int) -> None:
  """Raises OSError unless there is room for so many bytes where a folder is, or will be.

  For what is written by others, who leave half of it and a long complaint behind.
  """
  there = next(path for path in (folder, *folder.parents) if path.exists())
  free = shutil.disk_usage(there).free
  if free < num_bytes:
    raise full(
      folder, f"{num_bytes / 2**20:.1f} MiB are to be written, {free / 2**20:.1f} are free"
    )


def full(folder: Path, what: str) -> OSError:
  """The error for a disk, or a quota, that has no room left."""
  return OSError(
    f"The disk of {folder}, or the quota there, is full: {what}. Make room and run the same "
    "again."
  )


@contextlib.contextmanager
def naming_full(folder: Path) -> Iterator[None]:
  """Meanwhile, whoever finds the disk full says of which folder: NumPy says no more than errno.

  Raises:
    OSError: as `full`.
  """
  try:
    yield
  except OSError as error:
    if not is_full(error):
      raise
    raise full(folder, error.strerror or str(error)) from error


def is_full(error: BaseException) -> bool:
  """Whether an error says that a disk has no room left, in whosever words."""
  if isinstance(error, OSError) and error.errno is not None:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
  return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def write_checked(path: Path, content: bytes) -> None:
  """Writes a file that `read_checked` knows again: the content's SHA-256, then the content."""
  write_atomically(path, hashlib.sha256(content).digest() + content)


def read_checked(path: Path) -> bytes | None:
  """What `write_checked` wrote; None where it is not there, or damaged, which is warned of."""
  if not path.is_file():
    return None
  written = path.read_bytes()
  digest, content = written[:32], written[32:]
  if hashlib.sha256(content).digest() == digest:
    return content
  warnings.warn(f"{path} is damaged; what it held is computed anew.", stacklevel=2)
  return None


def check_free(path: str | os.PathLike) -> None:
  """Raises FileExistsError where there is something at `path`."""
  if os.path.lexists(path):
    raise FileExistsError(
      f"{path} is there already, and is not overwritten. Delete it, or choose another folder."
    )


@contextlib.contextmanager
def new_folder(path: Path, manifest: str) -> Iterator[tuple[Path, dict[str, Any]]]:
  """Gives a folder to write files into, which is then a new one, whole or not at all.

  Args:
    path: the new folder; the one that it is to lie in is there.
    manifest: the name of the manifest's file.

  Yields:
    The folder to write into; and a dict, empty yet, of what the manifest says besides.

  Raises:
    FileExistsError: there is something at `path`.
  """
  check_free(path)
  partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
  shutil.rmtree(partial, ignore_errors=True)  # of a killed process that had the number
  partial.mkdir()
  about: dict[str, Any] = {}
  try:
    yield partial, about
    check_free(path)  # renaming would replace an empty folder made in the meantime
    commit(partial, path, manifest, about)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise


def commit(partial: Path, path: Path, manifest: str, about: Mapping[str, Any]) -> None:
  """Makes a folder of what lies in `partial`: its files, and a manifest that names them.

  Killed before the manifest is there, nothing is committed; afterwards a call with the same
  arguments needs only to rename.

  Args:
    partial: holds the files; a sub-folder `RESUME` in it is not kept.
    path: the folder, which is not there yet.
    manifest: the name of the manifest's file.
    about: JSON-able, what the manifest says besides.
  """
  if not (partial / manifest).is_file():
    files = sorted(file.relative_to(partial) for file in partial.rglob("*") if file.is_file())
    # Neither what is only for resuming, nor what a killed `write_atomically` left.
    files = [f for f in files if f.parts[0] != RESUME and not f.name.startswith(".")]
    for file in files:
      sync(partial / file)
    digests = {file.as_posix(): file_digest(partial / file) for file in files}
    text = json.dumps({**about, "files": digests}, indent=2, sort_keys=True)
    write_atomically(partial / manifest, text + "\n")
  shutil.rmtree(partial / RESUME, ignore_errors=True)
  sync(partial)
  partial.rename(path)
  sync(path.parent)


def read_manifest(path: Path, manifest: str, remedy: str) -> dict[str, Any]:
  """Reads what `commit` wrote about a folder.

  Args:
    path: the folder.
    manifest: the name of the manifest's file.
    remedy: what to do where it is damaged.

  Raises:
    ArtifactError: the manifest is damaged.
    OSError: it cannot be read.
  """
  file = path / manifest
  if not file.is_file():
    raise damaged(file, "is missing", remedy)
  try:
    content = json.loads(file.read_text(encoding="utf-8"))
  except ValueError as error:
    raise damaged(file, f"is no JSON ({error})", remedy) from error
  files = content.get("files") if isinstance(content, dict) else None
  # Of none, nothing would be verified.
  if not isinstance(files, dict) or not files or not all(map(_is_inside, files)):
    raise damaged(file, "is no list of the folder's files", remedy)
  return content


def verify(path: Path, content: Mapping[str, Any], remedy: str) -> None:
  """Raises ArtifactError unless every file of a folder has the digest that its manifest has."""
  for name, expected in content["files"].items():
    if not (path / name).is_file():
      raise damaged(path / name, "is missing", remedy)
    if file_digest(path / name) != expected:
      raise damaged(path / name, "is not what was written", remedy)


def damaged(file: Path, what: str, remedy: str) -> ArtifactError:
  """The error for a file that is not as it was written."""
  return ArtifactError(f"{file} {what}; it is damaged. {remedy}")


def _is_inside(name):
  """Whether a file of a manifest is in its folder."""
  path = Path(name)
  return name != "" and not path.is_absolute() and ".." not in path.parts
