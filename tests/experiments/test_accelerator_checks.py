"""What is checked on an accelerator is right, tiny; what is broken on purpose is noticed."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from diffence_jax.compiling import compiled_quickly
from diffence_jax.defense import early_exit

# The package has a function of that name.
select = importlib.import_module("diffence_jax.defense.select")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checks():
  sys.path.insert(0, str(ROOT / "experiments"))
  import accelerator_checks

  yield accelerator_checks
  sys.path.remove(str(ROOT / "experiments"))


@pytest.fixture(scope="module")
def size(checks):
  from accelerator_size import size_of

  return size_of(small=True)


@pytest.fixture
def clock(checks):
  return checks.Clock(60, scale=0.0)


@pytest.fixture(scope="module")
def trained(checks, size):
  with jax.numpy_dtype_promotion("standard"):
    return checks.train_digits(size)


@pytest.fixture(autouse=True)
def quickly():
  """Most of the time would be compilation."""
  with compiled_quickly():
    yield


def test_labels_are_kept_and_early_exit_answers_as_all_candidates_do(
  checks, size, clock, trained, monkeypatch
):
  monkeypatch.setattr(checks, "train_digits", lambda size: trained)
  told = list(checks.answers(size, clock))
  assert [entry["precision"] for entry in told] == ["float32"] * 2 + ["bfloat16"] * 2
  assert not any(entry[fault] for entry in told for fault in checks._FAULTS)
  # What a broken defense would show in.
  assert all(entry["classes"] > 5 and 0.3 < entry["kept"] < 0.95 for entry in told)
  assert all(1.0 < entry["drawn"] < size.candidates for entry in told)


def keep_any_label(monkeypatch):
  monkeypatch.setattr(select, "keeps_label", lambda c, raw: jnp.ones(c.shape[:2], bool))
  jax.clear_caches()  # of programs with the right one


def begin_with_the_last(monkeypatch):
  next_pairs = early_exit._next_pairs

  def from_the_last(pending, drawn, num, smallest):
    rows, candidates = next_pairs(pending, drawn, num, smallest)
    return rows, num - 1 - candidates

  monkeypatch.setattr(early_exit, "_next_pairs", from_the_last)


def answer_raw(monkeypatch):
  update = early_exit._Best.update

  def keep_logits(best, *results):
    raw = best.logits.copy()
    update(best, *results)
    best.logits[:] = raw

  monkeypatch.setattr(early_exit._Best, "update", keep_logits)


@pytest.mark.parametrize(
  "spoil, faults",
  [
    (keep_any_label, "labels changed, labels changed, all drawn"),
    (begin_with_the_last, "not by rounding"),
    (answer_raw, "other logits"),
  ],
  ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_defense_is_noticed(checks, size, trained, spoil, faults, monkeypatch):
  spoil(monkeypatch)
  with pytest.raises(AssertionError, match=f"float32: {faults}$"):
    list(checks.answers_of(trained, "float32", size.candidates))
  if spoil is keep_any_label:
    jax.clear_caches()  # of the programs that it has spoiled


def test_networks_of_which_nothing_could_be_noticed_are_refused(checks, size, trained):
  from random_networks import random_variables

  untrained = trained._replace(variables=random_variables(trained.networks))
  with pytest.raises(AssertionError, match="classes are answered"):
    list(checks.answers_of(untrained, "float32", size.candidates))


def test_networks_agree_with_the_published_ones_unless_a_weight_is_wrong(
  checks, size, clock, monkeypatch
):
  import fixtures.load

  one = size._replace(checked=("float32",))
  (told,) = checks.fixtures(one, clock)
  assert (told["network"], told["dtype"]) == ("ddpm_unet", "float32")
  assert told["apart"] < 1e-4 < told["spread"]
  right = fixtures.load.pseudo_state_dict

  def wrong(manifest):
    weights = right(manifest)
    return weights | {"tail.2.bias": weights["tail.2.bias"] + 0.01}

  monkeypatch.setattr(fixtures.load, "pseudo_state_dict", wrong)
  with pytest.raises(AssertionError, match=r"ddpm_unet in float32 is 0\.01 apart"):
    list(checks.fixtures(one, clock))
