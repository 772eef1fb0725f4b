"""Judging attacks: a planted leak, and none; what is learnt on known samples only."""

import numpy as np
import pytest
from attacks.grouped import pool_of, view_of

from diffence_jax import metrics
from diffence_jax.attacks import ATTACKS, Attack, run_attack
from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.judge import class_thresholds, judge

NAMES = ("correctness", "loss", "confidence", "entropy", "modified_entropy")


def predictions(seed, num=300, signal=2.0):
  rng = np.random.default_rng(seed)
  logits, labels = rng.normal(0, 1, (num, 5)), rng.integers(0, 5, num)
  logits[np.arange(num), labels] += signal
  return logits, labels


def groups(leak):
  """Known and target members, then known and target non-members."""
  return [predictions(seed, 500, 2.0 + leak * (seed < 2)) for seed in range(4)]


def judged(given, protocol="disjoint"):
  """The rows and ROCs of all attacks with a threshold."""
  found = []
  for name in NAMES:
    published = protocol == "paper"
    scores = run_attack(ATTACKS.choose(name), view_of(given), published=published)
    found += judge(name, declaration_of(name), scores, pool_of(given), protocol=protocol)
  return found


@pytest.mark.parametrize("protocol", ["disjoint", "paper"])
def test_a_planted_leak_is_found_by_every_attack(protocol):
  found = judged(groups(leak=3.0), protocol)
  assert len(found) == 9
  for row, roc in found:
    least = 0.7 if row.name != "correctness" else 0.55
    assert row.auc.value > least and row.auc.low > 0.5
    assert row.auc == (roc.auc, *roc.auc_interval)
    assert row.known_threshold_accuracy.value <= row.accuracy.value + 1e-12
    assert row.known_threshold_accuracy.low > 0.5
    assert roc.num_members == (500 if protocol == "disjoint" else 1000)


def test_without_a_leak_half_lies_in_every_interval():
  for row, _ in judged(groups(leak=0.0)):
    assert row.auc.low <= 0.5 <= row.auc.high, row.name


def test_the_gap_attack_is_its_formula():
  given = groups(leak=1.0)
  gap = judged(given)[0][0]
  accuracies = [metrics.accuracy(*given[group]) for group in (1, 3)]
  assert gap.name == "correctness"
  assert gap.auc.value == pytest.approx(0.5 + (accuracies[0] - accuracies[1]) / 2)


def test_class_thresholds_undo_shifts_between_classes():
  """A leak hidden under a large offset of each class is found with thresholds of its own."""
  rng, num = np.random.default_rng(0), 2000
  labels = rng.integers(0, 4, (4, num))
  member = np.array([1, 0, 1, 0])[:, None]
  values = rng.normal(0, 0.3, (4, num)) + member + 10.0 * labels
  thresholds = class_thresholds(values[0], values[1], labels[0], labels[1], num_classes=5)
  np.testing.assert_allclose(np.diff(thresholds[:4]), 10.0, atol=0.5)
  shared = metrics.roc(values[0], values[1]).best_threshold
  assert thresholds[4] == shared
  global_auc = metrics.roc(values[2], values[3]).auc
  shifted = [values[i] - thresholds[labels[i]] for i in (2, 3)]
  assert metrics.roc(*shifted).auc > 0.97 > 0.7 > global_auc


def test_what_was_trained_on_known_samples_is_never_pooled_with_others():
  """Known samples are told apart perfectly, others not at all."""
  pool = pool_of(groups(leak=0.0))
  chance = np.random.default_rng(0).normal(0, 1, len(pool.labels))
  scores = np.where(pool.is_known, 10.0 * pool.is_member, chance)
  for trained, expected in ((False, 0.75), (True, 0.5)):
    declared = Attack("own", trains_on_known=trained)
    for protocol, auc in (("paper", expected), ("disjoint", 0.5)):
      ((row, roc),) = judge("own", declared, scores, pool, protocol=protocol)
      assert row.auc.value == pytest.approx(auc, abs=0.06)
      assert roc.num_members == (1000 if auc > 0.6 else 500)


def test_a_row_says_what_is_declared_of_the_attack():
  pool = pool_of(groups(leak=0.0))
  declared = Attack("My attack", family="mine", per_class=True)
  rows = [row for row, _ in judge("my", declared, pool.labels + 0.0, pool, protocol="disjoint")]
  assert [row.threshold for row in rows] == ["global", "per_class"]
  assert {(row.name, row.title, row.family) for row in rows} == {("my", "My attack", "mine")}
