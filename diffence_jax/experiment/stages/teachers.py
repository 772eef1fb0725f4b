"""The teachers of a target that learns from others: parts of it, for any process to train."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffence_jax import parallel
from diffence_jax.experiment.parts import parts_folder
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.store import Store
from diffence_jax.training.ensemble import train_teachers
from diffence_jax.training.teachers import taught, teachers_of

if TYPE_CHECKING:
  from diffence_jax.experiment.stages.classifier import TrainedClassifier


@dataclasses.dataclass(frozen=True)
class Teacher(Stage):
  """What one teacher answers; it goes when the target is trained.

  Attributes:
    target: whom it teaches.
    number: of the teacher.
  """

  target: "TrainedClassifier"
  number: int

  @property
  def name(self) -> str:
    """A folder beside the target."""
    return parts_folder(self.target)

  @functools.cached_property
  def inputs(self) -> tuple[Stage, ...]:
    """What the target reads."""
    return self.target.inputs

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Trains this one alone; `teachers_worker` trains several together."""
    del store
    keep = lambda _, logits: _keep(folder, logits)
    _train(self.target, [self], _teachers(self.target, compute), keep, compute)

  def cost(self) -> str:
    """How many training steps it takes."""
    return f"{len(self.target.recipe.teachers.recipe.schedule)} training steps"


def teachers_worker(
  target: "TrainedClassifier", store: Store, compute: Compute
) -> Callable[[Sequence[Teacher]], None]:
  """What trains some of the teachers together, and keeps `logits.npy` f32[n,K] of each.

  Args:
    target: whom they teach.
    store: where they go.
    compute: how it is computed.
  """
  teachers = _teachers(target, compute)  # made anew they would be compiled anew

  def work(items):
    # A group is done at once: its seconds are the first one's.
    since = time.perf_counter()

    def keep(i, logits):
      nonlocal since
      store.compute(items[i], lambda folder: _keep(folder, logits), since=since)
      since = time.perf_counter()

    _train(target, items, teachers, keep, compute)

  return work


def load_soft_labels(
  target: "TrainedClassifier", teachers: Sequence[Teacher], store: Store
) -> np.ndarray:
  """What all teachers, which are trained, say of the target's members; f32[n,K]."""
  read = lambda teacher: np.load(store.open(teacher) / "logits.npy", allow_pickle=False)
  _, membership, everyone = _of(target)
  answers = np.stack([read(teacher) for teacher in teachers])
  return taught(target.recipe.teachers, everyone, membership, answers)


def _of(target):
  """The teachers' names, bool[T,n] who is taught by which, and bool[n] of all members."""
  everyone = np.ones(len(target.members), bool)
  names, membership = teachers_of(target.recipe.teachers, target.name, everyone, target.seed)
  return names, membership, everyone


def _keep(folder, logits):
  np.save(folder / "logits.npy", logits)


def _teachers(target, compute):
  return target.training.recipe(target.members.num_classes, compute).teachers


def _train(target, items, teachers, keep, compute):
  """Trains some teachers; `keep(i, logits)` takes the answers of each."""
  names, membership, _ = _of(target)
  numbers = [item.number for item in items]
  train_teachers(
    teachers,
    {"images": target.members.images, "labels": target.members.labels},
    membership[numbers],
    names=[names[number] for number in numbers],
    keep=keep,
    seed=target.seed,
    mesh=parallel.batch_mesh(),
    models_at_once=compute.models_at_once,
    steps_per_call=compute.steps_per_call,
  )
