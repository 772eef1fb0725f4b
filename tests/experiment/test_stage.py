"""Stages: the fingerprint follows from the fields and the version, and from nothing else."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from diffence_jax.experiment.stage import Compute, Stage, describe, fingerprint
from diffence_jax.experiment.store import Store
from diffence_jax.named import Choice


@dataclasses.dataclass(frozen=True)
class Step(Stage):
  """A stage of any fields."""

  name: ClassVar[str] = "step"

  value: Any = None
  before: Any = None

  def compute(self, folder: Path, store: Store, compute: Compute) -> None:
    """Nothing."""

  def cost(self) -> str:
    """None."""
    return "nothing"


class Renamed(Step):
  """Of another name."""

  name = "renamed"


class Changed(Step):
  """Of another version."""

  version = 2


def test_the_fingerprint_covers_name_version_settings_and_inputs():
  first = Step(0)
  stages = [
    first,
    Step(1),
    Step("0"),
    Renamed(0),
    Changed(0),
    Step(0, first),
    Step(0, Step(1)),
    Step(0, (first,)),
    Step(0, (first, first)),
    Step({"lr": 1.0}),
    Step({"lr": 2.0}),
    Step(Choice("hamp", {"gamma": 0.5})),
    Step(Choice("hamp", {"gamma": 0.5}, source="0")),
    Step(np.arange(3)),
  ]
  assert len({stage.fingerprint for stage in stages}) == len(stages)
  assert Step(0).fingerprint == first.fingerprint
  assert len(first.fingerprint) == 16


def test_equal_values_have_equal_names_whatever_their_order():
  assert fingerprint({"a": 1, "b": [2.5]}) == fingerprint({"b": (2.5,), "a": 1})
  assert fingerprint({"a": 1}) != fingerprint({"a": 2})
  with pytest.raises(ValueError, match="not JSON compliant"):
    fingerprint({"a": float("nan")})


def test_inputs_are_the_stages_among_the_fields_each_once():
  first, second = Step(0), Step(1)
  both = Step([second], (first, second, first))
  assert both.inputs == (second, first)
  assert first.inputs == () and not first.items(Compute())


def test_what_has_no_fingerprint_is_refused():
  with pytest.raises(TypeError, match="A function has no fingerprint"):
    _ = Step(lambda: None).fingerprint


def test_what_has_a_fingerprint_stands_for_itself_by_that():
  @dataclasses.dataclass(frozen=True)
  class Content:
    path: str
    fingerprint: str

  assert describe(Content("here", "abc")) == "abc"
  assert Step(Content("here", "abc")).fingerprint == Step(Content("there", "abc")).fingerprint


SWITCHES = ("optimize", "shard_parameters")


@pytest.mark.parametrize(
  "field", [field.name for field in dataclasses.fields(Compute) if field.name not in SWITCHES]
)
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_the_compute_section_takes_whole_numbers_from_one_on(field, value):
  with pytest.raises(ValueError, match=f"{field} is {value}; expected a whole number"):
    Compute(**{field: value})


@pytest.mark.parametrize("field", SWITCHES)
def test_a_switch_of_the_compute_section_is_yes_or_no(field):
  assert Compute(**{field: not getattr(Compute(), field)}) != Compute()
  with pytest.raises(TypeError, match=f"{field} is a int; expected a bool"):
    Compute(**{field: 1})
