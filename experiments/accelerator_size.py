"""What `accelerator.py` measures, how large, and how much time it has."""

import runpy
import time
from pathlib import Path
from typing import Any, NamedTuple

from random_networks import Networks, networks_of

ROOT = Path(__file__).parents[1]


class Precision(NamedTuple):
  """A way to compute: the networks' dtype, and how products of float32 are made."""

  dtype: str
  products: str


PRECISIONS = {
  "float32": Precision("float32", "highest"),
  "TF32": Precision("float32", "tensorfloat32"),
  "bfloat16": Precision("bfloat16", "default"),
}


class Size(NamedTuple):
  """What is measured, and how large.

  Attributes:
    small: whether only the program is tried.
    networks: that are timed, on random weights.
    config: of an experiment, for how they are trained.
    fixtures: names of those that networks are compared with.
    checked: precisions, for what is right.
    precisions: for how fast it is.
    candidates: N.
    images: that one call asks about, where all candidates are drawn.
    early_images: the same with early exit.
    scenarios: how many of `accepted.ACCEPTANCE`.
    at_once: classifiers at once.
    steps_per_call: training steps of a compiled call.
    batch: examples of a training step.
    steps: training steps of a round.
    rounds: of each measurement.
    trained: training steps of the digits' classifier and diffusion model, for the answers.
    asked: digits that these are asked about.
    audit: the variant of `configs/digits.py` that is run.
  """

  small: bool
  networks: Networks
  config: Any
  fixtures: tuple[str, ...]
  checked: tuple[str, ...]
  precisions: tuple[str, ...]
  candidates: int
  images: tuple[int, ...]
  early_images: int
  scenarios: int
  at_once: tuple[int, ...]
  steps_per_call: tuple[int, ...]
  batch: int
  steps: int
  rounds: int
  trained: tuple[int, int]
  asked: int
  audit: str


def size_of(small: bool) -> Size:
  """The paper's networks, or tiny ones."""
  checked = ("float32", "bfloat16")
  common = {
    "small": small,
    "networks": networks_of("cifar10", small=small),
    "config": runpy.run_path(str(ROOT / "configs/cifar10.py"))["get_config"](),
    "checked": checked,
  }
  if small:
    return Size(
      **common,
      fixtures=("ddpm_unet",),
      precisions=checked,
      candidates=6,
      images=(4,),
      early_images=8,
      scenarios=1,
      at_once=(1, 2),
      steps_per_call=(1, 2),
      batch=4,
      steps=2,
      rounds=1,
      trained=(100, 30),
      asked=32,
      audit="smoke",
    )
  return Size(
    **common,
    fixtures=("resnet18", "ddpm_unet"),
    precisions=tuple(PRECISIONS),
    candidates=30,
    images=(256, 1024),
    early_images=1024,
    scenarios=4,
    at_once=(1, 8, 32, 64),
    steps_per_call=(1, 32),
    batch=128,
    steps=32,
    rounds=3,
    trained=(300, 500),
    asked=512,
    audit="audit",
  )


class Clock:
  """The time that is left, and what it did not allow."""

  def __init__(self, seconds: float, scale: float = 1.0):
    """Starts now; what is told to take seconds takes `scale` times as many."""
    self._end, self._scale = time.monotonic() + seconds, scale
    self.left_out: list[str] = []

  def left(self) -> float:
    """Seconds."""
    return self._end - time.monotonic()

  def allows(self, what: str, seconds: float) -> bool:
    """Whether so many seconds are left; else notes what is left out."""
    if self.left() >= self._scale * seconds:
      return True
    self.left_out.append(what)
    return False
