"""BASE against a loop over samples, and against RMIA, whose order it has."""

import math

import numpy as np
import pytest
import scipy.stats
from attacks.test_rmia import roc, world
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax.attacks import base, rmia

SIDES = pytest.mark.parametrize("online", [True, False])


def slow_base(target, shadow, membership, online, scale):
  scores = []
  for i in range(len(target)):
    p = [
      math.exp(row[i]) for row, m in zip(shadow, membership, strict=True) if online or not m[i]
    ]
    scores.append(target[i] - (1.0 if online else scale) * math.log(sum(p) / len(p)))
  return np.array(scores)


@pytest.mark.parametrize(("online", "scale"), [(True, 0.33), (False, 0.0), (False, 0.7)])
def test_scores_are_the_loop_over_samples(online, scale):
  target, shadow, _, *_ = world(0)[0]
  membership = np.arange(12)[:, None] < np.random.default_rng(0).integers(1, 12, 60)
  scores = base(target, shadow, membership, online=online, scale=scale)
  assert scores.dtype == np.float64 and scores.shape == (60,)
  expected = slow_base(target, shadow, membership, online, scale)
  np.testing.assert_allclose(scores, expected, rtol=1e-10, atol=1e-12)


def test_with_as_many_models_on_either_side_it_has_the_order_of_rmia():
  args, _ = world(1, num=300)
  np.testing.assert_array_equal(
    scipy.stats.rankdata(base(*args[:3])), scipy.stats.rankdata(rmia(*args, break_ties=True))
  )


@SIDES
def test_a_planted_leak_is_found_and_none_is_none(online):
  args, member = world(2, num=3000, num_models=32, leak=2.0)
  assert roc(base(*args[:3], online=online), member).auc > 0.75
  args, member = world(3, num=3000, num_models=32, leak=0.0)
  low, high = roc(base(*args[:3], online=online), member).auc_interval
  # Of 99.9%, so that it hardly fails by chance.
  middle, wider = (low + high) / 2, scipy.stats.norm.ppf(0.9995) / scipy.stats.norm.ppf(0.975)
  assert abs(middle - 0.5) < wider * (high - low) / 2 < 0.06


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(12)))
@SIDES
def test_scores_follow_the_examples_and_not_the_order_of_models(online, seed, order):
  order = np.array(order)
  target, shadow, membership, *_ = world(seed, num=12)[0]
  scores = base(target, shadow, membership, online=online)
  moved = base(target[order], shadow[:, order], membership[:, order], online=online)
  np.testing.assert_allclose(moved, scores[order], rtol=1e-10, atol=1e-12)
  moved = base(target, shadow[order], membership[order], online=online)
  np.testing.assert_allclose(moved, scores, rtol=1e-10, atol=1e-12)


@SIDES
def test_probabilities_of_zero_give_finite_scores(online):
  target, shadow, membership, *_ = world(4)[0]
  target[0], shadow[:, 1] = -np.inf, -np.inf
  scores = base(target, shadow, membership, online=online)
  assert np.all(np.isfinite(scores)) and scores.argmin() == 0 and scores.argmax() == 1


def test_mistakes_are_named():
  target, shadow, membership, *_ = world(5)[0]
  nan, above = (np.where(np.arange(60) == 3, value, shadow) for value in (np.nan, 0.1))
  for args, options, message in (
    ((target, nan, membership), {}, "A shadow model's log-probability has NaN or values above"),
    ((target, above, membership), {"online": False}, "has NaN or values above 0"),
    ((-target, shadow, membership), {}, "target_log_p has NaN or values above 0"),
    ((target[1:], shadow, membership), {}, r"target_log_p \[59\] and shadow_log_p \[12, 60\]"),
    ((target, shadow, ~(membership & False)), {}, "60 of 60 examples have no OUT models"),
    ((target, shadow, membership & False), {}, "60 of 60 examples have no IN models"),
    ((target, shadow, membership), {"online": 1}, "online is 1"),
    ((target, shadow, membership), {"scale": 1.5}, r"scale is 1\.5; expected"),
    ((target, shadow, membership), {"scale": math.nan}, "scale is nan; expected"),
  ):
    with pytest.raises(ValueError, match=message):
      base(*args, **options)
