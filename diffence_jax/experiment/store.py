"""The store of finished stages: content-addressed, committed by one rename, verified."""

import contextlib
import copy
import dataclasses
import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffence_jax import disk
from diffence_jax.disk import ArtifactError
from diffence_jax.experiment.stage import Stage, describe

_MANIFEST = "manifest.json"
# What tells workdirs of this version from those of others.
_FORMAT_FILE = "format.json"
_FORMAT = 2


class Store:
  """Artifacts under `workdir/<stage>/<fingerprint>/`.

  A stage is computed in `<fingerprint>.partial/`, which a killed run leaves behind and the
  next one resumes from; when all is there the manifest is written and the folder renamed, so
  a folder without the suffix is complete.
  """

  def __init__(self, workdir: str | os.PathLike, record: Mapping[str, Any] | None = None):
    """Opens the store; nothing is created until something is computed.

    Args:
      workdir: the folder.
      record: JSON-able facts for the manifests (versions, device).

    Raises:
      ArtifactError: the folder is the workdir of another version of diffence_jax.
    """
    self.workdir = Path(workdir).expanduser()
    self.record = dict(record or {})
    self._verified: set[Path] = set()
    self._readable: set[Path] | None = None  # all
    try:
      _check_format(self.workdir)
    except OSError as error:
      raise ArtifactError(
        f"The workdir {self.workdir} cannot be read: {error.strerror}. Take another workdir, "
        "or mend this one."
      ) from error

  def prepare(self) -> None:
    """Makes the workdir, if it is not there, and marks it as one of this version."""
    disk.make_private(self.workdir)
    if not (self.workdir / _FORMAT_FILE).is_file():
      content = json.dumps({"workdir_format": _FORMAT})
      disk.write_atomically(self.workdir / _FORMAT_FILE, content + "\n")

  def for_inputs_of(self, stage: Stage, items: Sequence[Stage] = ()) -> "Store":
    """The same store, but only what `stage` depends on, and its items, can be read from it."""
    limited, waiting = copy.copy(self), [*stage.inputs, *items]
    limited._readable = set()
    while waiting:
      other = waiting.pop()
      if self.path(other) not in limited._readable:
        limited._readable.add(self.path(other))
        waiting += other.inputs
    return limited

  def path(self, stage: Stage) -> Path:
    """Where the artifact of `stage` is, or will be."""
    return self.workdir / stage.name / stage.fingerprint

  def is_done(self, stage: Stage) -> bool:
    """Whether the artifact of `stage` is there."""
    return (self.path(stage) / _MANIFEST).is_file()

  def partial(self, stage: Stage) -> Path:
    """Where the artifact of `stage` is while it is being written."""
    path = self.path(stage)
    return path.with_name(f"{path.name}.partial")

  def is_written(self, stage: Stage) -> bool:
    """Whether the artifact of `stage` is whole, if perhaps not committed."""
    # The manifest is the last file written.
    return self.is_done(stage) or (self.partial(stage) / _MANIFEST).is_file()

  def open(self, stage: Stage) -> Path:
    """The folder of a finished artifact, to read from.

    Raises:
      FileNotFoundError: it is not there.
      ArtifactError: it is damaged; looked at once.
      LookupError: see `for_inputs_of`.
    """
    if self._readable is not None and self.path(stage) not in self._readable:
      raise LookupError(f"The stage reads the {stage.name}, which is no field of it.")
    if not self.is_done(stage):
      raise FileNotFoundError(
        f"{self.workdir} has no {stage.name} of this config ({stage.fingerprint}); first run "
        "diffence with the same --config and --workdir."
      )
    self.verify(stage)
    return self.path(stage)

  def compute(
    self,
    stage: Stage,
    write: Callable[[Path], None],
    parts: Sequence[Stage] = (),
    since: float | None = None,
  ) -> Path:
    """Returns the verified artifact of `stage`, computing it first if it is not there.

    Args:
      stage: the stage.
      write: writes the artifact's files into the folder it is given; see `Stage.compute`.
      parts: artifacts that it is made of: their seconds are part of its own.
      since: the `time.perf_counter()` at which work on it began; None for now.

    Returns:
      The artifact's folder.

    Raises:
      ArtifactError: a finished artifact is damaged.
      OSError: the disk is full, or cannot be written.
    """
    path = self.path(stage)
    since = time.perf_counter() if since is None else since
    if not self.is_done(stage):
      with disk.naming_full(self.workdir):
        self._compute(stage, path, write, parts, since)
    self.verify(stage)
    return path

  def _compute(self, stage, path, write, parts, since):
    """Computes an artifact that is not there, and commits it."""
    if os.path.lexists(path):  # a link that leads nowhere, too
      raise disk.damaged(path / _MANIFEST, "is missing", _remedy(path))
    partial = self.partial(stage)
    resumed = partial.exists()
    self.prepare()
    try:
      partial.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
      raise ArtifactError(
        f"{partial} cannot be made: {error.strerror}. Delete the file or link that is in its "
        "place, and run again."
      ) from error
    start = since - sum(self.manifest(part)["seconds"] for part in parts)
    if not self.is_written(stage):
      write(partial)
    about = {
      "stage": stage.name,
      "fingerprint": stage.fingerprint,
      "fields": {f.name: describe(getattr(stage, f.name)) for f in dataclasses.fields(stage)},
      "inputs": [f"{other.name}/{other.fingerprint}" for other in stage.inputs],
      "seconds": round(time.perf_counter() - start, 2),
      "resumed": resumed,  # then the seconds are those of the last run only
      **self.record,
    }
    disk.commit(partial, path, _MANIFEST, about)

  def manifest(self, stage: Stage) -> dict[str, Any]:
    """What was recorded when the artifact of `stage` was committed.

    Raises:
      ArtifactError: the manifest is damaged.
      OSError: it cannot be read.
    """
    path = self.path(stage)
    content = disk.read_manifest(path, _MANIFEST, _remedy(path))
    if not (
      isinstance(content.get("seconds"), (int, float))
      and math.isfinite(content["seconds"])
      and isinstance(content.get("resumed"), bool)
      and content.get("fingerprint") == stage.fingerprint
    ):
      raise disk.damaged(path / _MANIFEST, "is not of this artifact", _remedy(path))
    return content

  def verify(self, stage: Stage) -> None:
    """Raises ArtifactError unless every file of the artifact has its recorded digest."""
    path = self.path(stage)
    if path not in self._verified:
      disk.verify(path, self.manifest(stage), _remedy(path))
      self._verified.add(path)


@contextlib.contextmanager
def locked(workdir: str | os.PathLike, *, shared: bool = False) -> Iterator[None]:
  """Keeps other runs out of `workdir`; a killed run's lock goes with it.

  Args:
    workdir: the folder.
    shared: whether others that share it, by `claims`, are let in.

  Raises:
    ArtifactError: another run holds the lock, or the folder cannot be written or locked.
  """
  workdir = Path(workdir).expanduser()
  flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
  try:
    disk.make_private(workdir)
    handle = os.open(workdir / ".lock", flags, 0o600)
  except OSError as error:
    raise ArtifactError(f"The workdir {workdir} cannot be written: {error}.") from error
  try:
    _lock(handle, workdir, shared)
    yield
  finally:
    os.close(handle)


def _lock(handle: int, workdir: Path, shared: bool) -> None:
  try:
    fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise ArtifactError(
      f"Another run is using the workdir {workdir}; wait for it or choose another."
    ) from error
  except OSError as error:  # ENOSYS, ENOLCK: network file systems that are mounted without
    if shared:  # claims do without
      return
    raise ArtifactError(
      f"The file system of the workdir {workdir} has no locks ({error}); choose a workdir on "
      "another one, mount it with locks, or run with --share, which does without."
    ) from error


def _remedy(path: Path) -> str:
  return f"Delete the folder {path} and run again to compute it anew."


def _check_format(workdir: Path) -> None:
  """Raises ArtifactError where a workdir is of another version."""
  file = workdir / _FORMAT_FILE
  if os.path.lexists(file) and not file.is_file():
    raise ArtifactError(
      f"{file} is no file, but says which version's the workdir is. Delete it if the workdir "
      "is this version's, or take another workdir."
    )
  if file.is_file():
    try:
      number = json.loads(file.read_text(encoding="utf-8"))["workdir_format"]
    except (ValueError, KeyError, TypeError):
      number = "an unknown format"
  else:
    # Older versions left no such file, but their settings or finished stages.
    is_used = (workdir / "run.json").is_file() or any(workdir.glob(f"*/*/{_MANIFEST}"))
    number = 1 if is_used else _FORMAT
  if number != _FORMAT:
    raise ArtifactError(
      f"The workdir {workdir} is of format {number}, and this version of diffence_jax reads "
      f"format {_FORMAT}: another version made it. Take another workdir."
    )
