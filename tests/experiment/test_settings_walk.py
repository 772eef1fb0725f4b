"""Every setting and every option, given what nobody should: refused by its path, or valid."""

import math

import pytest

from diffence_jax import models
from diffence_jax.attacks.attack import ATTACKS
from diffence_jax.audit.canaries import CANARIES
from diffence_jax.data import SOURCES, load
from diffence_jax.defense.output import OUTPUT_DEFENSES
from diffence_jax.defense.policy import POLICIES
from diffence_jax.experiment.config import base_config, leaves, validate
from diffence_jax.experiment.plan import plan
from diffence_jax.training.recipe import TrainSettings
from diffence_jax.training.registry import DEFENSES, make_recipe

WRONG = (math.nan, math.inf, -math.inf, -1, -1.0, 0, 10**18, 10**400, -(10**400), 1e300, 2.5,
         "x", None, True, [], [None], {}, {"a": math.nan}, object())  # fmt: skip
DATASET = load("digits")
MODULE = models.make_classifier("small_resnet", num_classes=10, norm="group")
SETTINGS = [path for path, _ in leaves(base_config().to_dict())]
OPTIONS = [
  (registry, name, option)
  for registry in (ATTACKS, CANARIES, DEFENSES, OUTPUT_DEFENSES, POLICIES, SOURCES)
  for name in registry.known
  for option in registry.defaults(name)
]


def nested(path, value):
  for key in reversed(path.split(".")):
    value = {key: value}
  return value


def is_refused(path, call):
  """Whether the call fails as it should: by a ValueError that tells the setting's path."""
  try:
    call()
  except (ValueError, FileNotFoundError) as error:
    # A share of 0 of a group leaves nobody.
    assert path in str(error) or "There are no known_" in str(error), f"{path}: {error}"
    assert len(str(error)) < 500
    return True
  return False


@pytest.mark.parametrize("path", SETTINGS)
def test_a_setting_that_is_nonsense_is_named(path):
  own = dict(leaves(base_config().to_dict()))[path]
  if isinstance(own, dict):
    return  # a section of somebody else's options
  kind = path.partition(".")[0]
  for value in WRONG:
    change = nested(path, value)

    def take(change=change, is_new=value != own):
      validate(change)
      # Options of defenses are walked through below.
      if kind in ("data", "purify") and is_new:
        plan(change, DATASET)

    if not is_refused(path, take) and kind != "defenses":
      assert is_alike(value, own), f"{path} = {value!r} was taken"


def is_alike(value, own):
  """Whether a value may stand for another: of its type, finite, and of bearable size."""
  if value is None or own is None:
    return not isinstance(value, float) or math.isfinite(value)
  if isinstance(own, float):
    return type(value) in (int, float) and abs(value) < 3.5e38
  if isinstance(own, tuple):
    return value == []
  return type(value) is type(own) and (not isinstance(value, int) or -1 <= value <= 10**18)


@pytest.mark.parametrize(
  ("registry", "name", "option"), OPTIONS, ids=[f"{name}.{o}" for _, name, o in OPTIONS]
)
def test_an_option_that_is_nonsense_is_named(registry, name, option):
  own = registry.defaults(name)[option]
  path = registry._path(name) + f".{option}"
  needed = {"path": "nowhere", "name": "mnist"} if registry is SOURCES else {}
  needed = {key: text for key, text in needed.items() if key in registry._options(name)[0]}
  for value in WRONG:

    def take(value=value):
      choice = registry.choose(name, {**needed, option: value})
      if registry is DEFENSES:
        make_recipe(choice, MODULE, TrainSettings(40, epochs=20, batch_size=8))

    # What a source is given is looked at when it loads.
    if not is_refused(path, take) and registry is not SOURCES:
      assert is_alike(value, own), f"{path} = {value!r} was taken"
