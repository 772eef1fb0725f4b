"""The policy for a bound: on simulated scores, over many seeds, and where there is none."""

import dataclasses
import functools
import os

import numpy as np
import pytest
import scipy.stats
from audit.tuned_world import measured

from diffence_jax.audit.frontier import Drawing, FrontierRow, Strongest
from diffence_jax.audit.tune import (
  Bound,
  choose_policy,
  make_bound,
  overrides,
  widening_of,
)
from diffence_jax.metrics import Estimate, Unlimited, clustered_mean, clustered_roc

NUM_MODELS, NUM_KNOWN, NUM_TARGET = 16, 80, 80
LEAKS = (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


# At which no bound looks.
RATE = clustered_roc([[0.0, 1.0]] * 2, [[True, False]] * 2, limits=(0.01,)).tpr_at_fpr(0.01)


def row_of(name, auc, nll, accuracy):
  strongest = Strongest("LiRA", 1, auc, RATE)
  return FrontierRow(
    name, "blend", {"weight": 0.5}, Drawing(80, 5), accuracy, nll, nll, 0.0, 0.0, 1,
    strongest, strongest, Unlimited(auc, 0.0),
  )  # fmt: skip


@functools.cache
def simulated(seed):
  """Rows of known and of target samples: the more a policy leaks, the more useful it is.

  Scores have a share of the sample's and of the model's own, and what policies share.
  """
  draw = np.random.default_rng(seed)
  num, pairs = NUM_KNOWN + NUM_TARGET, np.arange(NUM_MODELS) // 2
  half = draw.random((NUM_MODELS // 2, num)) < 0.5
  membership = np.stack([half, ~half], axis=1).reshape(NUM_MODELS, num)
  shared = draw.normal(0.0, 0.5, num) + draw.normal(size=membership.shape)
  losses = 0.3 + draw.normal(0.0, 0.3, num) + draw.normal(0.0, 0.1, (NUM_MODELS, 1))
  losses = losses + draw.normal(0.0, 0.2, membership.shape)
  groups = np.arange(num) < NUM_KNOWN, np.arange(num) >= NUM_KNOWN
  rows = ([], [])
  for leak in LEAKS:
    scores = shared + leak * membership + draw.normal(0.0, 0.3, membership.shape)
    nll = losses - 0.2 * leak + draw.normal(0.0, 0.05, membership.shape)
    for samples, of_group in zip(groups, rows, strict=True):
      auc = clustered_roc(
        scores[:, samples], membership[:, samples], models=pairs, limits=()
      ).auc
      judged = samples & ~membership
      right = clustered_mean(nll < 0.6 - 0.1 * leak, judged, models=pairs, is_share=True)
      of_group.append(
        row_of(f"leak {leak:g}", auc, clustered_mean(nll, judged, models=pairs), right)
      )
  return rows


@pytest.mark.parametrize(
  "bound", [Bound("max_auc", 0.62), Bound("max_nll", 0.25), Bound("min_accuracy", 0.75)]
)
def test_a_bound_that_is_said_to_be_met_is_met_on_target_samples(bound):
  """In nine runs of ten, of those in which a policy is chosen; 200 seeds, as they come."""
  widening, met = widening_of(NUM_KNOWN, NUM_TARGET), []
  for seed in range(200):
    known, target = simulated(seed)
    try:
      at = choose_policy(known, bound, widening)
    except ValueError:
      continue
    met.append(bound.is_met(bound.figure(target[at]).value))
  print(f"{bound}: met in {sum(met)} of {len(met)} runs")
  assert len(met) >= 50 and np.mean(met) >= 0.9


def test_so_it_is_where_policies_are_fitted_and_attacked():
  """In nine of ten, but for chance; DIFFENCE_TUNE_SEEDS sets how many runs there are."""
  bound, met = Bound("max_auc", 0.64), []
  for seed in range(int(os.environ.get("DIFFENCE_TUNE_SEEDS", "3"))):
    known, target = measured(seed)
    try:
      at = choose_policy(known, bound, widening_of(NUM_KNOWN, NUM_TARGET))
    except ValueError:
      continue
    met.append(bound.is_met(bound.figure(target[at]).value))
  print(f"{bound}: met in {sum(met)} of {len(met)} runs")
  assert met and sum(met) >= scipy.stats.binom.ppf(0.001, len(met), 0.9)


def fixed_rows():
  """AUC, NLL and accuracy in turn with intervals of 0.02 on each side."""
  around = lambda value: Estimate(value, value - 0.02, value + 0.02)
  figures = [(0.70, 0.25, 0.95), (0.60, 0.30, 0.94), (0.55, 0.40, 0.90)]
  return [row_of(f"row {at}", *map(around, row)) for at, row in enumerate(figures)]


@pytest.mark.parametrize(
  "bound, expected",
  [
    (Bound("max_auc", 0.73), 0),
    (Bound("max_auc", 0.721), 0),
    (Bound("max_auc", 0.719), 1),
    (Bound("max_auc", 0.58), 2),
    (Bound("max_nll", 0.33), 1),
    (Bound("max_nll", 0.5), 2),
    (Bound("min_accuracy", 0.915), 1),
    (Bound("min_accuracy", 0.925), 0),
  ],
)
def test_the_best_of_those_whose_end_is_within_the_bound_is_taken(bound, expected):
  assert choose_policy(fixed_rows(), bound, 1.0) == expected


def test_the_end_is_that_of_a_prediction_interval():
  """A new mean of m samples lies in it as often as it is to, after one of n: normal noise."""
  n, m = 50, 25
  draw = np.random.default_rng(0)
  known, other = (draw.normal(size=(20_000, size)).mean(axis=1) for size in (n, m))
  end = known + widening_of(n, m) * scipy.stats.norm.ppf(0.975) / np.sqrt(n)
  assert abs(np.mean(other <= end) - 0.975) < 0.006
  row = dataclasses.replace(fixed_rows()[0], nll=Estimate(1.5, 1.4, 1.7))
  np.testing.assert_allclose(Bound("max_nll", 2.0).worst(row, 1.5), 1.8)
  np.testing.assert_allclose(Bound("min_accuracy", 0.5).worst(row, 1.5), 0.92)
  assert Bound("max_auc", 0.6).worst(row, 100.0) == 1.0


@pytest.mark.parametrize(
  "bound, message",
  [
    (Bound("max_auc", 0.56), "'row 2' comes nearest.*is 0.550, on others up to 0.57[01], 0.010 "
     "above the bound; expected at least 0.57"),
    (Bound("max_nll", 0.2), "'row 0' comes nearest.*up to 0.27[01].*expected at least 0.27"),
    (Bound("min_accuracy", 0.99), "'row 0' comes nearest.*as low as 0.9(30|29), 0.060 below "
     "the bound; expected at most 0.9"),
  ],
)  # fmt: skip
def test_where_nothing_meets_the_bound_it_says_how_near_one_comes(bound, message):
  with pytest.raises(ValueError, match=message):
    choose_policy(fixed_rows(), bound, 1.0)


@pytest.mark.parametrize(
  "limits",
  [{}, {"max_auc": 0.6, "max_nll": 1.0}, {"max_auc": 0.4}, {"max_auc": 1.1}, {"max_nll": -1.0},
   {"max_nll": np.inf}, {"max_auc": np.nan}, {"min_accuracy": 1.5}],
)  # fmt: skip
def test_bounds_that_are_none_are_refused(limits):
  with pytest.raises(ValueError, match=r"expected (one bound|a number of)"):
    make_bound(**limits)
  assert make_bound(max_auc=0.6, max_nll=None) == Bound("max_auc", 0.6)


def test_overrides_choose_policy_and_options():
  row = fixed_rows()[0]
  assert overrides(row) == [
    "--config.purify.policies=('blend',)",
    "--config.policies.blend.weight=0.5",
    "--config.purify.step=80",
    "--config.purify.num_candidates=5",
  ]
  plain = dataclasses.replace(row, policy="mine:sure", options={}, drawing=None)
  assert overrides(plain) == ["--config.purify.policies=('mine:sure',)"]
