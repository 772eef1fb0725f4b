"""The store of finished stages: content-addressed, committed by one rename, verified."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffence_jax.config import fingerprint
from diffence_jax.disk import file_digest, sync

_MANIFEST = "manifest.json"
_RESUME = "resume"
# Seconds between two looks at whether another process is done.
_PATIENCE = 0.5


class ArtifactError(Exception):
  """A stored artifact is damaged, or the workdir cannot be used."""


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of an experiment, known by its settings before anything is computed.

  Attributes:
    name: what the stage computes, also its folder in the workdir.
    settings: JSON-able; everything the result depends on besides the inputs, the seed too.
    inputs: the stages whose artifacts this one reads.
    version: raised when the code changes so that old artifacts are no longer right.
  """

  name: str
  settings: Mapping[str, Any]
  inputs: tuple["Stage", ...] = ()
  version: int = 1

  @property
  def fingerprint(self) -> str:
    """16 hexadecimal digits over the name, version, settings and inputs."""
    return fingerprint(
      {
        "stage": self.name,
        "version": self.version,
        "settings": self.settings,
        "inputs": [stage.fingerprint for stage in self.inputs],
      }
    )


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
    """
    self.workdir = Path(workdir)
    self.record = dict(record or {})

  def path(self, stage: Stage) -> Path:
    """Where the artifact of `stage` is, or will be."""
    return self.workdir / stage.name / stage.fingerprint

  def is_done(self, stage: Stage) -> bool:
    """Whether the artifact of `stage` is there."""
    return (self.path(stage) / _MANIFEST).is_file()

  def compute(self, stage: Stage, function: Callable[[Path], None]) -> Path:
    """Returns the verified artifact of `stage`, computing it first if it is not there.

    Args:
      stage: the stage.
      function: writes the artifact's files into the folder it is given, which may hold what
        a killed run left. A sub-folder `resume` in it is not part of the artifact.

    Returns:
      The artifact's folder.

    Raises:
      ArtifactError: a finished artifact is damaged.
    """
    if not self.is_done(stage):
      if self.path(stage).exists():
        raise _damaged(self.path(stage) / _MANIFEST, "is missing")
      partial = self.path(stage).with_name(stage.fingerprint + ".partial")
      resumed = partial.exists()
      partial.mkdir(parents=True, exist_ok=True)
      # The manifest is the last file written: a run killed after that needs only to commit.
      if not (partial / _MANIFEST).is_file():
        start = time.perf_counter()
        function(partial)
        self._write_manifest(stage, partial, time.perf_counter() - start, resumed)
      shutil.rmtree(partial / _RESUME, ignore_errors=True)
      partial.rename(self.path(stage))
      sync(self.path(stage).parent)
    self.verify(stage)
    return self.path(stage)

  def wait(self, stage: Stage) -> Path:
    """Returns the verified artifact of `stage` as soon as another process has computed it."""
    while not self.is_done(stage):
      time.sleep(_PATIENCE)
    self.verify(stage)
    return self.path(stage)

  def manifest(self, stage: Stage) -> dict[str, Any]:
    """What was recorded when the artifact of `stage` was committed.

    Raises:
      ArtifactError: the manifest cannot be read.
    """
    path = self.path(stage) / _MANIFEST
    try:
      return json.loads(path.read_text())
    except (OSError, ValueError) as error:
      raise _damaged(path, f"cannot be read ({error})") from error

  def verify(self, stage: Stage) -> None:
    """Raises ArtifactError unless every file of the artifact has its recorded digest."""
    for name, expected in self.manifest(stage)["files"].items():
      path = self.path(stage) / name
      if not path.is_file():
        raise _damaged(path, "is missing")
      if file_digest(path) != expected:
        raise _damaged(path, "is not what was written")

  def _write_manifest(self, stage, partial, seconds, resumed):
    files = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
    # Neither what is only for resuming, nor what a killed `write_atomically` left.
    files = [p for p in files if p.parts[0] != _RESUME and not p.name.startswith(".")]
    manifest = {
      "stage": stage.name,
      "fingerprint": stage.fingerprint,
      "settings": dict(stage.settings),
      "inputs": {other.name: other.fingerprint for other in stage.inputs},
      "seconds": round(seconds, 2),
      "resumed": resumed,  # then the seconds are those of the last run only
      **self.record,
      "files": {str(p): file_digest(partial / p) for p in files},
    }
    write_atomically(partial / _MANIFEST, json.dumps(manifest, indent=2, sort_keys=True))


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
  """Keeps other runs out of `workdir`; a killed run's lock goes with it.

  Raises:
    ArtifactError: another run holds the lock, or the folder cannot be written.
  """
  workdir = Path(workdir)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    handle = open(workdir / ".lock", "w")  # noqa: SIM115, closed below
  except OSError as error:
    raise ArtifactError(f"The workdir {workdir} cannot be written: {error}.") from error
  with handle:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise ArtifactError(
        f"Another run is using the workdir {workdir}; wait for it or choose another."
      ) from error
    yield


def write_atomically(path: Path, content: str | bytes) -> None:
  """Writes a file, text as UTF-8, so that it is there whole or not at all."""
  temporary = path.with_name(f".{path.name}.tmp")
  try:
    with open(temporary, "wb") as handle:
      handle.write(content.encode() if isinstance(content, str) else content)
      handle.flush()
      os.fsync(handle.fileno())
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def _damaged(path, what):
  return ArtifactError(
    f"{path} {what}; the artifact is damaged. Delete the folder {path.parent} and run again "
    "to compute it anew."
  )
