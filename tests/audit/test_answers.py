"""What models answer behind every policy: fitted for each, asked once and again."""

import numpy as np
import pytest
from audit.shadow_world import (
  ASKED,
  INTERVALS,
  NAMES,
  NUM,
  PREDICTORS,
  answers_of,
  defended_by,
  ensemble_of_records,
  first_answers,
  make_pool,
  make_record,
  make_world,
)

import diffence_jax as dj
from diffence_jax import attacks, rng
from diffence_jax.attacks.signals import phi_and_log_p
from diffence_jax.audit.membership import membership_matrix
from diffence_jax.audit.predictors import ModelRecord, fit_predictors
from diffence_jax.defense import Record


@pytest.fixture(scope="module")
def leaky():
  return make_world(2.0)


def test_statistics_of_one_query_are_those_of_the_predictors_themselves(leaky):
  labels = leaky.pool.labels[:NUM]
  expected = first_answers(leaky.target, INTERVALS)
  assert set(leaky.answers) == set(expected) == set(NAMES)
  for name, logits in expected.items():
    np.testing.assert_array_equal(leaky.answers[name].of(1)[:, 0], logits)
    phi, log_p = attacks.confidence(logits, labels), attacks.loss(logits, labels)
    found = leaky.answers[name].statistic(phi_and_log_p, 1)
    np.testing.assert_allclose(found[:, 0, 0], phi, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[:, 0, 1], log_p, rtol=1e-5, atol=1e-5)


def test_every_model_has_a_defense_fitted_on_its_own_known_samples(leaky):
  pool, membership, records, ensemble, *_ = leaky
  known = np.flatnonzero(pool.is_known)
  sizes = membership[:, known].sum(axis=1)
  size = min(sizes.min(), (len(known) - sizes).min())
  model = 5
  sides = []
  for side in (True, False):
    rows = known[membership[model, known] == side][:size]
    own = records[model].raw[rows, 0], records[model].candidates[rows, 0, :4]
    sides.append(Record(*own, pool.labels[rows]))
  defended = {own.name: own for own in fit_predictors(PREDICTORS, *sides)}
  intervals = [defended[f"scenario {i}"].policy.interval for i in (1, 2, 3)]
  expected = [
    dj.fit_interval(sides[0].candidates, sides[0].raw, sides[1].candidates, sides[1].raw),
    dj.member_interval(sides[0].candidates, sides[0].raw),
    None,
  ]
  assert intervals == expected
  seed = rng.numpy_seed(0, f"shadow/{model}/first")
  for name, answers in answers_of(defended, records[model], pool.labels, seed).items():
    for at in range(ensemble.num_queries(name)):
      k, shadows = ensemble.queries[at], ensemble.at(name, at)
      np.testing.assert_array_equal(shadows[model], answers.of(k))
      found = shadows.statistic(phi_and_log_p)[model]
      np.testing.assert_allclose(found, answers.statistic(phi_and_log_p, k), rtol=1e-5)


def test_models_that_share_re_generations_answer_with_different_ones():
  """The same record for all models: their answers would be equal if they began alike."""
  pool = make_pool()
  membership = membership_matrix(6, len(pool.labels), 3)
  record = make_record(0, pool, np.zeros(len(pool.labels)), 0.0)
  ensemble = ensemble_of_records([record] * 6, pool, membership)
  phi = ensemble.at("scenario 3", 0).statistic(phi_and_log_p)[..., 0, 0]
  assert np.mean(phi[0] == phi[1]) < 0.3
  same = ensemble.at("undefended", 0).statistic(phi_and_log_p)
  np.testing.assert_array_equal(same[0], same[1])


def test_averages_of_several_queries_are_of_candidates_of_their_own(leaky):
  labels = leaky.pool.labels[:NUM]
  logits = [
    np.asarray(dj.average(leaky.target.candidates[:, 0, 4 * q : 4 * q + 4])) for q in range(3)
  ]
  phi = np.mean([attacks.confidence(own, labels) for own in logits], axis=0)
  average = leaky.answers["average"]
  found = average.statistic(phi_and_log_p, 3)
  np.testing.assert_allclose(found[:, 0, 0], phi, rtol=1e-5, atol=1e-5)
  assert average.reused == 0.0


def test_where_the_answer_is_always_the_same_one_query_stands_for_all(leaky):
  ensemble = leaky.ensemble
  assert leaky.answers["undefended"].logits.shape[2] == 1
  assert {name: ensemble.num_queries(name) for name in NAMES} == {
    name: 1 if name == "undefended" else 2 for name in NAMES
  }
  once, again = (ensemble.at("undefended", at) for at in (0, 1))
  np.testing.assert_array_equal(once[3], again[3])
  assert ensemble.at("scenario 3", 1)[3].shape[1] == 3


def test_every_statistic_takes_one_pass_over_the_models():
  pool = make_pool()
  membership = membership_matrix(4, len(pool.labels), 3)
  records = [make_record(s, pool, own, 1.0) for s, own in enumerate(membership)]

  class Counted(list):
    read = 0

    def __getitem__(self, model):
      self.read += 1
      return super().__getitem__(model)

  records = Counted(records)
  ensemble = ensemble_of_records(records, pool, membership)
  kinds = [ensemble.num_queries(name) for name in NAMES]
  before = records.read
  for name, num in zip(NAMES, kinds, strict=True):
    for at in range(num):
      assert len(ensemble.at(name, at).statistic(phi_and_log_p)) == 4
  assert records.read == before + 4


def test_the_first_version_is_that_of_the_images_themselves():
  world = make_world(1.0, versions=2)
  first = ModelRecord(*(values[:, :1] for values in world.records[3]))
  alone = ensemble_of_records([first] * 4, world.pool, world.membership[:4])
  plain = world.ensemble.first_version()
  assert plain.versions == 1 and world.ensemble.versions == 2
  assert plain.answers(3, "scenario 3").logits.shape[1] == 1
  assert alone.first_version() is alone
  np.testing.assert_array_equal(
    plain.answers(3, "undefended").logits, alone.answers(3, "undefended").logits
  )
  found = plain.at("undefended", 0).statistic(phi_and_log_p)
  both = world.ensemble.at("undefended", 0).statistic(phi_and_log_p)
  np.testing.assert_array_equal(found, both[:, :, :1])


def halve(logits):
  """A defense: all logits are halved, and which were asked for is noted."""
  halve.seen.append(len(logits))
  return 0.5 * np.asarray(logits)


def test_statistics_are_those_of_the_defended_answers():
  pool = make_pool()
  labels = pool.labels[:NUM]
  record = make_record(0, pool, pool.is_member[:NUM], 2.0)
  halve.seen = []
  intervals = {name: INTERVALS[name] for name in ("scenario 1", "scenario 3")}
  finish = dict.fromkeys(("undefended", *intervals, "average"), halve)
  found = answers_of(defended_by(intervals, finish), record, labels)
  for name, logits in first_answers(record, intervals).items():
    expected = attacks.true_label_phi(0.5 * logits, labels)
    phi = found[name].statistic(phi_and_log_p, 1)[:, 0, 0]
    np.testing.assert_allclose(phi, expected, atol=1e-4)
  # Three queries of NUM images that are often answered with the same candidate.
  undefended, scenario_1, scenario_3, *windows = halve.seen
  assert undefended == NUM
  assert NUM < scenario_3 <= 3 * NUM and scenario_1 < 3 * NUM
  assert windows == [NUM] * 3
  # Of the others' answers nothing changes.
  plain = answers_of(defended_by(intervals), record, labels)
  same = {"scenario 3": lambda logits: logits}
  partly = answers_of(defended_by(intervals, same), record, labels)
  for name, answers in plain.items():
    np.testing.assert_array_equal(partly[name].logits, answers.logits)


def test_every_shadow_model_has_a_defense_of_its_own():
  """Fitted to that model's answers to members and non-members of its own, predictor by it."""
  pool = make_pool()
  membership = membership_matrix(6, len(pool.labels), 3)
  records = [make_record(s, pool, own, 2.0) for s, own in enumerate(membership)]
  calls = []

  def fit_answers(model):
    def fit(predictor, members, nonmembers):
      calls.append((model, predictor, members, nonmembers))
      return lambda logits: logits

    return fit

  spied = ensemble_of_records(records, pool, membership, fit_answers=fit_answers)
  plain = ensemble_of_records(records, pool, membership)
  for name in NAMES:
    found, expected = (own.at(name, 0).statistic(phi_and_log_p) for own in (spied, plain))
    np.testing.assert_allclose(found, expected, atol=1e-5)
  assert len(calls) == 6 * 5
  known = np.flatnonzero(pool.is_known)
  for model, predictor, members, nonmembers in calls:
    sides = known[membership[model, known]], known[~membership[model, known]]
    raw = records[model].raw[:, 0]
    if predictor == "undefended":
      for own, given in zip(sides, (members, nonmembers), strict=True):
        np.testing.assert_array_equal(given, raw[own[: len(given)]])
    else:
      assert len(members) == len(nonmembers) > 0.8 * min(map(len, sides))
      same = np.argmax(members, axis=-1) == np.argmax(raw[sides[0][: len(members)]], axis=-1)
      assert same.all() or predictor == "average"


def test_a_record_too_short_for_all_queries_is_owned_up_to(leaky):
  assert ASKED["num_candidates"] * max(ASKED["queries"]) == 12
  own = defended_by({})["average"]
  asked = {"num_candidates": 4, "num_queries": 4}
  repeated = own.answer_repeatedly(leaky.target, **asked)
  assert repeated.reused == 1.0
  np.testing.assert_array_equal(repeated.logits[:, :, 3], repeated.logits[:, :, 0])
