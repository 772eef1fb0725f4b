"""Threshold attacks against slow references; a planted leak, and none."""

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import attacks, metrics
from diffence_jax.attacks import Group, Groups, run_threshold_attacks

ALL = {**attacks.THRESHOLD_ATTACKS, "correctness": attacks.correctness}


def predictions(seed, num=300, signal=2.0):
  rng = np.random.default_rng(seed)
  logits, labels = rng.normal(0, 1, (num, 5)), rng.integers(0, 5, num)
  logits[np.arange(num), labels] += signal
  return Group(logits, labels)


def slow(name, p, y):
  """One score, from probabilities, as the papers write it."""
  others = [q for i, q in enumerate(p) if i != y]
  return {
    "loss": np.log(p[y]),
    "confidence": np.log(p[y] / (1 - p[y])),
    "entropy": sum(q * np.log(q) for q in p),
    "modified_entropy": (1 - p[y]) * np.log(p[y]) + sum(q * np.log(1 - q) for q in others),
    "correctness": float(np.argmax(p) == y),
  }[name]


@pytest.mark.parametrize("name", ALL)
def test_scores_are_the_slow_reference(name):
  logits, labels = predictions(0)
  p = scipy.special.softmax(logits, axis=-1)
  expected = [slow(name, row, y) for row, y in zip(p, labels, strict=True)]
  scores = ALL[name](logits, labels)
  assert scores.dtype == np.float64
  np.testing.assert_allclose(scores, expected, rtol=1e-9)


@pytest.mark.parametrize("name", attacks.THRESHOLD_ATTACKS)
def test_certain_predictions_are_still_told_apart(name):
  logits = np.float32([[50.0, 0.0, 0.0], [60.0, 0.0, 0.0], [300.0, 0.0, 0.0]])
  scores = ALL[name](logits, np.zeros(3, int))
  assert np.all(np.isfinite(scores)) and np.all(np.diff(scores) > 0)


def test_classes_of_probability_zero_are_fine():
  logits = np.array([[1.0, 0.0, -np.inf], [2.0, 0.0, -np.inf]])
  for name, attack in ALL.items():
    scores = attack(logits, np.array([0, 0]))
    assert np.all(np.isfinite(scores)), name
  np.testing.assert_allclose(
    attacks.entropy(logits, [0, 0]), attacks.entropy(logits[:, :2], [0, 0])
  )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(12)))
@pytest.mark.parametrize("name", ALL)
def test_scores_follow_the_samples(name, seed, order):
  logits, labels = predictions(seed, num=12)
  order = np.array(order)
  permuted = ALL[name](logits[order], labels[order])
  np.testing.assert_array_equal(permuted, ALL[name](logits, labels)[order])


def groups(leak):
  sides = {"members": 2.0 + leak, "nonmembers": 2.0}
  return Groups(
    **{
      f"{kind}_{side}": predictions(seed, 500, signal)
      for seed, (kind, side, signal) in enumerate(
        (kind, side, signal) for side, signal in sides.items() for kind in ("known", "target")
      )
    }
  )


@pytest.mark.parametrize("protocol", ["disjoint", "paper"])
def test_a_planted_leak_is_found_by_every_attack(protocol):
  results = run_threshold_attacks(groups(leak=3.0), protocol=protocol)
  assert len(results) == 9
  for result in results:
    least = 0.7 if result.name != "correctness" else 0.55
    assert result.roc.auc > least and result.roc.auc_interval[0] > 0.5
    assert result.known_threshold_accuracy.value <= result.roc.accuracy + 1e-12
    assert result.known_threshold_accuracy.low > 0.5
    assert result.roc.num_members == (500 if protocol == "disjoint" else 1000)


def test_without_a_leak_half_lies_in_every_interval():
  for result in run_threshold_attacks(groups(leak=0.0)):
    low, high = result.roc.auc_interval
    assert low <= 0.5 <= high, result.name


def test_the_gap_attack_is_its_formula():
  given_groups = groups(leak=1.0)
  gap = run_threshold_attacks(given_groups)[0]
  accuracies = [
    metrics.accuracy(*g) for g in (given_groups.target_members, given_groups.target_nonmembers)
  ]
  assert gap.name == "correctness"
  assert gap.roc.auc == pytest.approx(0.5 + (accuracies[0] - accuracies[1]) / 2)


def test_class_thresholds_undo_shifts_between_classes():
  """A leak hidden under a large offset of each class is found with thresholds of its own."""
  rng, num = np.random.default_rng(0), 2000
  labels = rng.integers(0, 4, (4, num))
  member = np.array([1, 0, 1, 0])[:, None]
  values = rng.normal(0, 0.3, (4, num)) + member + 10.0 * labels
  thresholds = attacks.class_thresholds(
    values[0], values[1], labels[0], labels[1], num_classes=5
  )
  np.testing.assert_allclose(np.diff(thresholds[:4]), 10.0, atol=0.5)
  shared = metrics.roc(values[0], values[1]).best_threshold
  assert thresholds[4] == shared
  global_auc = metrics.roc(values[2], values[3]).auc
  shifted = [values[i] - thresholds[labels[i]] for i in (2, 3)]
  assert metrics.roc(*shifted).auc > 0.97 > 0.7 > global_auc


def test_an_unknown_protocol_is_refused():
  with pytest.raises(ValueError, match="expected 'disjoint' or 'paper'"):
    run_threshold_attacks(groups(leak=0.0), protocol="published")
