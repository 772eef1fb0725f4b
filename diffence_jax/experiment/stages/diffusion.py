"""The stage of the diffusion model."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
from jax.sharding import Mesh

from diffence_jax import models, rng
from diffence_jax.diffusion import linear_schedule
from diffence_jax.diffusion.prediction import noise_network
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute
from diffence_jax.experiment.stages.network import Network, SavedModel, TrainedNetwork
from diffence_jax.experiment.store import Store
from diffence_jax.predictor import Bound
from diffence_jax.training.denoiser import DenoiserSettings, train_denoiser


@dataclasses.dataclass(frozen=True)
class TrainedDiffusion(TrainedNetwork):
  """Trains the noise-prediction network.

  Attributes:
    model: a name of `models.DENOISERS`.
    fields: the module's, but for the number of channels.
    schedule: options of `linear_schedule`.
    model_shape: (H,W,C) of its images.
    settings: how it is trained.
    trained_on: the samples.
    group: what they are called, "members" or "reference".
    seed: of the run.
  """

  name: ClassVar[str] = "diffusion"

  model: str
  fields: Mapping[str, Any]
  schedule: Mapping[str, Any]
  model_shape: tuple[int, int, int]
  settings: DenoiserSettings
  trained_on: Samples
  group: str
  seed: int

  @functools.cached_property
  def bound(self) -> Bound:
    """The network, and the shapes of its variables.

    Raises:
      ValueError: there is no such model or field, or it does not fit images.
    """
    module = models.make_denoiser(self.model, out_channels=self.model_shape[-1], **self.fields)
    init = lambda key: models.init(module, key, self.model_shape)
    return Bound(module, jax.eval_shape(init, rng.seed_key(0)))

  @property
  def architecture(self) -> str:
    """The name of its architecture."""
    return self.model

  def train(self, folder: Path, store: Store, compute: Compute, mesh: Mesh) -> Any:
    """Trains; see `TrainedNetwork.train`."""
    del store
    module = self.bound.module
    return train_denoiser(
      module,
      self.trained_on.images,
      linear_schedule(**self.schedule),
      self.settings,
      labels=self.trained_on.labels if models.is_conditional(module) else None,
      model_shape=self.model_shape,
      checkpoint_every=compute.checkpoint_every,
      steps_per_call=compute.steps_per_call,
      shard_parameters=compute.shard_parameters,
      seed=self.seed,
      mesh=mesh,
      directory=folder,
    )

  def last_loss(self, store: Store) -> float | None:
    """The mean of the logged losses over the last tenth of the steps."""
    text = (store.open(self) / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    last = [line["loss"] for line in lines if line["step"] > 0.9 * lines[-1]["step"]]
    return sum(last) / len(last)

  def cost(self) -> str:
    """How many training steps it takes."""
    return f"{self.settings.num_steps} training steps of {self.settings.batch_size} images"


@dataclasses.dataclass(frozen=True)
class SavedDiffusion(Network):
  """Takes the network from a saved model, whatever that predicts.

  Attributes:
    saved: the model.
  """

  name: ClassVar[str] = "diffusion"

  saved: SavedModel

  # Nothing is known of what it was trained on.
  group = None

  @functools.cached_property
  def bound(self) -> Bound:
    """The network, as one that predicts the noise, and the shapes of its variables."""
    module, variables = self.saved.bound
    return Bound(noise_network(module, self.saved.manifest), variables)

  @property
  def architecture(self) -> str:
    """The name of its architecture."""
    return self.saved.manifest.name

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Copies the variables."""
    del store, compute
    self.saved.copy_to(folder, self.bound)

  def last_loss(self, store: Store) -> float | None:
    """None: it was not trained here."""
    del store

  def cost(self) -> str:
    """That it is only copied."""
    return self.saved.cost()
