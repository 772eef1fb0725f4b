"""Shadow models of a user's own procedure: each trained and asked at once, as none can be kept.

What they are asked about, re-generated images, is made once for all and is on disk.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffence_jax.audit.membership import membership_matrix, membership_of
from diffence_jax.audit.predictors import ModelRecord
from diffence_jax.batching import in_batches
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.stages.queries import Asked, RecordInParts
from diffence_jax.experiment.stages.shadow_queries import (
  ShadowQueries,
  num_versions,
  reader_of_versions,
)
from diffence_jax.experiment.store import Store
from diffence_jax.named import Choice
from diffence_jax.predictor import Bound
from diffence_jax.training.procedure import train_by


@dataclasses.dataclass(frozen=True)
class Regenerations(RecordInParts):
  """Every version of every sample, and its re-generations, as images.

  Attributes:
    augmentation: a kind of `data.augment`.
  """

  name: ClassVar[str] = "regenerations"

  augmentation: str

  @property
  def num_rows(self) -> int:
    """N*A, samples times versions."""
    return len(self.samples) * num_versions(self.augmentation)

  def asked(self, store: Store, compute: Compute) -> Asked:
    """What makes `raw.npy` f32[N*A,H*W*C] and `candidates.npy` f32[N*A,R,H*W*C]."""
    del store, compute
    # A classifier that answers with the image itself: all else is as for any other.
    pixels = Bound(lambda _, images: images.reshape(len(images), -1), ())
    read = reader_of_versions(self.samples.images, self.augmentation)
    return Asked(pixels, read, np.arange(self.num_rows))

  def load(self, store: Store) -> tuple[np.ndarray, np.ndarray]:
    """The images f32[N*A,H,W,C] and f32[N*A,R,H,W,C] of a finished stage, mapped from disk."""
    folder, shape = store.open(self), self.samples.image_shape
    arrays = [
      np.load(folder / name, mmap_mode="r", allow_pickle=False)
      for name in ("raw.npy", "candidates.npy")
    ]
    return tuple(array.reshape(*array.shape[:-1], *shape) for array in arrays)

  def cost(self) -> str:
    """How many evaluations of the diffusion model, and how much disk."""
    num = self.num_rows * (self.num_recorded + 1) * int(np.prod(self.samples.image_shape))
    evaluations = self.num_evaluations(num_versions(self.augmentation))
    return f"{evaluations} evaluations of the diffusion model, {4 * num / 1e6:,.0f} MB on disk"


@dataclasses.dataclass(frozen=True)
class ProcedureShadow(Stage):
  """One shadow model of a procedure, trained on half of the samples and asked about all.

  Attributes:
    procedure: the user's own.
    regenerations: what it is asked about; of the samples that its training set is drawn from.
    number: of the model; its training set and its seed follow from this and the run's seed.
    seed: of the run.
  """

  name: ClassVar[str] = "shadow_answers"

  procedure: Choice
  regenerations: Regenerations
  number: int
  seed: int

  @property
  def is_member(self) -> np.ndarray:
    """bool[N], who is in its training set."""
    return membership_of([self.number], len(self.regenerations.samples), self.seed)[0]

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `raw.npy` f32[N*A,K] and `candidates.npy` f32[N*A,R,K]."""
    members = self.regenerations.samples.take(self.is_member)
    predict = train_by(
      self.procedure, members.images, members.labels, members.num_classes, self.seed,
      f"shadow/{self.number}",
    )  # fmt: skip
    images, candidates = self.regenerations.load(store)
    each, size = np.prod(candidates.shape[:2]), compute.batch_size
    ask = lambda images: in_batches(lambda rows: predict(None, images[rows]), len(images), size)
    np.save(folder / "raw.npy", ask(images))
    answers = ask(candidates.reshape(each, *candidates.shape[2:]))
    np.save(folder / "candidates.npy", answers.reshape(*candidates.shape[:2], -1))

  def cost(self) -> str:
    """What it is trained on."""
    return f"a call of {self.procedure.name} on {int(self.is_member.sum())} images"


@dataclasses.dataclass(frozen=True)
class ProcedureShadows(Stage):
  """All shadow models of a procedure and what they answer, in the place of `ShadowQueries`.

  Attributes:
    models: in order; more of them leave those there are as they are.
  """

  name: ClassVar[str] = ShadowQueries.name

  models: tuple[ProcedureShadow, ...]

  def items(self, compute: Compute) -> Sequence[Stage]:
    """The models."""
    del compute
    return self.models

  @property
  def shadow(self) -> "ProcedureShadows":
    """This: models and answers are one."""
    return self

  @property
  def samples(self) -> Samples:
    """What is asked about, and what training sets are drawn from."""
    return self.models[0].regenerations.samples

  @property
  def num_versions(self) -> int:
    """A: in how many versions every image is asked about."""
    return num_versions(self.models[0].regenerations.augmentation)

  def item_worker(self, store: Store, compute: Compute) -> Callable[[Sequence[Stage]], None]:
    """Trains and asks some of the models, one after another."""

    def work(items: Sequence[Stage]) -> None:
      for item in items:
        given = {"store": store.for_inputs_of(item), "compute": compute}
        store.compute(item, functools.partial(item.compute, **given))

    return work

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `membership.npy`, bool[S,N]."""
    del store, compute
    membership = membership_matrix(len(self.models), len(self.samples), self.models[0].seed)
    np.save(folder / "membership.npy", membership)

  def membership(self, store: Store) -> np.ndarray:
    """bool[S,N], of a stage that is computed."""
    return np.load(store.open(self) / "membership.npy", allow_pickle=False)

  def load_model(self, store: Store, model: int, versions: int = 1) -> ModelRecord:
    """One model's answers, as `Recording.load_model` gives them."""
    folder = store.open(self.models[model])
    arrays = [
      np.load(folder / name, allow_pickle=False) for name in ("raw.npy", "candidates.npy")
    ]
    return ModelRecord(*(a.reshape(-1, versions, *a.shape[1:]) for a in arrays))

  def cost(self) -> str:
    """How many models there are."""
    return f"{len(self.models)} models, each {self.models[0].cost()}"
