"""The frontier on made-up records: its figures against slow ones, a leak and none."""

import numpy as np
import pytest
import scipy.special
from audit.shadow_world import ASKED, NUM_MODELS, PREDICTORS, make_world

from diffence_jax import metrics
from diffence_jax.attacks import ATTACKS
from diffence_jax.audit.frontier import (
  LIMIT,
  Drawing,
  frontier_row,
  is_dominated,
  risk_coverage_area,
  score_all,
  usefulness,
)
from diffence_jax.audit.predictors import ModelRecord
from diffence_jax.audit.shadow import in_turn_tables

ATTACKS_IN_TURN = [
  ATTACKS.choose(name) for name in ("confidence", "lira_online", "rmia_online")
]
DRAWING = Drawing(160, 4)


def rows_of(world):
  """Predictor to its row on target samples."""
  groups = {"target": ~world.pool.is_known & ~world.pool.is_canary}
  return {
    predictor.name: frontier_row(world.ensemble, predictor, ATTACKS_IN_TURN, groups, DRAWING)[
      "target"
    ]
    for predictor in PREDICTORS
  }


@pytest.fixture(scope="module")
def leaky():
  world = make_world(2.0)
  return world, rows_of(world)


def test_a_planted_leak_is_told_and_none_where_there_is_none(leaky):
  _, rows = leaky
  assert rows["undefended"].once.auc.low > 0.7
  assert rows["scenario 3"].often.auc.value < rows["undefended"].often.auc.value
  tight = rows_of(make_world(0.0))
  for row in tight.values():
    assert row.once.auc.low < 0.52 and row.often.auc.value < 0.56


@pytest.mark.parametrize("num_models", [8, NUM_MODELS])
def test_privacy_is_that_of_the_tables_of_the_audit(num_models, leaky):
  """Of few models with what attacks find without each pair, too."""
  world, rows = leaky
  if num_models != NUM_MODELS:
    world = make_world(2.0, num_models=num_models)
    rows = rows_of(world)
  reported = ~world.pool.is_known & ~world.pool.is_canary
  tables, _ = in_turn_tables(
    world.ensemble, ATTACKS_IN_TURN, ATTACKS_IN_TURN[1], reported=reported, has_epsilon=False
  )
  for name, row in rows.items():
    of_policy = [entry for entry in tables["samples"] if entry.predictor == name]
    once = [entry for entry in of_policy if entry.queries == 1]
    for strongest, entries in ((row.once, once), (row.often, of_policy)):
      best = max(entries, key=lambda entry: entry.auc.value)
      assert strongest.auc == best.auc and strongest.attack == best.title
      assert strongest.queries == best.queries
      rates = [rate for entry in entries for rate in entry.tpr_at_fpr if rate.limit == LIMIT]
      assert strongest.tpr.value == max(rate.value for rate in rates)


def test_attackers_undo_what_can_be_undone(leaky):
  world, rows = leaky
  groups = {"target": ~world.pool.is_known & ~world.pool.is_canary}
  protected, before = PREDICTORS[1], PREDICTORS[0]
  undone = score_all(world.ensemble, ATTACKS_IN_TURN, before.name, groups)
  arguments = (world.ensemble, protected, ATTACKS_IN_TURN, groups, DRAWING)
  row = frontier_row(*arguments, undone=undone)["target"]
  # The undefended answers come out, and tell more; useful is what is served.
  assert rows[before.name].often.auc.value > rows[protected.name].often.auc.value
  assert row.often.auc == rows[before.name].often.auc
  assert row.often.attack == f"{rows[before.name].often.attack}, undone"
  assert row.unlimited.auc.value >= rows[protected.name].unlimited.auc.value
  assert row.nll == rows[protected.name].nll


def test_usefulness_is_that_of_the_metrics_model_by_model(leaky):
  world, rows = leaky
  labels, known = world.pool.labels, world.pool.is_known
  for name in ("undefended", "scenario 3"):
    figures = []
    for model, members in enumerate(world.membership):
      judged = ~known & ~world.pool.is_canary & ~members
      logits = world.ensemble.answers(model, name).logits[:, 0, 0].astype(np.float64)
      probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
      probabilities /= probabilities.sum(axis=1, keepdims=True)
      nll = metrics.negative_log_likelihood
      fitted = known & ~members
      temperatures = np.geomspace(0.2, 5.0, 33)
      by_known = [nll(logits[fitted] / t, labels[fitted]) for t in temperatures]
      best = temperatures[int(np.argmin(by_known))]
      figures.append([
        metrics.accuracy(logits[judged], labels[judged]),
        nll(logits[judged], labels[judged]),
        nll(logits[judged] / best, labels[judged]),
        metrics.expected_calibration_error(probabilities[judged], labels[judged]),
      ])  # fmt: skip
    row = rows[name]
    measured = [row.accuracy.value, row.nll.value, row.calibrated_nll.value, row.ece]
    np.testing.assert_allclose(measured, np.mean(figures, axis=0), atol=1e-5)
    for estimate in (row.accuracy, row.nll, row.calibrated_nll):
      assert estimate.low < estimate.value < estimate.high
    assert len(figures) == NUM_MODELS


def test_other_images_are_told_by_how_sure_the_answers_are(leaky):
  world, rows = leaky
  judged = ~world.pool.is_known & ~world.pool.is_canary
  read = world.ensemble._read

  def told(read_others, name):
    (predictor,) = [predictor for predictor in PREDICTORS if predictor.name == name]
    groups = {"target": judged}
    arguments = world.ensemble, predictor, ATTACKS_IN_TURN[:1], groups, DRAWING
    return frontier_row(*arguments, read_others)["target"].out_of_distribution

  flat = lambda model: ModelRecord(*(np.zeros_like(values[:5]) for values in read(model)))
  for name in rows:
    assert told(flat, name) == 1.0
  # Others that are like the samples, and a little surer: the AUC is what a slow count says.
  louder = lambda model: ModelRecord(*(1.5 * values[judged] for values in read(model)))
  by_model = []
  for model, members in enumerate(world.membership):
    inside, outside = (
      scipy.special.softmax(raw[:, 0], axis=1).max(axis=1)
      for raw in (read(model).raw[judged & ~members], louder(model).raw)
    )
    inside, outside = inside[:, None], outside[None]
    by_model.append(np.mean((inside > outside) + 0.5 * (inside == outside)))
  np.testing.assert_allclose(told(louder, "undefended"), np.mean(by_model), atol=1e-3)
  assert rows["undefended"].out_of_distribution is None


def test_the_risk_coverage_area_is_the_mean_error_among_the_surest():
  draw = np.random.default_rng(0)
  is_right, confidence = draw.random(40) < 0.7, draw.random(40)
  order = sorted(range(40), key=lambda at: -confidence[at])
  errors = [np.mean([not is_right[at] for at in order[:n]]) for n in range(1, 41)]
  np.testing.assert_allclose(risk_coverage_area(is_right, confidence), np.mean(errors))
  assert risk_coverage_area(np.ones(5, bool), confidence[:5]) == 0.0


def test_answers_that_come_again_count_once():
  draw = np.random.default_rng(1)
  different = draw.normal(size=(6, 4, 3)).astype(np.float32)
  again = different[:, [0, 1, 0, 1, 0, 1, 1, 0]]
  labels = np.zeros(6, int)
  np.testing.assert_allclose(usefulness(different, labels, 1)[:, 2], 1 / 4)
  np.testing.assert_allclose(usefulness(again, labels, 1)[:, 2], 1 / 2)
  np.testing.assert_allclose(usefulness(different, labels, 4)[:, 2], 1.0)


def test_without_limit_an_answer_that_never_changes_leaves_what_it_left(leaky):
  _, rows = leaky
  assert rows["undefended"].unlimited.auc.value == rows["undefended"].often.auc.value
  often = rows["scenario 3"].often
  assert often.queries == max(ASKED["queries"])
  assert rows["scenario 3"].unlimited.auc.value > often.auc.value


def test_the_dominated_are_those_that_another_beats_in_both(leaky):
  _, rows = leaky
  place = {name: (row.calibrated_nll.value, row.often.auc.value) for name, row in rows.items()}
  for name, row in rows.items():
    beaten = any(
      all(a <= b for a, b in zip(place[other], place[name], strict=True))
      and place[other] != place[name]
      for other in rows
    )
    assert is_dominated(row, list(rows.values())) == beaten


def test_groups_without_members_or_non_members_are_refused(leaky):
  world, _ = leaky
  nobody = np.zeros(len(world.pool.labels), bool)
  with pytest.raises(ValueError, match="Of the 0 target samples"):
    frontier_row(world.ensemble, PREDICTORS[0], ATTACKS_IN_TURN, {"target": nobody}, DRAWING)
