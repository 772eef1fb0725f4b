"""Threshold attacks against slow references."""

import warnings

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import attacks
from diffence_jax.attacks import published

THRESHOLDS = ("loss", "confidence", "entropy", "modified_entropy")
ALL = {name: getattr(attacks, name) for name in (*THRESHOLDS, "correctness")}


def predictions(seed, num=300, signal=2.0):
  rng = np.random.default_rng(seed)
  logits, labels = rng.normal(0, 1, (num, 5)), rng.integers(0, 5, num)
  logits[np.arange(num), labels] += signal
  return logits, labels


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


@pytest.mark.parametrize("name", THRESHOLDS)
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


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
  "row, message",
  [
    ([0.3], "Make two columns of a sigmoid's z"),
    ([np.nan, 0.0], "1 of 2 outputs have NaN"),
    ([np.inf, 0.0], r"1 of 2 outputs have NaN, \+inf"),
    ([-np.inf, -np.inf], "or are all -inf"),
  ],
)
def test_what_is_no_answer_is_refused_by_all(name, row, message):
  logits = np.array([np.zeros(len(row)), row])
  for attack in (ALL[name], getattr(published, name, ALL[name])):
    with pytest.raises(ValueError, match=message):
      attack(logits, np.array([0, 0]))


def test_probabilities_given_for_logits_are_warned_of():
  logits, labels = predictions(0, num=20)
  p = scipy.special.softmax(logits, axis=-1)
  with pytest.warns(UserWarning, match="look like probabilities"):
    attacks.loss(p, labels)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    attacks.loss(logits, labels)
    attacks.loss(np.log(p), labels)
    attacks.loss(np.eye(5), np.arange(5))
    attacks.loss(p[:1], labels[:1])
