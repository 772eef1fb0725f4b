"""The label-only floor, against an audit of labels that a loop makes of the answers."""

import dataclasses
import math

import numpy as np
import pytest
from recorded.test_audit import CLASSES, make_record

from diffence_jax.attacks import ATTACKS
from diffence_jax.audit.judge import Fold
from diffence_jax.audit.label_floor import LABELS_ALONE, floor_attacks, with_label_floor
from diffence_jax.recorded.audit import audit
from diffence_jax.recorded.labels_alone import labels_alone
from diffence_jax.recorded.record import read_record

QUICK = ("loss", "lira_online")


def results_of(record, attacks=QUICK):
  return audit(read_record(record), attacks=attacks).results


def slow_labels(logits, labels, nonmembers):
  """Of every label the logarithm of its accuracy, drawn to that of all as if by ten samples."""
  told = logits.argmax(axis=1)
  right = [int(told[n] == labels[n]) for n in nonmembers]
  overall = (sum(right) + 1) / (len(right) + 2)
  accuracy = []
  for label in range(CLASSES):
    of_label = [r for n, r in zip(nonmembers, right, strict=True) if told[n] == label]
    accuracy.append((sum(of_label) + 10 * overall) / (len(of_label) + 10))
  rows = []
  for label in told:
    p = accuracy[label]
    others = (1 - p) / (CLASSES - 1)
    rows.append([math.log(p if k == label else others) for k in range(CLASSES)])
  return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def known_record():
  record = make_record(leak=1.5, num=300, num_models=8)
  record["is_known"] = np.random.default_rng(3).random(300) < 0.3
  return record


def told_record(record):
  """The same where all that is answered is a label, by the loop."""
  known, inside = np.flatnonzero(record["is_known"]), record["shadow_membership"]
  of_model = lambda answers, members: slow_labels(
    answers, record["labels"], [n for n in known if not members[n]]
  )
  return record | {
    "logits": of_model(record["logits"], record["is_member"]),
    "shadow_logits": np.stack(list(map(of_model, record["shadow_logits"], inside))),
  }


def test_it_is_what_an_audit_of_the_labels_finds(known_record):
  results, told = results_of(known_record), results_of(told_record(known_record))
  floor, expected = results.undefended.label_floor, told.undefended.highest_auc
  assert (floor.attack, floor.threshold) == (expected.attack, expected.threshold)
  assert floor.value == pytest.approx(expected.value, abs=1e-6)
  assert results.undefended.gap.value <= floor.value < results.undefended.highest_auc.value
  assert floor.low > 0.5
  rows = {row.attack: row for row in results.in_turn if row.predictor == LABELS_ALONE.name}
  of_told = {row.attack: row for row in told.in_turn if row.predictor == "undefended"}
  assert set(rows) == set(of_told) == {"lira_online"}
  assert rows["lira_online"].auc.value == pytest.approx(of_told["lira_online"].auc.value)
  assert rows["lira_online"].auc.low > 0.5


def test_without_a_leak_half_lies_in_its_interval():
  results = results_of(make_record(leak=0.0, num=300, num_models=8))
  (row,) = (row for row in results.in_turn if row.predictor == LABELS_ALONE.name)
  assert row.auc.low < 0.5 < row.auc.high
  assert abs(results.undefended.label_floor.value - 0.5) < 0.1


def test_a_predictor_that_changes_labels_has_none(known_record):
  record = {name: known_record[name] for name in ("logits", "labels", "is_member", "is_known")}
  record["defended/halved/logits"] = record["logits"] / 2
  record["defended/turned/logits"] = np.roll(record["logits"], 1, axis=1)
  bare, halved, turned = results_of(record, ()).predictors
  assert bare.label_floor == halved.label_floor and turned.label_floor is None
  floor = dataclasses.replace(bare.label_floor, value=0.7)
  rows = with_label_floor((bare, turned), floor)
  assert [row.label_floor for row in rows] == [floor, None]


def test_what_is_trained_on_known_samples_is_not_run_on_labels():
  choices = [ATTACKS.choose(name) for name in ("nn", "loss", "quantile_regression", "pmia")]
  assert floor_attacks(choices) == (choices[1], choices[3])


def told_by_models(record, folds):
  """What the classifier and its shadow models tell, f32[1+S,N,K]."""
  (alone,) = labels_alone(read_record(record), folds).predictors
  return np.stack([alone.logits[:, 0], *(answers[:, 0] for answers in alone.shadows)])


def test_no_model_is_told_how_right_it_is_on_what_it_answers():
  record = make_record(num=60, num_models=8)
  pool, first = read_record(record).pool, np.arange(60) % 2 == 0
  folds = [Fold(np.empty(0), pool._replace(is_known=~half), half) for half in (first, ~first)]
  told = told_by_models(record, folds)
  changed = record | {
    "labels": np.where(first, (record["labels"] + 1) % CLASSES, record["labels"])
  }
  again = told_by_models(changed, folds)
  np.testing.assert_array_equal(again[:, first], told[:, first])
  assert (again[:, ~first] != told[:, ~first]).any(axis=(1, 2)).all()


def test_of_a_model_without_known_non_members_labels_tell_themselves_alone():
  record = make_record(num=60, num_models=8)
  record["is_known"] = record["shadow_membership"][0].copy()
  pool = read_record(record).pool
  told = told_by_models(record, [Fold(np.empty(0), pool, ~pool.is_known)])[1]
  np.testing.assert_array_equal(told.argmax(axis=1), record["shadow_logits"][0].argmax(axis=1))
  np.testing.assert_allclose(np.exp(told.max(axis=1)), 0.5, rtol=1e-6)
