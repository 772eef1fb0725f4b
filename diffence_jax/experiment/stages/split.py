"""The stage that writes down who is a member."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from diffence_jax.data import Split, write_index_file
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.store import Store


@dataclasses.dataclass(frozen=True)
class SplitStage(Stage):
  """Writes the groups of a split, as an index file.

  Attributes:
    groups: the five groups of `data.Split`, by name.
  """

  name: ClassVar[str] = "split"

  groups: Mapping[str, Samples]

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Writes `split.json`."""
    del store, compute
    split = Split(**{name: samples.ids for name, samples in self.groups.items()})
    write_index_file(split, folder / "split.json")

  def cost(self) -> str:
    """How many images there are."""
    return f"{len(next(iter(self.groups.values())).dataset.ids)} images to divide"
