"""The attack on the target that shadow models choose: which it is, and that luck has no say."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from report.report_example import stored

from diffence_jax import metrics
from diffence_jax.audit.chosen_target import with_chosen
from diffence_jax.audit.judge import AttackRow
from diffence_jax.audit.shadow import InTurnRow
from diffence_jax.metrics import Estimate

ATTACKS = ("correctness", "loss", "lira_online", "rmia_online")


def around(value):
  return Estimate(value, value - 0.04, value + 0.04)


def row_of(aucs, name="undefended", threshold="global"):
  """A row about the target, of attack to AUC; with a threshold a class all reach more."""
  attacks = [
    AttackRow(attack, attack.title(), "family", threshold, auc, auc, auc, (), ())
    for attack, auc in aucs.items()
  ]
  more = [a._replace(threshold="per_class", auc=around(0.95)) for a in attacks]
  return dataclasses.replace(
    stored().predictors[0], name=name, attacks=(*more, *attacks), chosen=None
  )


def in_turn(aucs, name="undefended", queries=1):
  """Rows over shadow models in turn, of attack to AUC."""
  return [
    InTurnRow(name, attack, attack.title(), "family", queries, 8, auc, None, ())
    for attack, auc in aucs.items()
  ]


def test_it_is_the_strongest_on_shadow_models_and_not_on_the_target():
  target = dict(zip(ATTACKS, map(around, (0.52, 0.74, 0.61, 0.60)), strict=True))
  models = dict(zip(ATTACKS, map(around, (0.53, 0.58, 0.66, 0.65)), strict=True))
  misleading = [
    # At more queries, behind another policy, and one that was not run on the target.
    *in_turn({"rmia_online": around(0.9)}, queries=4),
    *in_turn({"correctness": around(0.9)}, name="scenario 1"),
    *in_turn({"pmia": around(0.99)}),
  ]
  (row,) = with_chosen([row_of(target)], [*misleading, *in_turn(models)])
  assert (row.chosen.attack, row.chosen.title) == ("lira_online", "Lira_Online")
  assert row.chosen.threshold == "global"
  assert (row.chosen.value, row.chosen.low, row.chosen.high) == target["lira_online"]
  assert row.chosen.relative_change is None
  # All else is as it was.
  assert dataclasses.replace(row, chosen=None) == row_of(target)


def test_every_predictor_has_its_own_and_its_change_to_the_first():
  rows = [
    row_of({"loss": around(0.8), "lira_online": around(0.7)}),
    row_of({"loss": around(0.6), "lira_online": around(0.75)}, "scenario 1"),
    row_of({"loss": around(0.6)}, "average"),
  ]
  models = [
    *in_turn({"loss": around(0.6), "lira_online": around(0.65)}),
    *in_turn({"loss": around(0.62), "lira_online": around(0.61)}, "scenario 1"),
  ]
  first, second, none = with_chosen(rows, models)
  assert (first.chosen.attack, second.chosen.attack) == ("lira_online", "loss")
  assert second.chosen.relative_change == pytest.approx(0.6 / 0.7 - 1.0)
  assert none.chosen is None
  assert with_chosen(rows, ()) == tuple(rows)
  # Without a first there is nothing to compare with.
  (_, alone, _) = with_chosen(rows, models[2:])
  assert alone.chosen.attack == "loss" and alone.chosen.relative_change is None


def test_the_highest_is_too_high_and_the_chosen_one_is_not():
  """Six attacks of one strength, 60 samples a side, 8 shadow models; 300 runs as they come."""
  names, num, shift = [f"attack {i}" for i in range(6)], 60, 0.3
  draw = np.random.default_rng(0)
  truth = scipy.stats.norm.cdf(shift / math.sqrt(2.0))

  def scores(member):
    return draw.normal(0.0, 1.0, member.shape) + shift * member

  def of_target(member):
    scored = scores(member)
    roc = metrics.roc(scored[member], scored[~member])
    return Estimate(roc.auc, *roc.auc_interval)

  highest, chosen, held, held_of_highest = [], [], 0, 0
  for _ in range(300):
    member = draw.permutation(np.arange(2 * num) < num)
    half = draw.random((4, 2 * num)) < 0.5
    membership = np.stack([half, ~half], axis=1).reshape(8, -1)
    target = {name: of_target(member) for name in names}
    models = {
      name: metrics.clustered_roc(
        scores(membership), membership, models=np.arange(8) // 2, limits=()
      ).auc
      for name in names
    }
    (row,) = with_chosen([row_of(target)], in_turn(models))
    best = max(target.values())
    highest.append(best.value)
    chosen.append(row.chosen.value)
    held += row.chosen.low <= truth <= row.chosen.high
    held_of_highest += best.low <= truth <= best.high
  print(f"{np.mean(highest):.3f} {np.mean(chosen):.3f} of {truth:.3f}; held {held}, highest's "
        f"{held_of_highest} of 300")  # fmt: skip
  error = np.std(chosen) / math.sqrt(300)
  assert abs(np.mean(chosen) - truth) < 4 * error
  assert np.mean(highest) > truth + 20 * error
  low, high = scipy.stats.binom.interval(0.9999, 300, 0.95)
  assert low <= held <= high
