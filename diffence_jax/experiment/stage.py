"""A stage: one step of an experiment, known by its fields before anything is computed."""

import abc
import collections
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from diffence_jax.checks import check_instance, check_whole

if TYPE_CHECKING:
  from diffence_jax.experiment.store import Store


@dataclasses.dataclass(frozen=True)
class Compute:
  """How results are computed: what changes them by rounding at most, and is in no fingerprint.

  Attributes:
    chunk_size: re-generations that go through the networks at a time; None: as the memory at
      hand allows.
    batch_size: images that are recorded at a time; processes that share a record out are to
      have the same.
    steps_per_call: training steps that are one call; None: 1 on CPU, 32 elsewhere.
    models_at_once: shadow models that a device trains at once; None: 1 on CPU, 8 elsewhere.
    microbatch_size: examples whose own gradients DP-SGD has in memory; None: a whole batch.
    checkpoint_every: training steps between two checkpoints.
    shard_parameters: whether the target and the diffusion model are divided over the devices
      while they are trained, for models that do not fit one; else each device has them whole.
    optimize: whether XLA makes programs fast; False: quick to compile, for smoke tests.
  """

  chunk_size: int | None = None
  batch_size: int = 512
  steps_per_call: int | None = None
  models_at_once: int | None = None
  microbatch_size: int | None = None
  checkpoint_every: int = 500
  shard_parameters: bool = False
  optimize: bool = True

  def __post_init__(self):
    switches = ("shard_parameters", "optimize")
    for name in switches:
      check_instance(name, getattr(self, name), bool)
    for field in dataclasses.fields(self):
      if field.name not in switches and getattr(self, field.name) is not None:
        check_whole(field.name, getattr(self, field.name), 1, 1_000_000_000)


@dataclasses.dataclass(frozen=True)
class Stage(abc.ABC):
  """One step of an experiment, which leaves one artifact.

  A subclass is a frozen dataclass. Its fields are all that the artifact depends on: settings,
  samples, and the stages whose artifacts it reads. Its methods are given nothing else but
  where artifacts are and the `Compute` section.
  """

  # What is computed, also the folder of the artifacts.
  name: ClassVar[str]
  # Raised when the code changes so that old artifacts are no longer right.
  version: ClassVar[int] = 1
  # Whether items are computed faster several at a time than one after another.
  items_together: ClassVar[bool] = False
  # Whether items are parts of this stage, gone when it is computed, and not inputs of it.
  items_are_parts: ClassVar[bool] = False

  @functools.cached_property
  def fingerprint(self) -> str:
    """16 hexadecimal digits over the name, the version and all fields."""
    content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return fingerprint({"stage": self.name, "version": self.version, **content})

  @functools.cached_property
  def inputs(self) -> tuple["Stage", ...]:
    """The stages whose artifacts this one reads."""
    return tuple(_stages_in([getattr(self, field.name) for field in dataclasses.fields(self)]))

  def items(self, compute: Compute) -> Sequence["Stage"]:
    """What is independent of each other and comes before, for several processes to share out.

    Either inputs of this stage, or parts of it.
    """
    del compute
    return ()

  def item_worker(
    self, store: "Store", compute: Compute
  ) -> Callable[[Sequence["Stage"]], None]:
    """What computes some of `items`, and commits each to the store when it is done.

    What they need together is loaded and compiled once, here or at the first call.
    """
    raise NotImplementedError(f"The stage {self.name} has no items.")

  def items_at_once(self, compute: Compute) -> int:
    """How many items this process computes together."""
    del compute
    return 1

  @abc.abstractmethod
  def compute(self, folder: Path, store: "Store", compute: Compute) -> None:
    """Writes the artifact.

    Args:
      folder: for the artifact's files. It may hold what a killed run left in its sub-folder
        `disk.RESUME`, which is not part of the artifact.
      store: where the inputs' artifacts are, all of them finished.
      compute: how it is computed.
    """

  @abc.abstractmethod
  def cost(self) -> str:
    """What computing will cost, in words."""


def fingerprint(value: Any) -> str:
  """16 hexadecimal digits that name a value: equal values, equal names.

  Args:
    value: of what `describe` takes.
  """
  text = json.dumps(describe(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(value: Any) -> Any:
  """A value as JSON has it; what has a fingerprint of its own stands for itself by that.

  Args:
    value: plain values, dataclasses, named tuples, arrays, and what has a `fingerprint`, within
      each other.

  Raises:
    TypeError: it is of another kind.
  """
  if isinstance(stands_for := getattr(value, "fingerprint", None), str):
    return stands_for
  if dataclasses.is_dataclass(value):
    value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
  elif hasattr(value, "_asdict"):
    value = value._asdict()
  if isinstance(value, Mapping):
    return {str(key): describe(inner) for key, inner in value.items()}
  if isinstance(value, list | tuple):
    return [describe(inner) for inner in value]
  if isinstance(value, np.ndarray):
    return value.tolist()
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise TypeError(f"A {type(value).__name__} has no fingerprint: {value!r}.")


def _stages_in(values) -> list[Stage]:
  """All stages among some values, each once."""
  stages: dict[str, Stage] = {}
  waiting = collections.deque(values)
  while waiting:
    value = waiting.popleft()
    if isinstance(value, Stage):
      stages[f"{value.name}/{value.fingerprint}"] = value
    elif isinstance(value, list | tuple):
      waiting.extend(value)
  return list(stages.values())
