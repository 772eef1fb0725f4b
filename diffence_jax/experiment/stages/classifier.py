"""The stage of the target classifier."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
from jax.sharding import Mesh

from diffence_jax import models, parallel, rng
from diffence_jax.data import Images
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.stages.network import Network, SavedModel, TrainedNetwork
from diffence_jax.experiment.stages.teachers import Teacher, load_soft_labels, teachers_worker
from diffence_jax.experiment.store import Store
from diffence_jax.named import Choice
from diffence_jax.predictor import Bound
from diffence_jax.training import Recipe, TrainSettings, train_classifier
from diffence_jax.training.feed import models_together
from diffence_jax.training.recipe import Guarantee
from diffence_jax.training.registry import make_recipe


@dataclasses.dataclass(frozen=True)
class Training:
  """How classifiers are trained: the target, and every shadow model.

  Attributes:
    model: a name of `models.CLASSIFIERS`.
    fields: the module's, but for the number of classes.
    defense: a choice from `training.registry.DEFENSES`.
    settings: what all ways of training are told.
    reference: further samples, for defenses that train with them; None for others.
  """

  model: str
  fields: Mapping[str, Any]
  defense: Choice
  settings: TrainSettings
  reference: Samples | None

  def recipe(self, num_classes: int, compute: Compute | None = None) -> Recipe:
    """The recipe; how much is in memory at a time is left open where `compute` is None.

    Raises:
      ValueError: there is no such model, or an option is out of its range.
    """
    module = models.make_classifier(self.model, num_classes=num_classes, **self.fields)
    microbatch_size = None if compute is None else compute.microbatch_size
    settings = dataclasses.replace(self.settings, microbatch_size=microbatch_size)
    return make_recipe(self.defense, module, settings)

  def reference_set(self) -> dict[str, Images] | None:
    """What defenses train with besides members; None where none needs it."""
    if self.reference is None:
      return None
    return {"images": self.reference.images, "labels": self.reference.labels}


def training_cost(recipe: Recipe) -> str:
  """What a recipe costs, in words."""
  counts = collections.Counter(recipe.schedule)
  kinds = "" if len(counts) == 1 else f" ({', '.join(f'{n} {k}' for k, n in counts.items())})"
  cost = f"{len(recipe.schedule)} training steps{kinds}"
  if recipe.teachers is None:
    return cost
  num, taught = recipe.teachers.number, training_cost(recipe.teachers.recipe)
  return f"{cost}; before, {num} teachers of {taught}"


def bound_classifier(recipe: Recipe, image_shape: tuple[int, ...]) -> Bound:
  """What answers queries, and the shapes of its variables; ValueError where it does not fit."""
  init = lambda key: recipe.variables(recipe.init(key, image_shape))
  return Bound(recipe.answering, jax.eval_shape(init, rng.seed_key(0)))


@dataclasses.dataclass(frozen=True)
class TrainedClassifier(TrainedNetwork):
  """Trains the target; before, its teachers, where it has any.

  Attributes:
    training: how.
    members: what it is trained on, canaries last.
    seed: of the run.
  """

  name: ClassVar[str] = "classifier"
  items_together: ClassVar[bool] = True
  items_are_parts: ClassVar[bool] = True

  training: Training
  members: Samples
  seed: int

  @functools.cached_property
  def recipe(self) -> Recipe:
    """How it is trained, but for what only memory depends on."""
    return self.training.recipe(self.members.num_classes)

  @functools.cached_property
  def bound(self) -> Bound:
    """The classifier, and the shapes of its variables."""
    return bound_classifier(self.recipe, self.members.image_shape)

  @property
  def architecture(self) -> str:
    """The name of its architecture."""
    return self.training.model

  @property
  def guarantee(self) -> Guarantee | None:
    """Of differential privacy; None without."""
    return self.recipe.guarantee

  @property
  def num_trained_on(self) -> int:
    """On how many samples it is trained."""
    return len(self.members)

  def items(self, compute: Compute) -> Sequence[Stage]:
    """The teachers."""
    del compute
    teachers = self.recipe.teachers
    return [Teacher(self, n) for n in range(teachers.number if teachers else 0)]

  def items_at_once(self, compute: Compute) -> int:
    """The teachers that all devices of this process train together."""
    return models_together(compute.models_at_once, parallel.batch_mesh())

  def item_worker(self, store: Store, compute: Compute) -> Callable[[Sequence[Stage]], None]:
    """Trains some of the teachers together."""
    return teachers_worker(self, store, compute)

  def train(self, folder: Path, store: Store, compute: Compute, mesh: Mesh) -> Any:
    """Trains; see `TrainedNetwork.train`."""
    teachers = self.items(compute)
    return train_classifier(
      self.training.recipe(self.members.num_classes, compute),
      {"images": self.members.images, "labels": self.members.labels},
      self.training.reference_set(),
      checkpoint_every=compute.checkpoint_every,
      steps_per_call=compute.steps_per_call,
      shard_parameters=compute.shard_parameters,
      soft_labels=load_soft_labels(self, teachers, store) if teachers else None,
      seed=self.seed,
      mesh=mesh,
      directory=folder,
    )

  def cost(self) -> str:
    """How many training steps it takes."""
    return training_cost(self.recipe)


@dataclasses.dataclass(frozen=True)
class SavedClassifier(Network):
  """Takes the target from a saved model.

  Attributes:
    saved: the model.
    members: what it was trained on, as the split says.
  """

  name: ClassVar[str] = "classifier"

  saved: SavedModel
  members: Samples

  guarantee = None

  @property
  def bound(self) -> Bound:
    """The classifier, and the shapes of its variables."""
    return self.saved.bound

  @property
  def architecture(self) -> str:
    """The name of its architecture."""
    return self.saved.manifest.name

  @property
  def num_trained_on(self) -> int:
    """On how many samples it was trained."""
    return len(self.members)

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Copies the variables."""
    del store, compute
    self.saved.copy_to(folder, self.bound)

  def cost(self) -> str:
    """That it is only copied."""
    return self.saved.cost()
