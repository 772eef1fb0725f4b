"""What most attacks read: means over the queries of every version."""

import numpy as np
import pytest
import scipy.special

from diffence_jax.attacks.signals import log_mean, log_sigmoid, phi_and_log_p
from diffence_jax.metrics.predictions import BOUND, bounded


@pytest.mark.parametrize("versions", [1, 3])
@pytest.mark.parametrize("queries", [1, 4])
def test_means_are_over_the_queries_of_every_version(versions, queries):
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (6, versions * queries, 5))
  labels = rng.integers(0, 5, 6)
  found = phi_and_log_p(logits, labels, versions)
  assert found.shape == (6, versions, 2) and found.dtype == np.float64
  p = scipy.special.softmax(logits, axis=-1)
  for i, label in enumerate(labels):
    for a in range(versions):
      own = p[i, a * queries : (a + 1) * queries, label]
      expected = np.mean(np.log(own / (1 - own))), np.log(np.mean(own))
      np.testing.assert_allclose(found[i, a], expected, rtol=1e-9, atol=1e-12)


def test_probabilities_next_to_0_and_1_keep_their_digits():
  np.testing.assert_allclose(log_sigmoid(np.array([800.0, 40.0])), -np.exp([-800.0, -40.0]))
  np.testing.assert_allclose(log_sigmoid(np.array([-800.0])), [-800.0])
  one = np.log([[0.3], [0.7]])
  np.testing.assert_array_equal(log_mean(one), one[:, 0])
  np.testing.assert_array_equal(log_mean(np.full((2, 3), -np.inf)), [-np.inf] * 2)
  # Rounding never makes a probability of more than 1.
  assert log_mean(np.zeros((1, 3)))[0] == 0.0


def test_answers_of_labels_alone_have_a_bounded_phi():
  """A defense that tells labels only answers with -inf for all other classes."""
  logits = np.array([[[0.0, -np.inf, -np.inf]], [[-np.inf, 0.0, -np.inf]]])
  phi, log_p = phi_and_log_p(logits, np.array([0, 0]), 1)[:, 0].T
  np.testing.assert_array_equal(phi, [BOUND, -BOUND])
  np.testing.assert_allclose(log_p, [0.0, -BOUND], atol=1e-40)
  # Finite numbers are left as they are, also beyond.
  values = np.array([-np.inf, -200.0, 0.5, 200.0, np.inf])
  np.testing.assert_array_equal(bounded(values), [-BOUND, -200.0, 0.5, 200.0, BOUND])
