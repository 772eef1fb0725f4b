"""The shadow models, each an artifact of its own, and the stage that has them all."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from diffence_jax import parallel
from diffence_jax.audit.membership import ensemble_logits, membership_matrix, membership_of
from diffence_jax.checkpoint import restore_arrays, save_arrays
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.stages.classifier import Training, bound_classifier, training_cost
from diffence_jax.experiment.store import Store
from diffence_jax.predictor import Bound
from diffence_jax.training.ensemble import train_ensemble
from diffence_jax.training.feed import default_models_at_once, models_together
from diffence_jax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class ShadowModel(Stage):
  """One shadow model, trained as the target is on half of the samples.

  Attributes:
    training: how.
    pool: the samples that its training set is drawn from.
    number: of the model; its training set follows from this and the seed.
    seed: of the run.
  """

  name: ClassVar[str] = "shadow_models"

  training: Training
  pool: Samples
  number: int
  seed: int

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Trains this one alone; `ShadowModels` trains several together."""
    del store
    keep = lambda _, variables: _keep(folder, variables)
    _train([self], _recipe(self, compute), keep, compute)

  def load(self, store: Store) -> Any:
    """Its variables, nested dicts of NumPy arrays."""
    return restore_arrays(store.open(self) / "variables.npz")

  def cost(self) -> str:
    """How many training steps it takes."""
    return training_cost(self.training.recipe(self.pool.num_classes))


@dataclasses.dataclass(frozen=True)
class ShadowModels(Stage):
  """All shadow models: writes down who was trained on what.

  Attributes:
    models: in order; more of them leave those there are as they are.
  """

  name: ClassVar[str] = "shadow"
  items_together: ClassVar[bool] = True

  models: tuple[ShadowModel, ...]

  def items(self, compute: Compute) -> Sequence[Stage]:
    """The models."""
    del compute
    return self.models

  def items_at_once(self, compute: Compute) -> int:
    """The models that all devices of this process train together."""
    return models_together(compute.models_at_once, parallel.batch_mesh())

  @functools.cached_property
  def recipe(self) -> Recipe:
    """How each is trained, but for what only memory depends on."""
    return self.models[0].training.recipe(self.pool.num_classes)

  @property
  def pool(self) -> Samples:
    """The samples that their training sets are drawn from."""
    return self.models[0].pool

  def item_worker(self, store: Store, compute: Compute) -> Callable[[Sequence[Stage]], None]:
    """Trains some of the models together."""
    recipe = _recipe(self.models[0], compute)  # made anew it would be compiled anew

    def work(items: Sequence[Stage]) -> None:
      def keep(i: int, variables: Any) -> None:
        store.compute(items[i], lambda folder: _keep(folder, variables))

      _train(items, recipe, keep, compute)

    return work

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `membership.npy`, bool[S,N]."""
    del store, compute
    membership = membership_matrix(len(self.models), len(self.pool), self.models[0].seed)
    np.save(folder / "membership.npy", membership)

  def membership(self, store: Store) -> np.ndarray:
    """bool[S,N], of a stage that is computed."""
    return np.load(store.open(self) / "membership.npy", allow_pickle=False)

  def load(self, store: Store, compute: Compute) -> Bound:
    """All models as one that answers for each of them, of a stage that is computed."""
    at_once = compute.models_at_once or default_models_at_once(jax.default_backend())
    module, variables = self.load_stacked(store)
    return Bound(ensemble_logits(module, at_once), variables)

  def load_stacked(self, store: Store) -> Bound:
    """One model's module, and all their variables stacked, of a stage that is computed."""
    bound = bound_classifier(self.recipe, self.pool.image_shape)
    trees = [model.load(store) for model in self.models]
    return bound._replace(variables=jax.tree.map(lambda *leaves: np.stack(leaves), *trees))

  def cost(self) -> str:
    """How many models there are, and training steps each takes."""
    return f"{len(self.models)} models, each {training_cost(self.recipe)}"


def _keep(folder, variables):
  save_arrays(folder / "variables.npz", variables)


def _recipe(model: ShadowModel, compute: Compute) -> Recipe:
  return model.training.recipe(model.pool.num_classes, compute)


def _train(models: Sequence[ShadowModel], recipe: Recipe, keep, compute: Compute) -> None:
  """Trains models that differ in their numbers only; `keep(i, variables)` takes each."""
  first = models[0]
  numbers = [model.number for model in models]
  train_ensemble(
    recipe,
    {"images": first.pool.images, "labels": np.asarray(first.pool.labels, np.int32)},
    first.training.reference_set(),
    membership_of(numbers, len(first.pool), first.seed),
    names=[f"shadow/{number}" for number in numbers],
    keep=keep,
    seed=first.seed,
    mesh=parallel.batch_mesh(),
    models_at_once=compute.models_at_once,
    steps_per_call=compute.steps_per_call,
  )
