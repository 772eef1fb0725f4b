"""Stages made in parts, ranges of their rows or attacks, by as many processes as there are.

A part is an artifact of its own, which any process may claim. When all are there one process
joins them, and has no more need of them.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from diffence_jax.batching import even_size
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.store import Store

# Of one stage: each is claimed, committed and looked for.
_MOST_PARTS = 256


@dataclasses.dataclass(frozen=True)
class Part(Stage):
  """Some rows of another stage's artifact.

  Attributes:
    whole: that stage.
    start: the first row.
    stop: the row after the last one.
  """

  whole: "InParts"
  start: int
  stop: int

  @property
  def name(self) -> str:
    """A folder beside the whole: whoever removes that removes parts of all sizes."""
    return parts_folder(self.whole)

  @functools.cached_property
  def inputs(self) -> tuple[Stage, ...]:
    """What the whole reads."""
    return self.whole.inputs

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes this one alone; `InParts.item_worker` makes several."""
    self.whole.part_writer(store, compute)(self, folder)

  def cost(self) -> str:
    """How many rows."""
    return f"rows {self.start} to {self.stop} of {self.whole.cost()}"


@dataclasses.dataclass(frozen=True)
class InParts(Stage):
  """A stage whose rows do not depend on each other.

  The artifact is the same, whatever the size of its parts.
  """

  items_are_parts: ClassVar[bool] = True

  @property
  @abc.abstractmethod
  def num_rows(self) -> int:
    """Of the whole."""

  @abc.abstractmethod
  def rows_at_once(self, compute: Compute) -> int:
    """The most rows that are worked on at a time: a part is a multiple of them."""

  @abc.abstractmethod
  def part_writer(self, store: Store, compute: Compute) -> Callable[[Part, Path], None]:
    """Loads what all parts need, and gives what writes a part's files into a folder.

    Args:
      store: as `compute` takes it, like the next.
      compute: how it is computed.
    """

  def items(self, compute: Compute) -> Sequence[Stage]:
    """The parts."""
    size = even_size(self.num_rows, self.rows_at_once(compute))
    size *= -(-self.num_rows // (size * _MOST_PARTS))
    starts = range(0, self.num_rows, size)
    return [Part(self, start, min(start + size, self.num_rows)) for start in starts]

  def item_worker(self, store: Store, compute: Compute) -> Callable[[Sequence[Stage]], None]:
    """Makes parts one after another."""
    write = self.part_writer(store.for_inputs_of(self), compute)

    def work(items):
      for item in items:
        store.compute(item, functools.partial(write, item))

    return work


def parts_folder(stage: Stage) -> str:
  """Where in the workdir the parts of a stage are, as long as there are any."""
  return f"{stage.name}/{stage.fingerprint}.parts"
