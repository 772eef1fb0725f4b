"""Several signals against SciPy's multivariate t, sample by sample, and against LiRA."""

import math

import numpy as np
import pytest
import scipy.stats
from attacks.test_lira import roc, slow_prior, wide_interval
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax.attacks import lira, multi_signal
from diffence_jax.attacks.multi_signal import signals
from diffence_jax.metrics.predictions import BOUND

ROOT = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.3, 2.0]])


def world(seed, num_models, num, shift, spread=0.0):
  """Three correlated signals, members' `shift` higher; scales of every example's own."""
  rng = np.random.default_rng(seed)
  half = np.arange(num_models)[:, None] < num_models // 2
  membership = rng.permuted(np.repeat(half, num, axis=1), axis=0)
  member = rng.random(num) < 0.5
  means, scale = rng.normal(0, 5, (num, 3)), np.exp(rng.normal(0, spread, num))

  def draw(inside):
    noise = rng.normal(0, 1, (*inside.shape, 3)) @ ROOT.T + shift * inside[..., None]
    return means + scale[:, None] * noise

  return draw(member), draw(membership), membership, member


def slow_densities(target, shadow, members, shrinkage):
  """One side, example by example."""
  num, num_signals = target.shape
  groups = [shadow[members[:, i], i] for i in range(num)]
  residuals = [group - group.mean(axis=0) for group in groups]
  freedom = [len(group) - 1 for group in groups]
  shared = sum(r.T @ r for r in residuals) / sum(freedom)
  for a in range(num_signals):
    for b in range(num_signals):
      if a != b:
        shared[a, b] *= 1 - shrinkage
  inverse = np.linalg.inv(shared)
  squares = [sum(x @ inverse @ x for x in r) for r in residuals]
  freedom = [num_signals * d for d in freedom]
  factors = [q / d if d else None for q, d in zip(squares, freedom, strict=True)]
  prior, nu = slow_prior(factors, freedom, sum(squares) / sum(freedom))
  found = []
  for phi, group, q, d in zip(target, groups, squares, freedom, strict=True):
    shape = prior if nu == math.inf else (nu * prior + q) / (nu + d)
    shape = shape * (1 + 1 / len(group)) * shared
    centre = group.mean(axis=0)
    if nu == math.inf:
      found.append(scipy.stats.multivariate_normal(centre, shape).logpdf(phi))
    else:
      found.append(scipy.stats.multivariate_t(centre, shape, nu + d).logpdf(phi))
  return np.array(found)


@pytest.mark.parametrize("spread", [0.0, 0.8], ids=["like_scales", "unlike_scales"])
@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_scores_are_the_slow_reference(shrinkage, spread):
  target, shadow, _, _ = world(0, 10, 40, 1.0, spread)
  # From 1 to 9 models IN.
  membership = np.arange(10)[:, None] < np.random.default_rng(1).integers(1, 10, 40)
  scores = multi_signal(target, shadow, membership, shrinkage=shrinkage)
  assert scores.dtype == np.float64 and scores.shape == (40,)
  inside, outside = (
    slow_densities(target, shadow, members, shrinkage) for members in (membership, ~membership)
  )
  np.testing.assert_allclose(scores, inside - outside, rtol=1e-7, atol=1e-7)


def slow_signals(answers, label):
  """Of one sample's answers f[Q,K]."""
  phis, leads, entropies, margins = [], [], [], []
  for logits in np.asarray(answers, np.float64):
    p = np.exp(logits - logits.max())
    p /= p.sum()
    phis.append(math.log(p[label] / (1 - p[label])))
    others = sorted(np.delete(logits, label))
    leads.append(logits[label] - others[-1])
    entropies.append(math.log(-sum(q * math.log(q) for q in p)))
    first, second = sorted(logits)[:-3:-1]
    margins.append(first - second)
  spread = math.sqrt(sum((phi - np.mean(phis)) ** 2 for phi in phis) / len(phis))
  means = [sum(values) / len(values) for values in (phis, leads, entropies, margins)]
  return [means[0], math.log(1 + spread), *means[1:]]


@pytest.mark.parametrize("queries", [1, 4])
def test_signals_are_read_answer_by_answer(queries):
  rng = np.random.default_rng(2)
  logits = rng.normal(0, 2, (20, queries, 5)).astype(np.float32)
  labels = rng.integers(0, 5, 20)
  expected = [
    slow_signals(answers, label) for answers, label in zip(logits, labels, strict=True)
  ]
  np.testing.assert_allclose(signals(logits, labels, 1), expected, rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(signals(logits, labels, queries), signals(logits, labels, 1))


def test_signals_of_labels_alone_are_finite():
  logits = np.full((2, 1, 3), -np.inf)
  logits[:, 0, 1] = 0.0
  found = signals(logits, np.array([1, 0]), 1)
  np.testing.assert_allclose(found[0], [BOUND, 0.0, BOUND, -BOUND, BOUND])
  np.testing.assert_allclose(found[1], [-BOUND, 0.0, -BOUND, -BOUND, BOUND])


@pytest.mark.parametrize("spread", [0.0, 0.8], ids=["like_scales", "unlike_scales"])
def test_a_planted_leak_is_found_better_than_by_one_signal(spread):
  """Members' signals differ where the correlation lets others' differ little."""
  shift = np.array([1.0, 0.0, 1.0])
  target, shadow, membership, member = world(3, 16, 3000, shift, spread)
  result = roc(multi_signal(target, shadow, membership), member)
  assert result.auc_interval[0] > 0.7
  for signal in range(3):
    one = lira(target[:, signal], shadow[:, :, signal], membership, variance="shrunk")
    assert result.auc_interval[0] > roc(one, member).auc_interval[1]


def test_without_a_leak_half_lies_in_the_interval():
  target, shadow, membership, member = world(4, 16, 3000, 0.0, 0.5)
  result = roc(multi_signal(target, shadow, membership), member)
  low, high = wide_interval(result)
  assert low < 0.5 < high and high - low < 0.15


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(9)), scale=st.floats(0.01, 100.0))
def test_neither_order_nor_units_matter(seed, order, scale):
  order = np.array(order)
  target, shadow, membership, _ = world(seed, 9, 9, 1.0, 0.5)
  scores = multi_signal(target, shadow, membership)
  units = np.array([1.0, scale, -scale])
  for arguments, expected in (
    ((target[order], shadow[:, order], membership[:, order]), scores[order]),
    ((target, shadow[order], membership[order]), scores),
    ((target * units, shadow * units, membership), scores),
    ((target[:, [2, 0, 1]], shadow[:, :, [2, 0, 1]], membership), scores),
  ):
    np.testing.assert_allclose(multi_signal(*arguments), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1])
def test_signals_that_say_the_same_or_nothing_give_finite_scores(shrinkage):
  target, shadow, membership, _ = world(5, 8, 50, 1.0)
  for values in (target, shadow):
    values[..., 1] = 2.0 * values[..., 0]
    values[..., 2] = 3.0
  assert np.all(np.isfinite(multi_signal(target, shadow, membership, shrinkage=shrinkage)))
  shadow[:, :, :] = 1.0
  assert np.all(np.isfinite(multi_signal(target, shadow, membership, shrinkage=shrinkage)))


def test_mistakes_are_named():
  target, shadow, membership, _ = world(6, 8, 20, 1.0)
  nan = shadow.copy()
  nan[3, 4, 1] = np.nan
  for args, options, message in (
    ((target, nan, membership), {}, "shadow_signals has NaN"),
    ((target + np.inf, shadow, membership), {}, "target_signals has NaN, infinite"),
    ((target[:, 0], shadow, membership), {}, r"target_signals \[20\] and shadow_signals"),
    ((target, shadow, membership[1:]), {}, r"bool\[7, 20\]; expected bool\[8, 20\]"),
    ((target, shadow, membership & False), {}, "20 of 20 examples have no IN models"),
    ((target, shadow[:2], np.arange(2)[:, None] == np.zeros((1, 20))), {}, "two IN models"),
    ((target, shadow, membership), {"shrinkage": 1.5}, r"shrinkage is 1\.5; expected"),
  ):
    with pytest.raises(ValueError, match=message):
      multi_signal(*args, **options)
