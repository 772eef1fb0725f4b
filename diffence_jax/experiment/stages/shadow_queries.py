"""The stages that record what the shadow models, and the target, answer in an audit."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from diffence_jax import rng
from diffence_jax.audit.predictors import ModelRecord
from diffence_jax.data import Images, augment
from diffence_jax.experiment.stage import Compute
from diffence_jax.experiment.stages.queries import Asked, RecordInParts
from diffence_jax.experiment.stages.shadow_models import ShadowModels
from diffence_jax.experiment.stages.target import Target
from diffence_jax.experiment.store import Store

# An image's near-duplicates differ from it by at most this, of 255.
_NEAR_DUPLICATE = 1


@dataclasses.dataclass(frozen=True)
class ShadowQueries(RecordInParts):
  """What every shadow model answers to every version of every sample.

  Attributes:
    shadow: the shadow models.
    augmentation: a kind of `data.augment`.
  """

  name: ClassVar[str] = "shadow_queries"

  shadow: ShadowModels
  augmentation: str

  @property
  def num_versions(self) -> int:
    """A: in how many versions every image is asked about."""
    return num_versions(self.augmentation)

  @property
  def num_models(self) -> int:
    """S, shadow models."""
    return len(self.shadow.models)

  @property
  def num_rows(self) -> int:
    """N*A, samples times versions."""
    return len(self.samples) * self.num_versions

  def rows_at_once(self, compute: Compute) -> int:
    """A batch, of fewer images where each model has re-generations of its own."""
    return -(-compute.batch_size // (self.num_models if self.is_conditional else 1))

  def asked(self, store: Store, compute: Compute) -> Asked:
    """What makes `raw.npy` f32[S,N*A,K] and `candidates.npy` f32[S,N*A,R,K]."""
    read = reader_of_versions(self.samples.images, self.augmentation)
    if self.is_conditional:
      ensemble = self.shadow.load_stacked(store)
    else:
      ensemble = self.shadow.load(store, compute)
    return Asked(ensemble, read, np.arange(self.num_rows), self.num_models)

  def cost(self) -> str:
    """How many evaluations of the diffusion model and of shadow models."""
    num = self.num_rows * self.num_recorded * self.num_models
    shared = self.num_models if self.is_conditional else 1
    return (
      f"{self.num_evaluations(self.num_versions) * shared} evaluations of the diffusion model, "
      f"{num} of shadow models"
    )


@dataclasses.dataclass(frozen=True)
class TargetQueries(RecordInParts):
  """What the target answers to every version of every sample.

  Attributes:
    classifier: the target.
    augmentation: a kind of `data.augment`.
  """

  name: ClassVar[str] = "target_queries"

  classifier: Target
  augmentation: str

  @property
  def num_rows(self) -> int:
    """N*A, samples times versions."""
    return len(self.samples) * num_versions(self.augmentation)

  def asked(self, store: Store, compute: Compute) -> Asked:
    """What makes `raw.npy` f32[N*A,K] and `candidates.npy` f32[N*A,R,K]."""
    del compute
    read = reader_of_versions(self.samples.images, self.augmentation)
    return Asked(self.classifier.load(store), read, np.arange(self.num_rows))

  def cost(self) -> str:
    """How many evaluations of the diffusion model."""
    num = self.num_evaluations(num_versions(self.augmentation))
    return f"{num} evaluations of the diffusion model"


@dataclasses.dataclass(frozen=True)
class NearDuplicates(RecordInParts):
  """What the target answers to near-duplicates of every sample, one candidate each.

  A query that looks at several candidates mixes near-duplicates; one that comes to the end of
  the record goes on from its start.

  Attributes:
    classifier: the target.
    num_queries: how many near-duplicates of every sample.
  """

  name: ClassVar[str] = "near_duplicates"

  classifier: Target
  num_queries: int

  @property
  def num_rows(self) -> int:
    """N*k, samples times near-duplicates of each."""
    return len(self.samples) * self.num_queries

  def asked(self, store: Store, compute: Compute) -> Asked:
    """What makes `raw.npy` f32[N*k,K] and `candidates.npy` f32[N*k,1,K]."""
    del compute
    images, num = self.samples.images, self.num_queries
    seed = rng.numpy_seed(self.seed, "near_duplicates")

    def read(rows):
      near = images[rows // num].astype(np.int16)
      for image, row in zip(near, rows, strict=True):
        draw = np.random.default_rng([*seed, row])
        image += draw.integers(-_NEAR_DUPLICATE, _NEAR_DUPLICATE + 1, image.shape, np.int16)
      return np.clip(near, 0, 255).astype(np.uint8)

    return Asked(self.classifier.load(store), read, np.arange(self.num_rows))

  def load(self, store: Store, raw: np.ndarray) -> ModelRecord:
    """The candidates f32[N,1,k,K] of a finished stage, beside raw predictions f32[N,1,K].

    Each candidate is of a near-duplicate of its own; labels are those of the images.
    """
    record = self.load_model(store, versions=self.num_queries)
    return ModelRecord(raw, record.candidates.swapaxes(1, 2))

  def cost(self) -> str:
    """How many evaluations of the diffusion model."""
    return f"{self.num_evaluations(self.num_queries)} evaluations of the diffusion model"


def num_versions(augmentation: str) -> int:
  """A: how many versions of an image there are."""
  return augment(np.zeros((1, 3, 3, 1)), augmentation).shape[1]


def reader_of_versions(images: Images, kind: str) -> Callable[[np.ndarray], np.ndarray]:
  """Reads all versions of the images as rows of their own: N times A."""
  versions = num_versions(kind)

  def read(rows):
    augmented = augment(images[rows // versions], kind)
    return augmented[np.arange(len(rows)), rows % versions]

  return read
