"""The stage of a target that JAX cannot hold: trained by a user's own procedure, or fixed.

It cannot be kept, so a process that has to ask it trains it again; what it answered is kept.
"""

import abc
import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffence_jax.batching import to_float
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.store import Store
from diffence_jax.models.host import HostPredictor
from diffence_jax.named import Choice
from diffence_jax.predictor import Bound
from diffence_jax.training.procedure import make_predictor, train_by

# Members whose answers are kept, to know the classifier again by.
_KEPT = 64
# How far its answers may be from those, in logits: what threads and batches change.
_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True)
class HostClassifier(Stage):
  """A target that is asked on the host.

  Attributes:
    function: the user's own.
    members: what it is trained on.
  """

  name: ClassVar[str] = "classifier"

  function: Choice
  members: Samples

  guarantee = None
  num_parameters = None

  @property
  def architecture(self) -> str:
    """The function's name."""
    return self.function.name

  @property
  def num_trained_on(self) -> int:
    """On how many samples it is trained."""
    return len(self.members)

  @functools.cached_property
  def predict(self) -> HostPredictor:
    """The classifier, made once in a process."""
    return self._make()

  @abc.abstractmethod
  def _make(self) -> HostPredictor:
    """Makes it."""

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `answers.npy`, f32[n,K] to its first members."""
    del store, compute
    np.save(folder / "answers.npy", self._answers())

  def load(self, store: Store) -> Bound:
    """The classifier, as a function of no variables.

    Raises:
      ValueError: it is another one than that of the run so far.
    """
    kept = np.load(store.open(self) / "answers.npy", allow_pickle=False)
    if not np.allclose(self._answers(), kept, rtol=1e-3, atol=_TOLERANCE):
      raise ValueError(
        f"{self.function.name} gave another classifier than before: its answers to members "
        "differ from those that were kept. For the same seed, images and options it has to be "
        "the same in every process. Make it so, or take another workdir."
      )
    return Bound(self.predict, None)

  def _answers(self):
    images = self.members.take(slice(_KEPT)).images
    return np.asarray(self.predict(None, to_float(np.asarray(images))))


@dataclasses.dataclass(frozen=True)
class ProcedureClassifier(HostClassifier):
  """A target that a procedure of the user's trains.

  Attributes:
    seed: of the run.
  """

  seed: int

  def _make(self):
    members = self.members
    return train_by(
      self.function, members.images, members.labels, members.num_classes, self.seed, self.name
    )

  def cost(self) -> str:
    """How often the procedure is called."""
    return (
      f"a call of {self.function.name} on {len(self.members)} images, and another in every "
      "later run that asks it"
    )


@dataclasses.dataclass(frozen=True)
class FixedClassifier(HostClassifier):
  """A target that is there already, behind a function of the user's."""

  def _make(self):
    return make_predictor(self.function, self.members.images, self.members.num_classes)

  def cost(self) -> str:
    """That it is only asked."""
    return f"a call of {self.function.name}"
