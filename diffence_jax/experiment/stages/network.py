"""Stages that leave a network's variables: trained here, or taken from a saved model."""

import abc
import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from diffence_jax import models, parallel
from diffence_jax.checkpoint import restore_tree, save_tree
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.store import Store
from diffence_jax.models.registry import OwnModel, versioned
from diffence_jax.models.saved import Manifest, load_model, read_manifest
from diffence_jax.named import import_function, option_key
from diffence_jax.predictor import Bound

_VARIABLES = "variables"


@dataclasses.dataclass(frozen=True)
class Network(Stage):
  """A stage whose artifact are the variables of a network."""

  @property
  @abc.abstractmethod
  def bound(self) -> Bound:
    """The network, and the shapes of its variables."""

  @property
  def num_parameters(self) -> int:
    """How many numbers are trained in it."""
    return models.num_parameters(self.bound.variables)

  @property
  @abc.abstractmethod
  def architecture(self) -> str:
    """The name of its architecture."""

  def load(self, store: Store) -> Bound:
    """The network with its variables, of a stage that is computed."""
    template = self.bound.variables
    return self.bound._replace(variables=restore_tree(store.open(self) / _VARIABLES, template))


@dataclasses.dataclass(frozen=True)
class TrainedNetwork(Network):
  """A network that is trained here."""

  @abc.abstractmethod
  def train(self, folder: Path, store: Store, compute: Compute, mesh: Mesh) -> Any:
    """Trains, and writes `metrics.jsonl`.

    Args:
      folder: of the artifact; a killed run goes on from what is there.
      store: where its items are.
      compute: how it is computed.
      mesh: batches are split over it.

    Returns:
      The variables.
    """

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Trains, and writes the variables and `metrics.jsonl`."""
    keep(folder, self.train(folder, store, compute, parallel.batch_mesh()))


def keep(folder: Path, variables: Any) -> None:
  """Writes the variables of a network as its artifact."""
  save_tree(folder / _VARIABLES, variables)


@dataclasses.dataclass(frozen=True, eq=False)
class SavedModel:
  """A model on disk, known by its content and not by where it lies.

  Attributes:
    path: its folder.
    manifest: what it is.
    model: a user's own class as `models.versioned` names it; None for one of the registry.
  """

  path: str
  manifest: Manifest
  model: OwnModel | None = None

  @property
  def fingerprint(self) -> str:
    """The digest of the network and its variables, and the version of a user's own class."""
    digest = self.manifest.digest
    return digest if self.model is None else f"{digest} {self.model.fingerprint}"

  @property
  def _class(self):
    return None if self.model is None else import_function(self.model)

  @functools.cached_property
  def bound(self) -> Bound:
    """The network, and the shapes of its variables."""
    return Bound(self.manifest.make_module(self._class), self.manifest.variable_shapes)

  def copy_to(self, folder: Path, expected: Bound) -> None:
    """Makes an artifact of it; ValueError unless its shapes are the expected ones."""
    _, variables = load_model(self.path, self._class, predicts=self.manifest.predicts)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (expected.variables, variables)]
    if shapes[0] != shapes[1]:
      raise ValueError(f"The saved model {self.path} is for images of another size or kind.")
    keep(folder, variables)

  def cost(self) -> str:
    """That it is only copied."""
    return f"a copy of the saved model {self.path}"


def find_saved_model(section: str, path: str, role: str, model: str) -> SavedModel:
  """The saved model that a config names.

  Args:
    section: of the config.
    path: the model's folder.
    role: that it must have, "classifier" or "denoiser".
    model: that the config names; where the saved one is of a user's own class, that class.

  Raises:
    FileNotFoundError: there is no such saved model.
    ValueError: it is damaged, of another role, or of a class that the config does not name.
  """
  manifest = read_manifest(path)
  if manifest.role != role:
    raise ValueError(
      f"{section}.saved_model is {path}, the {manifest.role} {manifest.name}; "
      f"expected a {role}."
    )
  if ":" not in manifest.name:
    return SavedModel(path, manifest)
  if option_key(model) != option_key(manifest.name):
    raise ValueError(
      f"{section}.saved_model is {path}, of {manifest.name}, a class of somebody's own, which "
      f"is not imported for a file's sake; {section}.model is {model!r}, expected the class."
    )
  return SavedModel(path, manifest, versioned(model))
