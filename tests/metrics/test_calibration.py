"""Calibration and divergence against loops, SciPy and the published figure."""

import numpy as np
import pytest
import scipy.special
from fixtures.load import load_fixture

import diffence_jax as dj
from diffence_jax import metrics


def predictions(num=500, seed=0):
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 2, (num, 4))
  return logits, rng.integers(0, 4, num)


def slow_ece(probabilities, labels, num_bins):
  total = 0.0
  for b in range(num_bins):
    rows = [
      i for i, p in enumerate(probabilities) if b / num_bins < p.max() <= (b + 1) / num_bins
    ]
    if rows:
      right = np.mean([probabilities[i].argmax() == labels[i] for i in rows])
      total += abs(right - np.mean([probabilities[i].max() for i in rows])) * len(rows)
  return total / len(labels)


@pytest.mark.parametrize("num_bins", [1, 7, 10])
def test_ece_is_the_slow_reference(num_bins):
  logits, labels = predictions()
  p = scipy.special.softmax(logits, axis=-1)
  expected = slow_ece(p, labels, num_bins)
  assert metrics.expected_calibration_error(p, labels, num_bins) == pytest.approx(expected)


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not():
  p = np.eye(3)
  assert metrics.expected_calibration_error(p, np.arange(3)) == 0.0
  assert metrics.expected_calibration_error(p, np.array([1, 2, 0])) == 1.0


def test_likelihood_accuracy_and_changes():
  logits, labels = predictions()
  p = scipy.special.softmax(logits, axis=-1)
  nll = -np.mean([np.log(p[i, y]) for i, y in enumerate(labels)])
  assert metrics.negative_log_likelihood(logits, labels) == pytest.approx(nll)
  assert metrics.accuracy(logits, labels) == np.mean(p.argmax(-1) == labels)
  other = logits.copy()
  other[:7] = -other[:7]
  assert metrics.label_changes(other, logits) == 7


def test_distance_is_the_published_one():
  manifest, arrays = load_fixture("selection")

  def selected_phi(group):
    chosen = arrays[f"{group}_scenario1_selected"]
    logits = arrays[f"{group}_candidates"][np.arange(len(chosen)), chosen]
    return np.asarray(dj.scaled_logit(logits))

  distance = metrics.jensen_shannon_distance(
    selected_phi("known_mem"), selected_phi("known_non")
  )
  assert distance == pytest.approx(manifest["js_distance_scenario1"], abs=1e-9)


def test_distance_is_zero_for_one_sample_and_largest_for_disjoint_ones():
  values = np.random.default_rng(0).normal(size=100)
  assert metrics.jensen_shannon_distance(values, values) == pytest.approx(0.0, abs=1e-7)
  assert metrics.jensen_shannon_distance(values + 50, values) == np.sqrt(np.log(2))


@pytest.mark.parametrize("bad", [[], [[1.0]], [np.nan, 1.0]])
def test_samples_without_a_distance_are_refused(bad):
  with pytest.raises(ValueError, match="values has shape"):
    metrics.jensen_shannon_distance(bad, [0.0, 1.0])
  with pytest.raises(ValueError, match="reference has shape"):
    metrics.jensen_shannon_distance([0.0, 1.0], bad)
  with pytest.raises(ValueError, match="1 infinite"):
    metrics.jensen_shannon_distance([0.0, 1.0], [np.inf, 1.0])


def test_changes_are_counted_between_equal_shapes_only():
  with pytest.raises(ValueError, match="expected the same shape"):
    metrics.label_changes(np.eye(3), np.eye(3)[:1])


def test_outputs_that_are_nan_are_refused():
  logits = np.array([[np.nan, 0.0], [1.0, 0.0]])
  for measure in (metrics.accuracy, metrics.negative_log_likelihood):
    with pytest.raises(ValueError, match="1 of 2 outputs have NaN"):
      measure(logits, np.array([0, 0]))


@pytest.mark.parametrize(
  "outputs, labels, match",
  [
    (np.ones((2, 2)) / 2, np.array([0, 2]), "labels range"),
    (np.ones((2, 2)) / 2, np.array([0]), "expected \\[N, K\\]"),
    (np.ones((2, 2)) / 2, np.array([0.0, 1.0]), "expected integers"),
    (np.ones((2, 2)), np.array([0, 1]), "softmax"),
    (np.array([[-1.0, 2.0]]), np.array([0]), "softmax"),
  ],
)
def test_what_does_not_fit_is_refused(outputs, labels, match):
  with pytest.raises(ValueError, match=match):
    metrics.expected_calibration_error(outputs, labels)
