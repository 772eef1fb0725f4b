"""What attacks find without each pair of few models, and what it does to intervals."""

import importlib.util

import numpy as np
import pytest
from audit.shadow_world import ensemble_of_records, make_pool, make_record

from diffence_jax import metrics
from diffence_jax.attacks import ATTACKS, run_attack
from diffence_jax.audit.chosen import chosen_elsewhere
from diffence_jax.audit.in_turn import views_in_turn
from diffence_jax.audit.jackknife import can_be_left_out, without_each_pair
from diffence_jax.audit.membership import membership_matrix
from diffence_jax.audit.shadow import in_turn_tables, samples_in_turn

CHOICES = [ATTACKS.choose(name) for name in ("confidence", "lira_online", "rmia_offline")]


def few_models(num_models, leak=1.0):
  pool = make_pool()
  membership = membership_matrix(num_models, len(pool.labels), 3)
  records = [make_record(s, pool, own, leak) for s, own in enumerate(membership)]
  return ensemble_of_records(records, pool, membership), records, membership, pool


def test_a_pair_is_left_out_as_if_it_had_never_been_trained():
  ensemble, records, membership, pool = few_models(10)
  groups = {"first": np.arange(len(pool.labels)) < 100, "all": np.ones(len(pool.labels), bool)}
  found = without_each_pair(ensemble, CHOICES, "undefended", 0, groups, chosen_on="first")
  assert len(found.aucs) == len(CHOICES) * len(groups)
  for pair in range(5):
    left = [s for s in range(10) if s // 2 != pair]
    fewer, members = [records[s] for s in left], membership[left]
    fewer = ensemble_of_records(fewer, pool, members)
    scores = {
      choice.name: np.stack([run_attack(choice, v) for v in views_in_turn(fewer, "undefended")])
      for choice in CHOICES
    }
    for group, samples in groups.items():
      own = {attack: scored[:, samples] for attack, scored in scores.items()}
      sides = members[:, samples]
      for attack, scored in own.items():
        expected = metrics.roc(scored[sides], scored[~sides]).auc
        assert found.of(attack, group)[pair] == pytest.approx(expected, abs=1e-12)
      if group == "first":
        chosen = chosen_elsewhere("undefended", own, sides, np.arange(8) // 2)
        assert found.chosen[pair] == pytest.approx(chosen.auc.value, abs=1e-12)


@pytest.mark.parametrize("num_models", [6, 16])
def test_many_models_need_it_not_and_too_few_cannot(num_models):
  ensemble, *_ = few_models(num_models)
  found = without_each_pair(ensemble, CHOICES, "undefended", 0, {})
  assert not found.aucs and found.chosen is None and found.of("confidence", "all") is None


def test_models_without_partners_are_left_out_where_enough_are_left():
  draw = np.random.default_rng(0)
  for num_models, expected in ((8, False), (14, True)):
    half = np.arange(num_models)[:, None] < num_models // 2
    unpaired = draw.permuted(np.tile(half, (1, 400)), axis=0)
    assert can_be_left_out(unpaired) == expected
    assert can_be_left_out(membership_matrix(num_models, 400, 0))
  pool = make_pool()
  membership = draw.permuted(np.tile(np.arange(8)[:, None] < 4, (1, len(pool.labels))), axis=0)
  records = [make_record(s, pool, own, 1.0) for s, own in enumerate(membership)]
  ensemble = ensemble_of_records(records, pool, membership)
  attack = ATTACKS.choose("confidence")
  rows = samples_in_turn(ensemble, "undefended", [attack], ~pool.is_known)
  assert len(rows) == 1 and rows[0].auc.low < rows[0].auc.value


def test_rows_of_few_models_have_the_wider_intervals():
  ensemble, _, membership, pool = few_models(8)
  attacks, natural = CHOICES, ~pool.is_canary & ~pool.is_known
  tables, _ = in_turn_tables(
    ensemble,
    attacks,
    attacks[1],
    reported=~pool.is_known,
    has_epsilon=importlib.util.find_spec("jax_privacy") is not None,
    canaries={"mislabelled": pool.is_canary},
  )
  pairs, groups = np.arange(8) // 2, {"samples": natural, "mislabelled": pool.is_canary}
  rows = {(r.predictor, r.attack, r.queries): r for r in tables["samples"]}
  canaries = {(r.predictor, r.attack): r for r in tables["canaries"]}
  of_before = without_each_pair(ensemble, attacks, "undefended", 0, groups)
  for at, queries in enumerate(ensemble.queries):
    found = without_each_pair(ensemble, attacks, "scenario 3", at, groups)
    views = list(views_in_turn(ensemble, "scenario 3", at))
    before = list(views_in_turn(ensemble, "undefended", 0))
    for choice in attacks:
      scores, bare = (np.stack([run_attack(choice, v) for v in own]) for own in (views, before))
      own, members = scores[:, natural], membership[:, natural]
      anew = found.of(choice.name, "samples")
      row = rows["scenario 3", choice.name, queries]
      assert row.auc == metrics.clustered_roc(own, members, models=pairs, jackknife=anew).auc
      change = metrics.clustered_difference(
        own,
        bare[:, natural],
        members,
        models=pairs,
        jackknife_a=anew,
        jackknife_b=of_before.of(choice.name, "samples"),
      )
      assert row.auc_change == change
      if not at:
        own, members = scores[:, pool.is_canary], membership[:, pool.is_canary]
        anew = found.of(choice.name, "mislabelled")
        expected = metrics.clustered_roc(own, members, models=pairs, jackknife=anew).auc
        assert canaries["scenario 3", choice.name].auc == expected
  (chosen,) = [row for row in tables["chosen"] if row.predictor == "undefended"]
  assert chosen.auc.low < chosen.auc.value < chosen.auc.high
  alone = samples_in_turn(ensemble, "undefended", attacks, ~pool.is_known)
  assert [row.auc for row in alone] == [rows["undefended", c.name, 1].auc for c in attacks]
