"""Checks of settings: what passes, and what errors say."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from diffence_jax.checks import (
  FilePath,
  check_choice,
  check_plain,
  check_positive,
  check_range,
  check_type,
  check_whole,
  shown,
)


@pytest.mark.parametrize("value", [0.0, 0, 0.5, 1])
def test_numbers_in_range_pass(value):
  check_range("x", value, 0.0, 1.0)
  check_range("x", value, 0.0, None)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", None, True])
def test_numbers_out_of_range_are_named(value):
  with pytest.raises(ValueError, match=r"^x is .*; expected a number, 0.0 to 1.0\.$"):
    check_range("x", value, 0.0, 1.0)
  with pytest.raises(ValueError, match=r"^x is .*; expected a finite number, at least 0.0\.$"):
    check_range("x", value, 0.0, None)


@pytest.mark.parametrize("value", [0, 0.0, -1, math.nan, math.inf, "1", False])
def test_what_is_not_positive_is_named(value):
  with pytest.raises(ValueError, match=r"^x is .*; expected a finite number, above 0\.$"):
    check_positive("x", value)
  check_positive("x", 1e-9)


@pytest.mark.parametrize("value", [0, 5, 1.0, "2", True, None])
def test_what_is_no_whole_number_in_range_is_named(value):
  with pytest.raises(ValueError, match=r"^x is .*; expected a whole number, 1 to 4\.$"):
    check_whole("x", value, 1, 4)
  check_whole("x", 4, 1, 4)
  check_whole("x", 10**9, 1)


def test_a_choice_is_among_those_there_are():
  check_choice("x", "a", ("a", "b"))
  with pytest.raises(ValueError, match=r"^x is 'c'; expected one of 'a', 'b'\.$"):
    check_choice("x", "c", ("a", "b"))


@pytest.mark.parametrize(
  ("value", "annotation", "expected"),
  [
    (1, int, 1),
    (1, float, 1.0),
    (1, int | float, 1),
    (None, int | None, None),
    ("a", str | None, "a"),
    ([1, 2], tuple[int, ...], (1, 2)),
    ((1, 2), Sequence[int], (1, 2)),
    ((1, 2.5), tuple[float, float], (1.0, 2.5)),
    ((1, "a"), tuple, (1, "a")),
    (np.float32(0.5), float, 0.5),
    (np.int64(2), int, 2),
    ({"a": 1}, Mapping[str, int], {"a": 1}),
    (object, Callable[..., int], object),
  ],
)
def test_values_of_the_right_type_pass(value, annotation, expected):
  found = check_type("x", value, annotation)
  assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
  ("value", "annotation", "expected"),
  [
    (1.5, int, "a whole number"),
    (True, int, "a whole number"),
    (True, float, "a finite number"),
    (math.inf, float, "a finite number"),
    (1, bool, "True or False"),
    (1, str | None, "text"),
    (5, FilePath, "text or a path"),
    (["a"], FilePath, "text or a path"),
    ("ab", tuple[str, ...], "a tuple"),
    ("ab", int | tuple[int, ...], "a whole number or a tuple"),
    ([1], Mapping, "a section of settings"),
    (10**400, float, "a finite number"),
    (1e39, float, "a finite number"),
  ],
)
def test_values_of_a_wrong_type_are_named(value, annotation, expected):
  with pytest.raises(ValueError) as error:
    check_type("x", value, annotation)
  assert str(error.value) == f"x is {shown(value)}; expected {expected}."


@pytest.mark.parametrize(
  ("value", "annotation", "message"),
  [
    ((1, 2.5), tuple[int, ...], "x[1] is 2.5; expected a whole number."),
    (["a", None], Sequence[str], "x[1] is None; expected text."),
    ((1.0,), tuple[float, float], "x is (1.0,); expected 2 values."),
    ((1, "a"), tuple[int, ...] | None, "x[1] is 'a'; expected a whole number."),
  ],
)
def test_what_a_tuple_holds_is_checked(value, annotation, message):
  with pytest.raises(ValueError) as error:
    check_type("x", value, annotation)
  assert str(error.value) == message


@pytest.mark.parametrize("value", [math.inf, {"a": [1, math.nan]}, object(), {"a": np.ones(2)}])
def test_what_json_has_not_is_no_setting(value):
  with pytest.raises(ValueError, match=r"^x(\.a)?(\[1\])? is .*; expected"):
    check_plain("x", value)
  check_plain("x", {"a": [1, None, ("b", 0.5, True)]})


def test_a_value_in_an_error_is_short():
  assert shown(10**50) == "1" + "0" * 50
  assert len(shown(10**400)) < 110 and shown(10**5000) == "a huge number"
  assert shown(np.float32(0.5)) == "0.5"


def test_numbers_of_numpy_are_numbers():
  check_whole("x", np.int64(3), 1, 4)
  check_range("x", np.float32(0.5), 0.0, 1.0)
  check_positive("x", 2, 2.0)
  with pytest.raises(ValueError, match=r"above 0 and at most 2\.0"):
    check_positive("x", 2.5, 2.0)


def test_a_default_stands_for_an_annotation():
  none = inspect.Parameter.empty
  assert check_type("x", 2, none, 0.5) == 2.0
  assert check_type("x", object, none, None) is object
  with pytest.raises(ValueError, match="expected a whole number"):
    check_type("x", 0.5, none, 3)


def test_paths_become_text_without_the_sign_for_home(monkeypatch):
  monkeypatch.setenv("HOME", "/home/she")
  assert check_type("x", "~/data", FilePath) == "/home/she/data"
  assert check_type("x", Path("~/data"), FilePath | None) == "/home/she/data"
  assert check_type("x", "", FilePath) == "" and check_type("x", "a/~b", FilePath) == "a/~b"
  assert check_type("x", "~/text", str) == "~/text"
