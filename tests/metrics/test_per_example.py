"""Single examples' AUCs: against slow references, without bias, and intervals that cover."""

import numpy as np
import pytest

from diffence_jax.attacks.lira import lira
from diffence_jax.metrics.per_example import (
  auc_quantiles,
  example_aucs,
  model_folds,
  permuted_in_folds,
)

NUM_MODELS, NUM = 16, 80
QUANTILES = (0.5, 0.9, 1.0)


def draw(rng, leak):
  """Answers f64[S,N] of models in complementary pairs, and who is a member."""
  half = rng.random((NUM_MODELS // 2, NUM)) < 0.5
  membership = np.stack([half, ~half], axis=1).reshape(NUM_MODELS, NUM)
  leaks = leak * np.exp(rng.normal(0.0, 0.7, NUM))
  return rng.normal(0.0, 1.0, membership.shape) + leaks * membership, membership


def attacked(phi, membership, folds):
  """LiRA's scores of every fold by the models of the others."""
  scores = np.empty(phi.shape)
  for target, fold in enumerate(folds):
    others = folds != fold
    shadows = phi[others], membership[others]
    scores[target] = lira(phi[target], *shadows, variance="global")
  return scores


@pytest.fixture(scope="module", params=[0.0, 1.0])
def runs(request):
  """40 audits: the leak, each one's quantiles, and its examples' AUCs."""
  rng, found = np.random.default_rng(0), []
  for _ in range(40):
    phi, membership = draw(rng, request.param)
    folds = model_folds(np.arange(NUM_MODELS) // 2, membership)
    scores, drawn = attacked(phi, membership, folds), permuted_in_folds(membership, folds, rng)
    chance = example_aucs(attacked(phi, drawn, folds), drawn, folds).auc
    quantiles = auc_quantiles(scores, membership, folds, chance, QUANTILES)
    found.append((quantiles, example_aucs(scores, membership, folds)))
  return request.param, *zip(*found, strict=True)


def test_an_auc_is_not_biased_and_its_interval_holds_chance(runs):
  leak, _, aucs = runs
  mean = np.mean([of_run.auc for of_run in aucs])
  if leak:
    assert mean > 0.7
    return
  assert abs(mean - 0.5) < 0.01
  held = [np.mean((of_run.low <= 0.5) & (of_run.high >= 0.5)) for of_run in aucs]
  assert np.mean(held) > 0.93


def test_leaving_pairs_out_would_be_biased():
  """What the folds are for."""
  rng, pairs = np.random.default_rng(1), np.arange(NUM_MODELS) // 2
  in_one = np.zeros(NUM_MODELS, int)
  means = []
  for _ in range(10):
    phi, membership = draw(rng, 0.0)
    means.append(example_aucs(attacked(phi, membership, pairs), membership, in_one).auc.mean())
  assert np.mean(means) < 0.47


def test_quantiles_have_intervals_that_cover_and_chance_is_the_right_one(runs):
  leak, quantiles, aucs = runs
  pooled = np.concatenate([of_run.auc for of_run in aucs])
  for at, quantile in enumerate(QUANTILES):
    of_runs = [of_run[at] for of_run in quantiles]
    # Of all runs together: the AUC of an example, whatever the models and the examples.
    truth = np.quantile(pooled, quantile)
    if quantile == 1.0:
      assert all(one.low is None and one.high is None for one in of_runs)
      continue
    held = np.mean([one.low <= truth <= one.high for one in of_runs])
    assert held > 0.95 - 3 * np.sqrt(0.95 * 0.05 / len(of_runs))
    assert all(one.low <= one.value <= one.high for one in of_runs)
    chance = np.mean([one.by_chance for one in of_runs])
    assert (truth > chance + 0.1) if leak else abs(truth - chance) < 0.02


def test_against_a_slow_reference():
  rng = np.random.default_rng(2)
  scores, membership = rng.integers(0, 4, (12, 5)), rng.random((12, 5)) < 0.5
  folds = np.repeat([0, 1, 2], 4)
  membership[:, 4] = np.repeat([True, False, True], 4)
  found = example_aucs(scores, membership, folds)
  for n in range(5):
    pairs = [
      (scores[t, n], scores[u, n])
      for t in range(12)
      for u in range(12)
      if folds[t] == folds[u] and membership[t, n] and not membership[u, n]
    ]
    if n == 4:
      # No fold has both kinds of models.
      assert np.isnan(found.auc[n]) and (found.low[n], found.high[n]) == (0.0, 1.0)
    else:
      expected = np.mean([(t > u) + 0.5 * (t == u) for t, u in pairs])
      assert found.auc[n] == pytest.approx(expected)
      assert found.low[n] < found.auc[n] < found.high[n] or expected in (0.0, 1.0)


def test_folds_keep_partners_together_and_leave_models_of_both_kinds():
  rng = np.random.default_rng(3)
  for num, expected in ((64, 8), (32, 4), (16, 4), (8, 2), (6, 3), (2, 1)):
    half = rng.random((num // 2, 9)) < 0.5
    membership = np.stack([half, ~half], axis=1).reshape(num, 9)
    folds = model_folds(np.arange(num) // 2, membership)
    assert folds.max() + 1 == expected and np.all(folds[::2] == folds[1::2])
    drawn = permuted_in_folds(membership, folds, rng)
    for fold in range(expected):
      counts = [m[folds == fold].sum(axis=0) for m in (membership, drawn)]
      np.testing.assert_array_equal(*counts)
  # Without partners an example may be trained on by a few models only: smaller folds.
  membership = rng.random((16, 9)) < 0.5
  membership[:, 0] = np.arange(16) < 4
  assert model_folds(np.arange(16) // 2, membership).max() + 1 == 8
