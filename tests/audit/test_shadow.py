"""The audit with shadow models, on made-up records with and without a leak."""

import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax import attacks, audit
from diffence_jax.audit.answers import (
  ModelRecord,
  Pool,
  ensemble_statistics,
  model_statistics,
)
from diffence_jax.audit.shadow import (
  MAIN_ATTACKS,
  adaptive_rows,
  leave_one_out,
  leave_one_out_rows,
  target_scores,
  view_of,
)
from diffence_jax.audit.shadow_models import membership_matrix

NUM_MODELS, NUM, NUM_CANARIES, NUM_RECORDED, NUM_CLASSES = 24, 160, 20, 12, 4
ASKED = {"num_candidates": 4, "queries": (1, 3)}


def make_pool():
  total = NUM + NUM_CANARIES
  at = np.arange(total)
  canary = at >= NUM
  return Pool(
    labels=np.random.default_rng(0).integers(0, NUM_CLASSES, total),
    is_member=(at < NUM // 2) & ~canary,
    is_known=(at % 2 == 0) & ~canary,
    is_canary=canary,
  )


def make_record(seed, pool, member, leak, versions=1):
  """Members' logits of the true label are `leak` higher; half of it is left in candidates."""
  difficulty = np.random.default_rng(99).normal(2.0, 1.0, len(pool.labels))[: len(member)]
  draw = np.random.default_rng([7, seed])
  labels = pool.labels[: len(member)]
  raw = draw.normal(0.0, 0.5, (len(member), versions, NUM_CLASSES))
  raw[np.arange(len(member)), :, labels] += (difficulty + leak * member)[:, None]
  shape = (len(member), versions, NUM_RECORDED, NUM_CLASSES)
  candidates = draw.normal(0.0, 0.7, shape) + raw[:, :, None]
  candidates[np.arange(len(member)), :, :, labels] -= 0.5 * leak * member[:, None, None]
  return ModelRecord(raw.astype(np.float32), candidates.astype(np.float32))


def make_world(leak, versions=1):
  pool = make_pool()
  membership = membership_matrix(NUM_MODELS, len(pool.labels), 3)
  records = [make_record(s, pool, own, leak, versions) for s, own in enumerate(membership)]
  shadow = ensemble_statistics(
    iter(records), pool, membership, protocol="disjoint", seed=0, **ASKED
  )
  target = make_record(1000, pool, pool.is_member[:NUM], leak, versions)
  intervals = {"scenario 1": (0.0, 3.0), "scenario 2": (1.0, 2.0), "scenario 3": None}
  statistics = model_statistics(target, pool.labels[:NUM], intervals, **ASKED)
  return pool, membership, records, shadow, target, statistics, intervals


def first_answers(record, intervals):
  """What every predictor answers to the first query, by the public functions."""
  raw, candidates = record.raw[:, 0], record.candidates[:, 0, :4]
  return {
    "undefended": raw,
    "average": np.asarray(dj.average(candidates)),
    **{
      name: np.asarray(dj.select(candidates, raw, interval).logits)
      for name, interval in intervals.items()
    },
  }


@pytest.fixture(scope="module")
def leaky():
  return make_world(2.0)


def test_statistics_of_one_query_are_those_of_the_predictors_themselves(leaky):
  pool, *_, target, statistics, intervals = leaky
  labels = pool.labels[:NUM]
  expected = first_answers(target, intervals)
  assert set(statistics) == set(expected)
  for name, logits in expected.items():
    phi, log_p = attacks.confidence(logits, labels), attacks.loss(logits, labels)
    np.testing.assert_allclose(statistics[name].phi[:, 0, 0], phi, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(statistics[name].log_p[:, 0, 0], log_p, rtol=1e-5, atol=1e-5)


def test_every_model_has_a_defense_fitted_on_its_own_known_samples(leaky):
  pool, membership, records, shadow, *_ = leaky
  known = np.flatnonzero(pool.is_known)
  sizes = membership[:, known].sum(axis=1)
  size = min(sizes.min(), (len(known) - sizes).min())
  model = 5
  arrays = []
  for side in (True, False):
    rows = known[membership[model, known] == side][:size]
    arrays += [records[model].candidates[rows, 0, :4], records[model].raw[rows, 0]]
  intervals = audit.fit_intervals(*arrays, protocol="disjoint")
  seed = dj.attacks.shadow.rng.numpy_seed(0, f"shadow/{model}/first")
  own = model_statistics(records[model], pool.labels, intervals, seed=seed, **ASKED)
  for name, values in own.items():
    np.testing.assert_allclose(shadow[name].phi[model], values.phi, rtol=1e-5)


def test_models_that_share_re_generations_answer_with_different_ones():
  """The same record for all models: their answers would be equal if they began alike."""
  pool = make_pool()
  membership = membership_matrix(6, len(pool.labels), 3)
  record = make_record(0, pool, np.zeros(len(pool.labels)), 0.0)
  shadow = ensemble_statistics(
    iter([record] * 6), pool, membership, protocol="disjoint", seed=0, **ASKED
  )
  phi = shadow["scenario 3"].phi[:, :, 0, 0]
  assert np.mean(phi[0] == phi[1]) < 0.3
  np.testing.assert_array_equal(shadow["undefended"].phi[0], shadow["undefended"].phi[1])


def test_leaving_one_out_leaves_out_its_partner_and_knows_no_member(leaky):
  pool, membership, _, shadow, *_ = leaky
  views = list(leave_one_out(shadow["scenario 3"], membership, pool))
  assert len(views) == NUM_MODELS
  for s, view in enumerate(views):
    assert len(view.membership) == NUM_MODELS - 2
    # As many models with as without every sample: nothing tells what the target had.
    assert np.all(view.membership.sum(axis=0) == NUM_MODELS // 2 - 1)
    assert not np.any(view.population & (membership[s] | ~pool.is_known))
    np.testing.assert_array_equal(view.target_phi, shadow["scenario 3"].phi[s, ..., 0])


def rows_of(world):
  pool, membership, _, shadow, *_ = world
  tables, arrays = leave_one_out_rows(
    shadow,
    membership,
    pool,
    queries=ASKED["queries"],
    reported=~pool.is_known,
    num_resamples=200,
    seed=0,
  )
  # Above one query under a name of its own.
  found = {}
  for table, rows in tables.items():
    for row in rows:
      k = row.get("queries", 1)
      found[table if k == 1 else f"{table} {k}", row["predictor"], row.get("attack")] = row
  return found, arrays


def test_a_planted_leak_is_found_and_the_defense_lowers_it(leaky):
  rows, arrays = rows_of(leaky)
  for attack in MAIN_ATTACKS:
    undefended = rows["samples", "undefended", attack]
    defended = rows["samples", "scenario 3", attack]
    assert undefended["auc"]["low"] > 0.75
    assert defended["auc"]["high"] < undefended["auc"]["low"]
    change = defended["auc_change"]
    assert change["low"] < change["value"] < change["high"] < 0.0
    assert "auc_change" not in undefended
    assert rows["canaries", "undefended", attack]["auc"]["value"] > 0.75
  found = rows["vulnerability", "undefended", None]
  assert found["auc_quantiles"]["0.5"] > found["auc_quantiles_by_chance"]["0.9"]
  assert rows["epsilon", "undefended", None]["lowest"] > 0.0
  assert {"undefended/loo_tpr", "scenario 3/loo_high"} <= set(arrays)


def test_per_example_attacks_beat_the_global_threshold(leaky):
  rows, _ = rows_of(leaky)
  confidence = rows["samples", "undefended", "confidence"]["auc"]
  assert rows["samples", "undefended", "lira_online"]["auc"]["low"] > confidence["high"]


def test_without_a_leak_nothing_is_found():
  rows, _ = rows_of(make_world(0.0))
  for (table, _, attack), row in rows.items():
    if table in ("samples", "samples 3", "canaries"):
      auc = row["auc"]
      # Twice the 95% interval: about one false alarm in ten thousand for each of 50 figures.
      assert auc["value"] - 2 * (auc["value"] - auc["low"]) < 0.5, (table, attack)
      assert auc["value"] + 2 * (auc["high"] - auc["value"]) > 0.5, (table, attack)
    if table == "epsilon":
      assert row["first"] == 0.0
    if table == "vulnerability":
      quantiles, chance = row["auc_quantiles"], row["auc_quantiles_by_chance"]
      assert abs(quantiles["0.9"] - chance["0.9"]) < 0.05


def test_scores_follow_their_examples(leaky):
  pool, membership, _, shadow, _, statistics, _ = leaky
  order = np.random.default_rng(0).permutation(NUM)
  whole = np.concatenate([order, np.arange(NUM, NUM + NUM_CANARIES)])
  permuted = Pool(*(values[whole] for values in pool))
  for name in ("undefended", "scenario 3"):
    there = view_of(statistics[name], shadow[name], membership, pool)
    target = statistics[name]
    moved = target._replace(phi=target.phi[order], log_p=target.log_p[order])
    models = shadow[name]._replace(
      phi=shadow[name].phi[:, whole], log_p=shadow[name].log_p[:, whole]
    )
    here = view_of(moved, models, membership[:, whole], permuted)
    for attack, scores in target_scores(there).items():
      np.testing.assert_allclose(target_scores(here)[attack], scores[order], rtol=1e-9)


def test_repeating_gains_on_every_model_in_turn(leaky):
  rows, _ = rows_of(leaky)
  for name in ("scenario 3", "average"):
    once, thrice = (
      rows[table, name, "lira_online"]["auc"] for table in ("samples", "samples 3")
    )
    assert thrice["low"] > once["value"]


def test_averages_of_several_queries_are_of_candidates_of_their_own(leaky):
  pool, *_, target, statistics, _ = leaky
  logits = [
    np.asarray(dj.average(target.candidates[:, 0, 4 * q : 4 * q + 4])) for q in range(3)
  ]
  phi = np.mean([attacks.confidence(own, pool.labels[:NUM]) for own in logits], axis=0)
  np.testing.assert_allclose(statistics["average"].phi[:, 0, 1], phi, rtol=1e-5, atol=1e-5)
  assert statistics["average"].reused == 0.0


def test_repeating_a_query_gains_on_a_leak_that_noise_hides(leaky):
  pool, membership, _, shadow, _, statistics, _ = leaky
  reported = ~pool.is_canary & ~pool.is_known
  rows = adaptive_rows(
    statistics, shadow, membership, pool, queries=ASKED["queries"], reported=reported
  )
  found = {
    (r["predictor"], r["attack"], r["queries"], r["shadow_models"]): r["auc"]["value"]
    for r in rows
  }
  # Undefended asked once, 4 predictors once and thrice; LiRA and RMIA also with raw models.
  assert len(found) == len(rows) == 5 + 4 * 2 * (5 + 4)
  assert found["scenario 3", "lira_online", 3, "defended"] > 0.6
  gain = [
    found["scenario 3", attack, 3, "defended"] - found["scenario 3", attack, 1, "defended"]
    for attack in ("lira_online", "lira_offline", "confidence")
  ]
  assert np.mean(gain) > 0.0


def test_several_versions_of_an_image_are_used_jointly():
  world, alone = make_world(1.0, versions=6), make_world(1.0)
  aucs = []
  for pool, membership, _, shadow, _, statistics, _ in (world, alone):
    scores = target_scores(
      view_of(statistics["undefended"], shadow["undefended"], membership, pool)
    )
    member = pool.is_member[:NUM]
    aucs.append([dj.metrics.roc(s[member], s[~member]).auc for s in scores.values()])
  assert np.all(np.array(aucs[0]) > np.array(aucs[1]))
