"""What is read off predictions against loops, and where probabilities round to 1."""

import numpy as np
import pytest
import scipy.special

from diffence_jax import attacks
from diffence_jax.metrics.predictions import hinge, log_probability, true_label_phi


@pytest.mark.parametrize("shape", [(7,), (7, 3), (2, 7, 3)])
def test_statistics_are_loops_over_leading_axes(shape):
  rng = np.random.default_rng(11)
  logits = rng.normal(0, 3, (*shape, 5))
  for axes in range(len(shape) + 1):
    labels = rng.integers(0, 5, shape[:axes])
    phi, margin = true_label_phi(logits, labels), hinge(logits, labels)
    assert phi.shape == margin.shape == shape and phi.dtype == margin.dtype == np.float64
    for index in np.ndindex(shape):
      row, y = logits[index], int(labels[index[:axes]])
      p = np.exp(row) / np.sum(np.exp(row))
      np.testing.assert_allclose(phi[index], np.log(p[y] / (1 - p[y])), rtol=1e-9, atol=1e-9)
      assert margin[index] == row[y] - max(v for k, v in enumerate(row) if k != y)


def test_phi_is_the_confidence_attack_and_exact_for_certain_predictions():
  logits, labels = np.random.default_rng(12).normal(0, 3, (50, 5)), np.arange(50) % 5
  np.testing.assert_allclose(
    true_label_phi(logits, labels), attacks.confidence(logits, labels), rtol=1e-9, atol=1e-12
  )
  certain = np.float32([[50, 0, 0], [60, 0, 0], [3e4, 0, 0], [-3e4, 0, 0]])
  expected = np.array([50, 60, 3e4, -3e4]) - np.log([2, 2, 2, 2])
  np.testing.assert_allclose(true_label_phi(certain, np.zeros(4, int)), expected, rtol=1e-15)
  assert true_label_phi([0.0, -np.inf], 0) == np.inf
  assert true_label_phi([0.0, -np.inf], 1) == -np.inf


def test_statistics_refuse_what_is_no_prediction():
  for statistic in (true_label_phi, hinge):
    for logits, labels, message in (
      (np.zeros((4, 3)), np.zeros(3, int), r"logits \[4, 3\] and labels \[3\]"),
      (np.zeros((4, 3)), np.zeros((4, 3), int), "its leading axes"),
      (np.zeros((4, 3)), np.full(4, 3), "expected 0 to 2"),
      (np.zeros((4, 3)), np.zeros(4), "expected integers"),
      (np.zeros((4, 1)), np.zeros(4, int), "at least 2 classes"),
      (np.full((4, 3), np.nan), np.zeros(4, int), "NaN"),
      (np.full((4, 3), np.inf), np.zeros(4, int), r"\+inf"),
      (np.full((4, 3), -np.inf), np.zeros(4, int), "all -inf"),
    ):
      with pytest.raises(ValueError, match=message):
        statistic(logits, labels)


@pytest.mark.parametrize("shape", [(7,), (7, 3), (2, 7, 3)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_log_probability_is_the_softmax(shape, temperature):
  rng = np.random.default_rng(7)
  logits = rng.normal(0, 3, (*shape, 5))
  expected = scipy.special.log_softmax(logits / temperature, axis=-1)
  for axes in range(len(shape) + 1):
    labels = rng.integers(0, 5, shape[:axes])
    values = log_probability(logits, labels, temperature=temperature)
    assert values.shape == shape and values.dtype == np.float64
    for index in np.ndindex(shape):
      label = labels[index[:axes]]
      np.testing.assert_allclose(values[index], expected[index][label], rtol=1e-12, atol=1e-14)


def test_log_probability_keeps_certain_predictions_apart():
  logits = np.float32([[50, 0, 0], [60, 0, 0], [300, 0, 0], [-300, 0, 0]])
  values = log_probability(logits, np.zeros(4, int))
  np.testing.assert_allclose(values[:3], -2 * np.exp([-50.0, -60.0, -300.0]), rtol=1e-9)
  np.testing.assert_allclose(values, attacks.loss(logits, np.zeros(4, int)), rtol=1e-9)
  np.testing.assert_array_equal(log_probability([[0.0, -np.inf]] * 2, [0, 1]), [0.0, -np.inf])


def test_temperatures_that_are_none_are_refused():
  for temperature in (0.0, -1.0, np.inf, np.nan):
    with pytest.raises(ValueError, match="temperature is"):
      log_probability(np.zeros((2, 3)), np.zeros(2, int), temperature=temperature)
