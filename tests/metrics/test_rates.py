"""The interval of a TPR at a FPR: against a search over all TPRs, and that it covers."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffence_jax import metrics
from diffence_jax.metrics.rates import rate_interval
from diffence_jax.metrics.two_way import Design


def slow_interval(hits, errors, limit, design):
  """All TPRs of a fine grid that some threshold allows within the budget."""
  num_hits, num_errors = hits[-1] / design.hits, errors[-1] / design.errors
  allowed = np.arange(len(hits))[errors <= limit * errors[-1] + 1e-9]
  grid, inside = np.linspace(0, 1, 4001)[1:-1], np.zeros(3999, bool)
  for at, (hit, error) in enumerate(
    zip(hits / design.hits, errors / design.errors, strict=True)
  ):
    above = scipy.stats.beta(error + 0.5, num_errors - error + 0.5).sf(limit)
    # The rule's own threshold is also taken for certain.
    scores = [scipy.stats.norm.ppf(above), *([0.0] if at == allowed[-1] else [])]
    scores = [first for first in scores if abs(first) <= design.quantile]
    if not scores:
      continue
    share = scipy.stats.beta(hit + 0.5, num_hits - hit + 0.5).sf(grid)
    second, rho = scipy.stats.norm.ppf(share), design.correlation
    for first in scores:
      # The ellipse of two normal scores that go together.
      far = first**2 + (second - rho * first) ** 2 / (1 - rho**2)
      inside |= far <= design.quantile**2
      # None, or all, can always be chance.
      inside |= (grid < (hit + 0.5) / num_hits) & (hits[at] == 0)
      inside |= (grid > (hit - 0.5) / num_hits) & (hits[at] == hits[-1])
  found = grid[inside]
  return (0.0 if inside[0] else found[0]), (1.0 if inside[-1] else found[-1])


@settings(max_examples=15, deadline=None)
@example(seed=321, rho=0.5, limit=0.140625)
@example(seed=48, rho=0.0, limit=0.421875)  # where a threshold in question has all hits
@given(seed=st.integers(0, 1000), rho=st.sampled_from([0.0, 0.5]), limit=st.floats(0.02, 0.5))
def test_the_interval_is_that_of_a_search(seed, rho, limit):
  rng = np.random.default_rng(seed)
  curve = metrics.roc(rng.normal(1, 1, 40), rng.normal(0, 1, 60))
  own = Design(1.5, 2.0, rho, 2.1)
  hits, errors = curve.true_positives, curve.false_positives
  expected = slow_interval(hits, errors, limit, own)
  np.testing.assert_allclose(rate_interval(hits, errors, limit, own), expected, atol=2e-3)


@pytest.mark.parametrize("limit", [0.001, 0.01, 0.05])
@pytest.mark.parametrize(
  "law, num, shift",
  [
    (scipy.stats.norm, 400, 0.0),
    (scipy.stats.norm, 400, 0.5),
    (scipy.stats.norm, 2000, 1.5),
    (scipy.stats.t(4), 2000, 0.5),
  ],
)
def test_it_holds_the_truth_in_95_percent_of_the_runs(law, num, shift, limit):
  """Where ten errors are expected in 95%, else in at least so many."""
  rng, runs = np.random.default_rng(0), 200
  truth, hits = law.sf(law.isf(limit) - shift), 0
  for _ in range(runs):
    members, others = (law.rvs(size=num, random_state=rng) for _ in range(2))
    rate = metrics.roc(members + shift, others).tpr_at_fpr(limit)
    hits += rate.low <= truth <= rate.high
  # Three standard deviations of a binomial.
  assert hits / runs >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)
  if limit * num >= 20:
    assert hits / runs <= 0.995


def test_tied_scores_leave_the_rule_its_threshold():
  """Half of all score 1, the rest 0: within 1% of false positives nothing can be called."""
  rate = metrics.roc([1.0] * 50 + [0.0] * 50, [1.0] * 50 + [0.0] * 50).tpr_at_fpr(0.01)
  assert rate.value == rate.low == 0.0 and 0.0 < rate.high < 0.05


def test_none_and_all_are_in_it():
  separated = metrics.roc(np.arange(10.0, 40.0), np.zeros(30)).tpr_at_fpr(0.1)
  assert separated.value == separated.high == 1.0 and 0.85 < separated.low < 1.0
  reversed_ = metrics.roc(np.zeros(30), np.arange(1.0, 31.0)).tpr_at_fpr(0.1)
  assert reversed_.value == reversed_.low == 0.0 and 0.0 < reversed_.high < 0.15


def test_many_counts_are_thinned():
  rng = np.random.default_rng(0)
  curve = metrics.roc(rng.normal(1, 1, 200_000), rng.normal(0, 1, 200_000))
  rate = curve.tpr_at_fpr(0.3)
  truth = scipy.stats.norm.sf(scipy.stats.norm.isf(0.3) - 1)
  assert rate.low < truth < rate.high and rate.high - rate.low < 0.01
