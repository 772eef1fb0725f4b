"""The predictors: policies fitted on known samples, and defenses of their answers."""

import jax
import numpy as np
import pytest

from diffence_jax.audit.predictors import (
  Predictor,
  answers_defense,
  fit_predictors,
  policy_title,
)
from diffence_jax.defense import POLICIES, Record
from diffence_jax.defense.output import OUTPUT_DEFENSES

PREDICTORS = tuple(
  Predictor(f"p {name}", POLICIES.choose(name)) for name in ("undefended", "scenario_3")
)


def records():
  rng = np.random.default_rng(0)
  for num in (5, 4):
    raw, noise = rng.normal(size=(num, 3)), rng.normal(size=(num, 6, 3))
    candidates = raw[:, None] + 0.3 * noise
    yield Record(raw.astype(np.float32), candidates.astype(np.float32), rng.integers(0, 3, num))


def test_what_is_fitted_is_given_the_predictor_s_answers_to_the_known_samples():
  members, nonmembers = records()
  given = []

  def fit(stream, *known):
    given.append((stream, *known))
    return lambda logits: -np.asarray(logits)

  bare = fit_predictors(PREDICTORS, members, nonmembers)
  finished = fit_predictors(PREDICTORS, members, nonmembers, fit)
  assert [stream for stream, *_ in given] == ["undefended", "scenario 3"]
  for one, other, (_, *known) in zip(bare, finished, given, strict=True):
    assert one.name == other.name and one.finish is None
    for record, logits in zip((members, nonmembers), known, strict=True):
      expected = one.answer(record.candidates, record.raw)
      np.testing.assert_array_equal(logits, expected)
      np.testing.assert_array_equal(other.answer(record.candidates, record.raw), -expected)
  np.testing.assert_array_equal(given[0][1], members.raw)
  np.testing.assert_array_equal(given[0][2], nonmembers.raw)


def test_only_what_selects_has_a_selection():
  members, nonmembers = records()
  undefended, scenario_3 = fit_predictors(PREDICTORS, members, nonmembers)
  assert undefended.selection(members.candidates, members.raw) is None
  selection = scenario_3.selection(members.candidates, members.raw)
  answers = scenario_3.answer(members.candidates, members.raw)
  np.testing.assert_array_equal(selection.logits, answers)


def test_without_a_defense_of_the_answers_there_is_nothing_to_fit():
  assert answers_defense(None, 0, "target") is None


@pytest.mark.parametrize("other", [{"seed": 1}, {"model": "shadow/0"}, {"stream": "average"}])
def test_a_defense_of_the_answers_has_randomness_of_its_own(other):
  """For every seed, model and predictor."""
  choice = OUTPUT_DEFENSES.choose(f"{__name__}:noted")
  one = {"seed": 0, "model": "target", "stream": "undefended"}
  keys = []
  for asked in (one, one, one | other):
    fit = answers_defense(choice, asked["seed"], asked["model"])
    keys.append(fit(asked["stream"], np.zeros((1, 2)), np.zeros((1, 2))))
  np.testing.assert_array_equal(keys[0], keys[1])
  assert np.any(keys[0] != keys[2])


def noted(key, members, nonmembers):
  """A fit that gives its key away."""
  del members, nonmembers
  return np.asarray(jax.random.key_data(key))


@pytest.mark.parametrize(
  "name, title",
  [
    ("scenario_1", "scenario 1"),
    ("scenario_3_published", "scenario 3"),
    ("my_module:my_policy", "my policy"),
  ],
)
def test_policies_have_titles(name, title):
  assert policy_title(name) == title
