"""Rows of results as JSON has them, and back."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from diffence_jax.audit.typed import from_plain, to_plain


class Point(NamedTuple):
  x: float
  label: str | None


@dataclasses.dataclass(frozen=True)
class Base:
  name: str
  points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Row(Base):
  best: Point | None
  shares: Mapping[str, Mapping[str, float]]
  needs: Mapping[str, tuple[str, ...]]
  options: Mapping[str, Any]


ROW = Row(
  name="r",
  points=(Point(1.0, "one"), Point(2.5, None)),
  best=Point(2.5, None),
  shares={"target": {"a": 0.5}},
  needs={"own:attack": ("shadows", "ask")},
  options={"widths": [1, 2]},
)
PLAIN = {
  "name": "r",
  "points": [{"x": 1.0, "label": "one"}, {"x": 2.5, "label": None}],
  "best": {"x": 2.5, "label": None},
  "shares": {"target": {"a": 0.5}},
  "needs": {"own:attack": ["shadows", "ask"]},
  "options": {"widths": [1, 2]},
}


def test_rows_become_plain_and_come_back_through_json():
  assert to_plain(ROW) == PLAIN
  assert from_plain(Row, PLAIN) == ROW
  assert from_plain(Row, json.loads(json.dumps(to_plain(ROW)))) == ROW
  without = dataclasses.replace(ROW, best=None, points=(), shares={})
  assert from_plain(Row, to_plain(without)) == without


def test_types_come_back():
  found = from_plain(Row, PLAIN)
  assert type(found.points) is tuple and type(found.points[0]) is Point
  assert type(found.best) is Point
  assert found.needs["own:attack"] == ("shadows", "ask")


def test_keys_become_strings():
  assert to_plain({1: (2, 3)}) == {"1": [2, 3]}


@pytest.mark.parametrize("name", PLAIN)
def test_a_missing_field_is_refused(name):
  plain = {key: value for key, value in PLAIN.items() if key != name}
  with pytest.raises(ValueError, match=f"A Row has other fields than expected: {name}"):
    from_plain(Row, plain)


def test_an_unknown_field_is_refused():
  with pytest.raises(ValueError, match="A Row has other fields than expected: another, more"):
    from_plain(Row, PLAIN | {"more": 1, "another": 2})


def test_fields_of_rows_within_rows_are_checked():
  with pytest.raises(ValueError, match="A Point has other fields than expected: label, y"):
    from_plain(Row, PLAIN | {"points": [{"x": 1.0, "y": 2.0}]})
  with pytest.raises(ValueError, match="A Point has other fields than expected: x"):
    from_plain(Row, PLAIN | {"best": {"label": None}})


@pytest.mark.parametrize(
  "wrong",
  [
    {"points": None},
    {"points": {"x": 1.0}},
    {"points": "ab"},
    {"points": [None]},
    {"best": [1.0]},
    {"best": 3},
    {"shares": [1.0]},
    {"shares": {"target": None}},
    {"needs": {"own:attack": "ask"}},
  ],
)
def test_what_is_no_row_or_list_is_refused(wrong):
  with pytest.raises(ValueError, match="expected"):
    from_plain(Row, PLAIN | wrong)
