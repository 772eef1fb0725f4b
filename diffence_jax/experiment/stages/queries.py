"""The stage that records queries, for one classifier or for several at once."""

import abc
import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffence_jax import models, parallel, rng
from diffence_jax.audit.predictors import ModelRecord
from diffence_jax.audit.record import RECORDED, make_recorder, record_queries, rows_axis
from diffence_jax.audit.record_files import join_records, read_model
from diffence_jax.defense.policy import Record
from diffence_jax.disk import read_checked, write_checked
from diffence_jax.experiment.parts import InParts, Part
from diffence_jax.experiment.purification import Purification
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute, Stage, fingerprint
from diffence_jax.experiment.stages.diffusion import SavedDiffusion, TrainedDiffusion
from diffence_jax.experiment.stages.target import Target
from diffence_jax.experiment.store import Store
from diffence_jax.predictor import Bound


class Asked(NamedTuple):
  """Whose answers are recorded, and to what; see `audit.record.record_queries`.

  Attributes:
    classifier: the classifier, or an ensemble.
    read_images: rows i64[B] to images u8[B,H,W,C].
    ids: i64[N], of all rows.
    num_models: S, of an ensemble; None for a classifier alone.
  """

  classifier: Bound
  read_images: Callable[[np.ndarray], np.ndarray]
  ids: np.ndarray
  num_models: int | None = None


@dataclasses.dataclass(frozen=True)
class Recording(Stage):
  """A stage that sends images through a diffusion model and records what is answered.

  Attributes:
    diffusion: the diffusion model.
    purification: how images are re-generated.
    samples: what is asked about.
    num_recorded: R, candidates of every image.
    seed: of the run.
  """

  diffusion: TrainedDiffusion | SavedDiffusion
  purification: Purification
  samples: Samples
  num_recorded: int
  seed: int

  def record(self, folder: Path, store: Store, compute: Compute, asked: Asked) -> None:
    """Records all answers; see `audit.record.record_queries`."""
    args, options = self.recorded(store, compute, asked, compute.batch_size)
    record_queries(*args, directory=folder, **options)

  def recorded(
    self, store: Store, compute: Compute, asked: Asked, batch_size: int
  ) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What `audit.record.make_recorder` takes: the arguments, and those with names."""
    arguments = (
      rng.stream(self.seed, self.name),
      asked.classifier,
      self.purification.network(self.diffusion.load(store)),
      self.purification.sampler_schedule(),
      asked.read_images,
      asked.ids,
    )
    return arguments, {
      "batch_size": batch_size,
      "mesh": parallel.batch_mesh(),
      "num_models": asked.num_models,
      "num_candidates": self.num_recorded,
      "chunk_size": compute.chunk_size,
      **self.purification.sampler,
    }

  @property
  def is_conditional(self) -> bool:
    """Whether an image is re-generated under the label that the classifier gives it."""
    return models.is_conditional(self.diffusion.bound.module)

  def num_evaluations(self, versions: int = 1) -> int:
    """Of the diffusion model, with so many versions of every image."""
    return len(self.samples) * versions * self.num_recorded * self.purification.num_ddim_steps

  def load_model(
    self, store: Store, model: int | None = None, versions: int = 1
  ) -> ModelRecord:
    """One model's answers of a finished record, with the images' versions apart.

    Args:
      store: where it is.
      model: its number in an ensemble's record; None for the record of a single one.
      versions: A, in how many versions every image was asked about.
    """
    folder = store.open(self)
    arrays = [read_model(folder / name, model) for name in ("raw.npy", "candidates.npy")]
    return ModelRecord(*(a.reshape(-1, versions, *a.shape[1:]) for a in arrays))


@dataclasses.dataclass(frozen=True)
class RecordInParts(Recording, InParts):
  """A record whose images are shared out: what is answered to one depends on no other."""

  @abc.abstractmethod
  def asked(self, store: Store, compute: Compute) -> Asked:
    """Whose answers are recorded, and to what."""

  @property
  def num_models(self) -> int | None:
    """S, of an ensemble; None for a classifier alone."""
    return None

  def rows_at_once(self, compute: Compute) -> int:
    """A batch."""
    return compute.batch_size

  def part_writer(self, store: Store, compute: Compute) -> Callable[[Part, Path], None]:
    """What writes some rows of `raw.npy` and `candidates.npy`."""
    asked = self.asked(store, compute)
    args, options = self.recorded(store, compute, asked, self.rows_at_once(compute))
    record = make_recorder(*args, **options)

    def write(part, folder):
      for _ in record(folder, part.start, part.stop):
        pass

    return write

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Joins the parts to `raw.npy` and `candidates.npy`, of the shapes in `asked`."""
    parts = [store.open(part) for part in self.items(compute)]
    axis = rows_axis(self.num_models)
    join_records(folder, parts, RECORDED, self.num_rows, axis=axis)


@dataclasses.dataclass(frozen=True)
class Queries(RecordInParts):
  """What the target answers to every sample and its candidates.

  Attributes:
    classifier: the target.
  """

  name: ClassVar[str] = "queries"

  classifier: Target

  @property
  def num_rows(self) -> int:
    """N, samples."""
    return len(self.samples)

  def asked(self, store: Store, compute: Compute) -> Asked:
    """What makes `raw.npy` f32[N,K] and `candidates.npy` f32[N,R,K]."""
    del compute
    images = self.samples.images
    return Asked(self.classifier.load(store), images.__getitem__, self.samples.ids)

  def load(self, store: Store, num_candidates: int | None = None) -> Record:
    """The record of a finished stage, with the first M of the candidates."""
    record = self.load_model(store)
    candidates = record.candidates[:, 0, :num_candidates]
    return Record(record.raw[:, 0], candidates, self.samples.labels)

  def cost(self) -> str:
    """How many images and evaluations of the diffusion model."""
    num = self.num_evaluations()
    return f"{len(self.samples)} images, {num} evaluations of the diffusion model"


def record_together(stages: Sequence[Queries], store: Store, compute: Compute) -> None:
  """Records the queries of experiments that differ in how the classifier is trained.

  Every image is re-generated once for all classifiers; what is recorded already is left as it
  is. The record of each is what it is alone, but for rounding. Killed, it goes on where it was
  when it is called with the same stages again. Nothing is done where re-generations depend on
  the label, and so on the classifier.

  Args:
    stages: that differ in their classifiers only; these and the diffusion model are computed.
    store: where their artifacts are; the workdir is to be locked.
    compute: how it is computed.

  Raises:
    ValueError: they differ in more than their classifiers.
  """
  queries = {stage.fingerprint: stage for stage in stages}
  first = next(iter(queries.values()))
  if first.is_conditional:
    return
  if any(dataclasses.replace(s, classifier=first.classifier).fingerprint != first.fingerprint
         for s in queries.values()):  # fmt: skip
    raise ValueError("The experiments differ in more than their classifiers.")
  folder = store.workdir / Queries.name / f"{fingerprint(sorted(queries))}.together"
  listed = read_checked(folder / "classifiers")
  if listed is None:
    pending = [name for name, stage in queries.items() if not store.is_done(stage)]
    if len(pending) < 2:
      return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    listed = json.dumps(pending).encode()
    write_checked(folder / "classifiers", listed)
  recorded = [queries[name] for name in json.loads(listed)]
  classifiers = [stage.classifier.load(store) for stage in recorded]
  modules = [classifier.module for classifier in classifiers]

  def answer(variables, images):
    predict = [models.predictor(m, v) for m, v in zip(modules, variables, strict=True)]
    return jnp.concatenate([classifier(None, images) for classifier in predict], axis=-1)

  together = Bound(answer, [c.variables for c in classifiers])
  images = first.samples.images
  asked = Asked(together, images.__getitem__, first.samples.ids, len(recorded))
  first.record(folder, store, compute, asked)
  for number, stage in enumerate(recorded):

    def write(path, number=number):
      for name in ("raw.npy", "candidates.npy"):
        np.save(path / name, read_model(folder / name, number))

    store.compute(stage, write)
  shutil.rmtree(folder)
