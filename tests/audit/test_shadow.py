"""The audit with shadow models, on made-up records with and without a leak."""

import copy
import importlib.util

import numpy as np
import pytest
from audit.shadow_world import ASKED, NUM, NUM_MODELS, PREDICTORS, make_world

import diffence_jax as dj
from diffence_jax import attacks
from diffence_jax.attacks import ATTACKS, View, run_attack
from diffence_jax.attacks.attack import declaration_of
from diffence_jax.attacks.signals import phi_and_log_p
from diffence_jax.audit.answers import DefendedEnsemble
from diffence_jax.audit.in_turn import views_in_turn
from diffence_jax.audit.shadow import (
  InTurnRow,
  TargetRow,
  in_turn_tables,
  target_rows,
  target_view,
)
from diffence_jax.audit.typed import from_plain, to_plain
from diffence_jax.metrics import epsilon

MAIN_ATTACKS = ("confidence", "lira_online", "lira_offline", "rmia_online", "rmia_offline")
CHOICES = [ATTACKS.choose(name) for name in MAIN_ATTACKS]
WITH_SHADOWS = [
  ATTACKS.choose(name) for name in ATTACKS.known if "shadows" in declaration_of(name).needs
]


@pytest.fixture(scope="module", autouse=True)
def fewer_splits():
  """A bound on epsilon is no less valid by the median over fewer."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(epsilon, "NUM_SPLITS", 9)
    yield


@pytest.fixture(scope="module")
def leaky():
  return make_world(2.0)


def test_leaving_one_out_leaves_out_its_partner_and_knows_no_member(leaky):
  pool, membership, ensemble = leaky.pool, leaky.membership, leaky.ensemble
  models = ensemble.at("scenario 3", 0)
  views = [view.opened(("shadows", "known")) for view in views_in_turn(ensemble, "scenario 3")]
  assert len(views) == NUM_MODELS
  for s, view in enumerate(views):
    assert len(view.membership) == len(view.shadow_logits) == NUM_MODELS - 2
    # As many models with as without every sample: nothing tells what the target had.
    assert np.all(view.membership.sum(axis=0) == NUM_MODELS // 2 - 1)
    population = view.is_known & ~view.is_member
    np.testing.assert_array_equal(population, pool.is_known & ~membership[s])
    # Of what is not known nothing is told.
    assert not np.any(view.is_member & ~view.is_known)
    phi = models.statistic(phi_and_log_p)
    np.testing.assert_array_equal(view.statistic(phi_and_log_p), phi[s])
    others = np.delete(np.arange(NUM_MODELS), [s, s ^ 1])
    np.testing.assert_array_equal(view.membership, membership[others])
    np.testing.assert_array_equal(view.shadow_logits.statistic(phi_and_log_p), phi[others])
  np.testing.assert_array_equal(views[7].logits, models[7])
  np.testing.assert_array_equal(views[7].shadow_logits[6], models[8])


@attacks.attack("by all", needs=("known", "shadows", "images"))
def by_all(view):
  """Where what is asked about is of the pool: images, answers, and a number of the seed's."""
  assert view.images.shape == (len(view.labels), 2, 2, 1)
  assert len(view.is_known) == view.membership.shape[1] == len(view.labels)
  own = np.random.default_rng(view.seed).random()
  return view.images.mean(axis=(1, 2, 3)) + view.logits.mean(axis=(1, 2)) + own


def test_an_attack_sees_what_it_declares_on_the_target_and_in_turn(leaky):
  ensemble = copy.copy(leaky.ensemble)
  images = np.arange(len(leaky.pool.ids) * 4) % 256
  ensemble.images, ensemble.seed = images.reshape(-1, 2, 2, 1).astype(np.uint8), 3
  choice = ATTACKS.choose(f"{__name__}:by_all")
  natural = ~leaky.pool.is_canary
  known = leaky.pool.natural.is_known
  rows = target_rows(leaky.answers, ensemble, [choice], reported=~known)
  assert {row.title for row in rows} == {"by all"} and len(rows) > len(leaky.answers)
  view = target_view(leaky.answers["undefended"], ensemble, "undefended", 0)
  np.testing.assert_array_equal(view.opened(("images",)).images, ensemble.images[natural])
  assert view.seed == 3 and {v.seed for v in views_in_turn(ensemble, "undefended")} == {3}
  tables, _ = in_turn_tables(
    ensemble, [choice], choice, reported=~leaky.pool.is_known, has_epsilon=False
  )
  assert {row.attack for row in tables["samples"]} == {choice.name} and not tables["epsilon"]


def test_answers_are_computed_once_for_all_attacks_on_a_view():
  asked = []
  view = View(lambda: asked.append(1) or np.zeros((4, 1, 3), np.float32), np.zeros(4, np.int64))
  for name in ("loss", "entropy"):
    run_attack(ATTACKS.choose(name), view)
  assert asked == [1]


def test_what_is_asked_too_often_is_counted_whatever_the_attack_reads(leaky):
  asked = {"seed": 0, "num_candidates": 4, "queries": (1, 8)}
  ensemble = DefendedEnsemble(
    leaky.records.__getitem__, leaky.pool, leaky.membership, PREDICTORS, **asked
  )
  assert ensemble.reused("average") == 0.0
  _ = ensemble.at("average", 1)[0]
  # 12 are recorded, and 8 queries take 32.
  assert ensemble.reused("average") == 1.0 and ensemble.reused("scenario 3") == 0.0


def test_the_scores_of_one_query_are_kept_as_they_come(leaky):
  """Those that the rows are of, predictor by predictor."""
  kept, choices = {}, [ATTACKS.choose(name) for name in ("confidence", "lira_online")]
  tables, _ = in_turn_tables(
    leaky.ensemble,
    choices,
    choices[1],
    reported=~leaky.pool.is_known,
    has_epsilon=False,
    keep=lambda predictor, attack, scores: kept.setdefault((predictor, attack), scores),
  )
  rows = {(r.predictor, r.attack): r.auc for r in tables["samples"] if r.queries == 1}
  assert list(kept) == list(rows) and len(rows) == 2 * len(PREDICTORS)
  reported = ~leaky.pool.is_known & ~leaky.pool.is_canary
  members = leaky.membership[:, reported]
  for names, scores in kept.items():
    assert scores.shape == leaky.membership.shape and scores.dtype == np.float64
    sides = (scores[:, reported][members == side] for side in (True, False))
    assert dj.metrics.roc(*sides).auc == pytest.approx(rows[names].value, abs=1e-12)


def rows_of(world):
  tables, arrays = in_turn_tables(
    world.ensemble,
    CHOICES,
    ATTACKS.choose("lira_online"),
    reported=~world.pool.is_known,
    has_epsilon=importlib.util.find_spec("jax_privacy") is not None,
    canaries={"mislabelled": world.pool.is_canary},
  )
  # Above one query under a name of its own.
  found = {}
  for table, rows in tables.items():
    for row in rows:
      k = getattr(row, "queries", 1)
      key = table if k == 1 else f"{table} {k}", row.predictor, getattr(row, "attack", None)
      assert key not in found
      found[key] = row
  return found, arrays


@pytest.fixture(scope="module")
def leaky_rows(leaky):
  return rows_of(leaky)


def test_a_planted_leak_is_found_and_the_defense_lowers_it(leaky_rows):
  rows, arrays = leaky_rows
  for attack in MAIN_ATTACKS:
    undefended = rows["samples", "undefended", attack]
    defended = rows["samples", "scenario 3", attack]
    assert undefended.auc.low > 0.75
    assert defended.auc.high < undefended.auc.low
    change = defended.auc_change
    assert change.low < change.value < change.high < 0.0
    assert undefended.auc_change is None
    assert rows["canaries", "undefended", attack].auc.value > 0.75
  median = rows["vulnerability", "undefended", None].auc_quantiles["0.5"]
  chance = rows["vulnerability", "undefended", None].auc_quantiles["0.9"].by_chance
  assert chance < median.low <= median.value <= median.high
  assert rows["epsilon", "undefended", None].lowest > 0.0
  assert {"undefended/loo_tpr", "scenario 3/loo_high"} <= set(arrays)


def test_every_attack_is_run_at_every_number_of_queries_that_tells_apart(leaky, leaky_rows):
  found = set(leaky_rows[0])
  for name in leaky.ensemble.names:
    for attack in MAIN_ATTACKS:
      assert ("samples", name, attack) in found and ("canaries", name, attack) in found
      assert (("samples 3", name, attack) in found) == (name != "undefended")
      assert ("canaries 3", name, attack) not in found


def test_per_example_attacks_beat_the_global_threshold(leaky_rows):
  rows, _ = leaky_rows
  confidence = rows["samples", "undefended", "confidence"].auc
  assert rows["samples", "undefended", "lira_online"].auc.low > confidence.high


def test_without_a_leak_nothing_is_found():
  rows, _ = rows_of(make_world(0.0))
  for (table, _, attack), row in rows.items():
    if table in ("samples", "samples 3", "canaries"):
      auc = row.auc
      # Twice the 95% interval: about one false alarm in ten thousand for each of 70 figures.
      assert auc.value - 2 * (auc.value - auc.low) < 0.5, (table, attack)
      assert auc.value + 2 * (auc.high - auc.value) > 0.5, (table, attack)
    if table == "epsilon":
      assert row.first == 0.0
    if table == "vulnerability":
      ninety = row.auc_quantiles["0.9"]
      assert abs(ninety.value - ninety.by_chance) < 0.05


def test_scores_follow_their_examples(leaky):
  order = np.random.default_rng(0).permutation(NUM)
  pool = leaky.pool.natural
  for name in ("undefended", "scenario 3"):
    there = target_view(leaky.answers[name], leaky.ensemble, name, 0)
    opened = there.opened(("known", "shadows"))
    here = View(
      there.logits[order],
      there.labels[order],
      is_known=pool.is_known[order],
      is_member=pool.is_member[order],
      shadows=opened.shadow_logits.take(slice(None), order),
      ids=there.ids[order],
    )
    for choice in WITH_SHADOWS:
      scores = run_attack(choice, there)
      np.testing.assert_allclose(run_attack(choice, here), scores[order], rtol=1e-9)


def test_repeating_gains_on_every_model_in_turn(leaky_rows):
  rows, _ = leaky_rows
  for name in ("scenario 3", "average"):
    once, thrice = (rows[table, name, "lira_online"].auc for table in ("samples", "samples 3"))
    assert thrice.low > once.value


def test_repeating_a_query_gains_on_a_leak_that_noise_hides(leaky):
  pool = leaky.pool.natural
  rows = target_rows(leaky.answers, leaky.ensemble, CHOICES, reported=~pool.is_known)
  found = {(r.predictor, r.attack, r.queries, r.shadow_models): r.auc.value for r in rows}
  # Undefended asked once, 4 predictors once and thrice; LiRA and RMIA also with raw models.
  assert len(found) == len(rows) == 5 + 4 * 2 * (5 + 4)
  assert found["scenario 3", "lira_online", 3, "defended"] > 0.6
  gain = [
    found["scenario 3", attack, 3, "defended"] - found["scenario 3", attack, 1, "defended"]
    for attack in ("lira_online", "lira_offline", "confidence")
  ]
  assert np.mean(gain) > 0.0
  assert {row.queries for row in rows} == set(ASKED["queries"])


def test_several_versions_of_an_image_are_used_jointly():
  aucs = []
  for world in (make_world(1.0, versions=6), make_world(1.0)):
    view = target_view(world.answers["undefended"], world.ensemble, "undefended", 0)
    member = world.pool.is_member[:NUM]
    scores = [run_attack(choice, view) for choice in WITH_SHADOWS]
    aucs.append([dj.metrics.roc(own[member], own[~member]).auc for own in scores])
  assert len(WITH_SHADOWS) >= 10
  assert np.all(np.array(aucs[0]) > np.array(aucs[1]))


def test_rows_are_plain_in_a_file_and_come_back(leaky, leaky_rows):
  rows, _ = leaky_rows
  for row in list(rows.values())[:3]:
    assert from_plain(InTurnRow, to_plain(row)) == row
  (row, *_) = target_rows(
    {"undefended": leaky.answers["undefended"]},
    leaky.ensemble,
    CHOICES[:1],
    reported=~leaky.pool.natural.is_known,
    inputs="near duplicates",
  )
  assert row.inputs == "near duplicates" and from_plain(TargetRow, to_plain(row)) == row
