"""The precision where members are rare, against counts."""

import numpy as np
import pytest

from diffence_jax import metrics


def test_against_counts_in_a_population():
  rng = np.random.default_rng(0)
  members, nonmembers = rng.normal(2.0, 1.0, 4000), rng.normal(0.0, 1.0, 4000)
  rate = metrics.roc(members, nonmembers).tpr_at_fpr(0.01)
  for prior in (0.01, 0.1):
    precision = metrics.precision(rate, prior)
    # A population of a million with so many members.
    right, wrong = prior * 1e6 * rate.value, (1 - prior) * 1e6 * 0.01
    assert precision.value == pytest.approx(right / (right + wrong))
    assert precision.low < precision.value < precision.high
  assert metrics.precision(rate._replace(value=0.01), 0.1).value == pytest.approx(0.1)
  assert metrics.precision(rate._replace(value=0.0), 0.1).value == 0.0


def test_arguments_that_are_not_right_are_refused():
  rate = metrics.roc([1.0], [0.0]).tpr_at_fpr(0.0)
  with pytest.raises(ValueError, match="prior is"):
    metrics.precision(rate, 1.0)
  with pytest.raises(ValueError, match=r"rate\.limit is"):
    metrics.precision(rate, 0.5)
