"""The stage that records queries, for one classifier or for several at once."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from diffence_jax import models, parallel, rng
from diffence_jax.audit.predictors import ModelRecord
from diffence_jax.audit.record import record_queries
from diffence_jax.audit.record_files import read_model
from diffence_jax.defense.policy import Record
from diffence_jax.disk import read_checked, write_checked
from diffence_jax.experiment.purification import Purification
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute, Stage, fingerprint
from diffence_jax.experiment.stages.diffusion import SavedDiffusion, TrainedDiffusion
from diffence_jax.experiment.stages.target import Target
from diffence_jax.experiment.store import Store
from diffence_jax.predictor import Bound


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

  def record(
    self,
    folder: Path,
    store: Store,
    compute: Compute,
    classifier: Bound,
    read_images: Callable[[np.ndarray], np.ndarray],
    ids: np.ndarray,
    *,
    num_models: int | None = None,
  ) -> None:
    """Records the answers of a classifier; see `audit.record.record_queries`."""
    record_queries(
      rng.stream(self.seed, self.name),
      classifier,
      self.purification.network(self.diffusion.load(store)),
      self.purification.sampler_schedule(),
      read_images,
      ids,
      batch_size=compute.batch_size,
      mesh=parallel.batch_mesh(),
      directory=folder,
      num_models=num_models,
      num_candidates=self.num_recorded,
      chunk_size=compute.chunk_size,
      **self.purification.sampler,
    )

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
class Queries(Recording):
  """What the target answers to every sample and its candidates.

  Attributes:
    classifier: the target.
  """

  name: ClassVar[str] = "queries"

  classifier: Target

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `raw.npy` f32[N,K] and `candidates.npy` f32[N,R,K]."""
    classifier = self.classifier.load(store)
    images = self.samples.images
    self.record(folder, store, compute, classifier, images.__getitem__, self.samples.ids)

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

  def answer(variables, images):
    predict = [
      models.predictor(c.module, v) for c, v in zip(classifiers, variables, strict=True)
    ]
    return jnp.concatenate([classifier(None, images) for classifier in predict], axis=-1)

  together = Bound(answer, [c.variables for c in classifiers])
  images = first.samples.images
  first.record(
    folder, store, compute, together, images.__getitem__, first.samples.ids,
    num_models=len(recorded),
  )  # fmt: skip
  for number, stage in enumerate(recorded):

    def write(path, number=number):
      for name in ("raw.npy", "candidates.npy"):
        np.save(path / name, read_model(folder / name, number))

    store.compute(stage, write)
  shutil.rmtree(folder)
