"""Two-way variances: against plain loops over pairs of scores, and what must always hold."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax.metrics.two_way import Design, design, spread


def slow_variance(shares, models):
  """Sums over all pairs of scores of one model, of one sample, and of both."""
  num = len(np.unique(models))
  sums = {"model": 0.0, "sample": 0.0, "both": 0.0}
  entries = [(m, n, shares[t, n]) for t, m in enumerate(models) for n in range(shares.shape[1])]
  for m, n, a in entries:
    for other_m, other_n, b in entries:
      sums["model"] += a * b * (m == other_m)
      sums["sample"] += a * b * (n == other_n)
      sums["both"] += a * b * (m == other_m and n == other_n)
  sums["model"] *= num / (num - 1)
  two_way = sums["model"] + sums["sample"] - sums["both"]
  return max(sums["model"], sums["sample"], two_way)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_variance_is_that_of_plain_loops(seed):
  rng = np.random.default_rng(seed)
  shares = rng.normal(size=(4, 5)) + rng.normal(size=(4, 1)) + rng.normal(size=5)
  models = np.array([0, 0, 1, 2])
  assert spread(shares, models).variance == pytest.approx(slow_variance(shares, models))


def test_the_spread_of_a_mean_is_the_one_that_repetition_shows():
  """Scores = model + sample + noise: the mean's variance is 1/T + 4/N + 1/(TN)."""
  rng, num_models, num, means, found = np.random.default_rng(0), 20, 50, [], []
  for _ in range(400):
    scores = rng.normal(size=(num_models, 1)) + 2 * rng.normal(size=num)
    scores = scores + rng.normal(size=(num_models, num))
    means.append(scores.mean())
    own = spread((scores - scores.mean()) / scores.size, np.arange(num_models))
    found.append(own.variance)
    assert num_models - 1 <= own.freedom <= num_models + num
  truth = 1 / num_models + 4 / num + 1 / (num_models * num)
  # A variance of 400 normal means scatters by 7%.
  assert np.var(means) == pytest.approx(truth, rel=0.25)
  assert np.mean(found) == pytest.approx(truth, rel=0.05)


def test_leaving_out_stands_for_the_models_where_it_shows_more():
  rng = np.random.default_rng(0)
  shares, models = rng.normal(size=(5, 8)), np.array([0, 0, 1, 2, 3])
  jackknife = np.array([0.0, 10.0, -10.0, 4.0])
  deviations = [value - sum(jackknife) / 4 for value in jackknife]
  by_model = 3 / 4 * sum(deviation**2 for deviation in deviations)
  by_sample = np.sum(shares.sum(axis=0) ** 2)
  cells = np.stack([shares[models == m].sum(axis=0) for m in range(4)])
  expected = by_model + by_sample - np.sum(cells**2)
  assert spread(shares, models, jackknife).variance == pytest.approx(max(expected, by_model))
  assert spread(shares, models, 1e-3 * jackknife) == spread(shares, models)


def test_without_any_deviation_there_is_none():
  own = spread(np.zeros((3, 4)), np.arange(3))
  assert own.variance == 0.0 and own.freedom == 2
  assert own.quantile == pytest.approx(scipy.stats.t(2).ppf(0.975))


def test_the_design_of_independent_scores_is_that_of_independent_scores():
  rng = np.random.default_rng(0)
  membership = rng.random((40, 500)) < 0.5
  own = design(rng.random((40, 500)) < 0.1, membership, np.arange(40))
  assert 1.0 <= own.errors < 1.6 and 1.0 <= own.hits < 1.6 and own.correlation < 0.5
  assert Design().quantile == pytest.approx(1.959964)


def test_what_models_share_is_in_the_design():
  """Half of the models call everything a member: as many independent scores as models."""
  membership = np.tile([True, False], (20, 50))
  called = np.broadcast_to(np.arange(20)[:, None] < 10, membership.shape)
  own = design(called, membership, np.arange(20))
  assert own.errors == pytest.approx(50 * 20 / 19) and own.hits == own.errors
  assert own.correlation == 0.95


def test_nobody_called_says_nothing():
  own = design(np.zeros((2, 4), bool), np.tile([True, False], (2, 2)), np.arange(2))
  assert own[:3] == (1.0, 1.0, 0.0)
