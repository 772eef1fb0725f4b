"""Choosing an attack elsewhere, naming members, and how far attacks agree."""

import numpy as np
import pytest

from diffence_jax import metrics
from diffence_jax.audit.agreement import agreement, found
from diffence_jax.audit.chosen import chosen_elsewhere
from diffence_jax.audit.discoveries import who_can_be_named

NUM_MODELS, NUM = 16, 300
PAIRS = np.arange(NUM_MODELS) // 2


@pytest.fixture(scope="module")
def membership():
  half = np.random.default_rng(0).random((NUM_MODELS // 2, NUM)) < 0.5
  return np.stack([half, ~half], axis=1).reshape(NUM_MODELS, NUM)


def scores_of(rng, membership, leak):
  return rng.normal(0.0, 1.0, membership.shape) + leak * membership


def test_the_better_attack_is_chosen_and_keeps_its_figure(membership):
  rng = np.random.default_rng(1)
  scores = {
    "loss": scores_of(rng, membership, 0.2),
    "rmia_online": scores_of(rng, membership, 1),
  }
  row = chosen_elsewhere("p", scores, membership, PAIRS)
  ((attack, title, num),) = row.attacks
  assert (attack, title, num) == ("rmia_online", "RMIA online", NUM_MODELS)
  own = metrics.clustered_roc(scores["rmia_online"], membership, models=PAIRS)
  assert row.auc.value == pytest.approx(own.auc.value, abs=0.005)
  assert row.tpr_at_fpr[1].value == pytest.approx(own.tpr_at_fpr(0.01).value, abs=0.01)


def test_scores_of_any_scale_are_pooled(membership):
  rng = np.random.default_rng(2)
  leaky = scores_of(rng, membership, 1.0)
  # Each of the two attacks is the better one on all but one half of the models.
  noise = rng.normal(0.0, 3.0, membership.shape)
  first, second = leaky + noise * (PAIRS < 4)[:, None], leaky + noise * (PAIRS >= 4)[:, None]
  scores = {"loss": first, "entropy": 1e6 + 1e3 * second}
  row = chosen_elsewhere("p", scores, membership, PAIRS)
  assert row.auc.low > 0.5 and sum(one.num_models for one in row.attacks) == NUM_MODELS


def test_choosing_among_many_finds_nothing_where_nothing_is(membership):
  rng = np.random.default_rng(3)
  names = ("loss", "entropy", "confidence", "modified_entropy", "correctness", "rmia_online",
           "rmia_offline", "lira_online", "lira_offline", "bavaria_online")  # fmt: skip
  values, highest = [], []
  for _ in range(12):
    scores = {name: scores_of(rng, membership, 0.0) for name in names}
    values.append(chosen_elsewhere("p", scores, membership, PAIRS).auc.value)
    sides = [(own[membership], own[~membership]) for own in scores.values()]
    highest.append(max(metrics.roc(*pair).auc for pair in sides))
  error = np.std(values) / np.sqrt(len(values))
  assert abs(np.mean(values) - 0.5) < 3 * error < np.mean(highest) - 0.5


def test_members_are_named_at_the_rate_and_none_without_a_leak(membership):
  rng = np.random.default_rng(4)
  row = who_can_be_named("p", scores_of(rng, membership, 3.0), membership, 0)
  assert row.num_members + row.num_nonmembers + row.num_calibration == NUM
  assert row.num_calibration == pytest.approx(row.num_nonmembers, abs=1)
  for level, named in row.at.items():
    assert named.named > 50 and named.false_share < float(level)
  assert row.at["0.05"].named < row.at["0.1"].named
  none = who_can_be_named("p", scores_of(rng, membership, 0.0), membership, 0)
  assert all(named.named < 1 and named.surely < 1 for named in none.at.values())


def test_whom_attacks_find_together():
  rng = np.random.default_rng(5)
  is_member, reported = np.arange(400) < 200, np.arange(400) % 2 == 0
  scores = {name: rng.normal(0.0, 1.0, 400) + 2.0 * is_member for name in ("loss", "entropy")}
  few = np.where(np.arange(400) < 350, scores["loss"], np.nan)
  entries = [("p", *entry) for entry in (*scores.items(), ("confidence", few))]
  (row,) = agreement(entries, is_member, reported)
  assert row.titles == ("loss", "entropy") and row.num_members == 100
  hits = []
  for of_attack in scores.values():
    sides = of_attack[reported & is_member], of_attack[reported & ~is_member]
    assert found(*sides).mean() == metrics.roc(*sides).tpr_at_fpr(0.01).value
    hits.append(found(*sides))
  both = int((hits[0] & hits[1]).sum())
  assert row.both == ((hits[0].sum(), both), (both, hits[1].sum()))
  assert row.by_any == row.by_half == (hits[0] | hits[1]).sum() > 0
