"""Functions that a config names: what is found, what is checked, and what errors say."""

import inspect
import re

import pytest

from diffence_jax.attacks.attack import ATTACKS
from diffence_jax.data import SOURCES
from diffence_jax.defense.output import OUTPUT_DEFENSES
from diffence_jax.defense.policy import POLICIES
from diffence_jax.named import Registry, section
from diffence_jax.training.registry import DEFENSES


def scaled(data, *, factor: float = 2.0, times: int = 1, label: str | None = None):
  """One of "ours"."""
  if factor <= 0.0:
    raise ValueError(f"factor is {factor}; expected a number, above 0.")
  return data * factor**times, label


def needy(data, *, path: str):
  """Has an option without a default."""
  return data, path


def free(data, **options):
  """Takes any options."""
  return data, options


NAMED = Registry(
  "scaler", "scalers", {"scaled": scaled, "needy": f"{__name__}:needy", "free": free}, 1
)


def test_options_that_are_not_given_have_their_defaults():
  choice = NAMED.choose("scaled", {"times": 2})
  assert choice.options == {"factor": 2.0, "times": 2, "label": None}
  assert choice.source is None
  assert NAMED.call(choice, 3.0) == (12.0, None)
  assert NAMED.call(NAMED.choose("free", {"anything": 1}), 0) == (0, {"anything": 1})


def test_a_whole_number_is_a_float_and_null_is_none():
  assert NAMED.choose("scaled", {"factor": 3, "label": None}).options["factor"] == 3.0


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("scale", {}, "There is no scaler 'scale'; did you mean 'scaled'?"),
    ("xyz", {}, "There is no scaler 'xyz'; expected one of free, needy, scaled."),
    (3, {}, "There is no scaler 3"),
    ("scaled", {"fator": 1.0}, "The scaler 'scaled' has no option 'fator'; did you mean"),
    ("scaled", {"factor": "2"}, "scalers.scaled.factor is '2'; expected a finite number."),
    ("scaled", {"factor": float("nan")}, "scalers.scaled.factor is nan; expected a finite"),
    ("scaled", {"times": 1.5}, "scalers.scaled.times is 1.5; expected a whole number."),
    ("scaled", {"times": True}, "scalers.scaled.times is True; expected a whole number."),
    ("needy", {}, "The scaler 'needy' needs the option scalers.needy.path."),
    ("nowhere:f", {}, "'nowhere:f' cannot be imported"),
    ("os:nothing", {}, "'os:nothing' cannot be imported"),
    ("os:sep", {}, "The scaler 'os:sep' is a str, no function."),
    ("os:getcwd", {}, "The scaler 'os:getcwd' takes (); expected 1 arguments and then options"),
    ("operator:add", {}, "The scaler 'operator:add' takes (a, b, /); expected 1 arguments"),
    ("builtins:dict", {}, "dict tells nothing of its arguments"),
    (":scaled", {}, "':scaled' cannot be imported"),
    ("..nowhere:f", {}, "'..nowhere:f' cannot be imported"),
    ("scaled", {3: 1}, "The scaler 'scaled' has no option 3"),
    ("free", {"factor": 1, 2: 1}, "The scaler 'free' has no option 2"),
  ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_was_expected(name, options, message):
  with pytest.raises(ValueError) as error:
    NAMED.choose(name, options)
  assert str(error.value).startswith(message)


def any_arguments(*args, scale: int = 1):
  """Takes what comes."""
  return args, scale


def annotated_as_text(data, *, times: "int" = 1):
  """As modules do that postpone annotations."""
  return data * times


def test_options_are_told_from_arguments_whatever_the_signature():
  assert NAMED.choose(f"{__name__}:any_arguments", {"scale": 2}).options == {"scale": 2}
  with pytest.raises(ValueError, match=r"annotated_as_text.times is 0.5; expected a whole"):
    NAMED.choose(f"{__name__}:annotated_as_text", {"times": 0.5})
  assert NAMED.source("time:sleep") == "built in"


def test_what_checks_ranges_is_called_when_a_choice_is_made():
  def banded(data, *, low: int = 0, high: int = 9):
    return data

  def check(*, low, high):
    if low > high:
      raise ValueError(f"low is {low}; expected at most high, {high}.")

  banded.check_options = check
  own = Registry("band", "bands", {"banded": banded}, 1)
  assert own.choose("banded", {"low": 3}).options == {"low": 3, "high": 9}
  with pytest.raises(ValueError, match=r"^bands\.banded\.low is 10; expected at most high, 9"):
    own.choose("banded", {"low": 10})


def test_an_option_out_of_its_range_is_named_by_its_path():
  choice = NAMED.choose("scaled", {"factor": -1.0})
  with pytest.raises(ValueError, match=r"^scalers.scaled.factor is -1.0; expected a number"):
    NAMED.call(choice, 1.0)


def test_ones_own_function_is_told_apart_by_its_file(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "own_scalers.py").write_text("def half(data, *, by: int = 2): return data / by\n")
  choice = NAMED.choose("own_scalers:half")
  assert NAMED.call(choice, 4) == 2.0 and choice.options == {"by": 2}
  (tmp_path / "own_scalers.py").write_text(
    "def half(data, *, by: int = 2): return data // by\n"
  )
  assert NAMED.choose("own_scalers:half").source != choice.source
  with pytest.raises(ValueError, match=r"^scalers.half.by is 0.5"):
    NAMED.choose("own_scalers:half", {"by": 0.5})


def test_a_section_renames_only_its_own_settings():
  for message, expected in (
    ("gamma is 3.", "defenses.hamp.gamma is 3."),
    ("All is lost.",) * 2,
  ):
    with pytest.raises(ValueError) as error, section("defenses.hamp", ["gamma"]):
      raise ValueError(message)
    assert str(error.value) == expected


@pytest.mark.parametrize(
  "registry", [ATTACKS, DEFENSES, OUTPUT_DEFENSES, POLICIES, SOURCES], ids=lambda r: r.what
)
def test_all_that_is_registered_can_be_imported_and_documents_its_options(registry):
  for name in registry.known:
    function = registry.find(name)
    about = inspect.getdoc(function)
    # What a short docstring refers to documents them.
    for word in re.findall(r"`(\w+)`", about):
      about += inspect.getdoc(getattr(inspect.getmodule(function), word, None)) or ""
    for option in registry.defaults(name):
      assert f"{option}:" in about or f"`{option}`" in about, f"{name}: {option}"
