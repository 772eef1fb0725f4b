"""Defenses of the answers in an audit: fitted to what they defend, model by model."""

import numpy as np
from test_shadow_audit import ASKED, NUM, first_answers, make_pool, make_record

import diffence_jax as dj
from diffence_jax import audit
from diffence_jax.audit.answers import ensemble_statistics, model_statistics
from diffence_jax.audit.shadow_models import membership_matrix

INTERVALS = {"scenario 1": (0.0, 3.0), "scenario 3": None}


def halve(logits):
  """A defense: all logits are halved, and which were asked for is noted."""
  halve.seen.append(len(logits))
  return 0.5 * np.asarray(logits)


def test_statistics_are_those_of_the_defended_answers():
  pool = make_pool()
  labels = pool.labels[:NUM]
  record = make_record(0, pool, pool.is_member[:NUM], 2.0)
  halve.seen = []
  finish = dict.fromkeys(("undefended", *INTERVALS, "average"), halve)
  found = model_statistics(record, labels, INTERVALS, **ASKED, finish=finish)
  for name, logits in first_answers(record, INTERVALS).items():
    expected = dj.attacks.true_label_phi(0.5 * logits, labels)
    np.testing.assert_allclose(found[name].phi[:, 0, 0], expected, atol=1e-4)
  # Three queries of NUM images that are often answered with the same candidate.
  undefended, scenario_1, scenario_3, *windows = halve.seen
  assert undefended == NUM
  assert NUM < scenario_3 <= 3 * NUM and scenario_1 < 3 * NUM
  assert windows == [NUM] * 3
  # Of the others' answers nothing changes.
  plain = model_statistics(record, labels, INTERVALS, **ASKED)
  partly = model_statistics(
    record, labels, INTERVALS, **ASKED, finish={"scenario 3": lambda logits: logits}
  )
  for name, values in plain.items():
    np.testing.assert_allclose(partly[name].phi, values.phi, atol=1e-5)


def test_every_shadow_model_has_a_defense_of_its_own():
  """Fitted to that model's answers to members and non-members of its own, predictor by it."""
  pool = make_pool()
  membership = membership_matrix(6, len(pool.labels), 3)
  records = [make_record(s, pool, own, 2.0) for s, own in enumerate(membership)]
  calls = []

  def fit_output(model):
    def fit(predictor, members, nonmembers):
      calls.append((model, predictor, members, nonmembers))
      return lambda logits: logits

    return fit

  common = dict(protocol="disjoint", seed=0, **ASKED)
  spied = ensemble_statistics(iter(records), pool, membership, **common, fit_output=fit_output)
  plain = ensemble_statistics(iter(records), pool, membership, **common)
  for name, values in plain.items():
    np.testing.assert_allclose(spied[name].phi, values.phi, atol=1e-5)
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


def test_what_is_fitted_is_given_the_known_samples_only():
  rng = np.random.default_rng(0)
  answers = [
    audit.Answers("p", None, {g: rng.normal(size=(4, 3)) for g in audit.GROUPS}),
  ]
  given = []
  finish = audit.fit_finish(answers, lambda *known: given.append(known) or (lambda z: -z))
  (name, members, nonmembers), *_ = given
  assert name == "p"
  np.testing.assert_array_equal(members, answers[0].logits["known_members"])
  np.testing.assert_array_equal(nonmembers, answers[0].logits["known_nonmembers"])
  defended = audit.with_output_defense(answers, lambda *known: lambda z: -z)
  for group, logits in answers[0].logits.items():
    np.testing.assert_array_equal(defended[0].logits[group], -logits)
    np.testing.assert_array_equal(finish["p"](logits), -logits)
  assert audit.with_output_defense(answers, None) is answers
