"""Queries that show a leak are told from samples, and other queries, that do not."""

import numpy as np
import pytest
from shadow_world import (
  ASKED,
  INTERVALS,
  PREDICTORS,
  answers_of,
  defended_by,
  make_pool,
  make_record,
)

from diffence_jax.attacks.attack import ATTACKS
from diffence_jax.audit.answers import DefendedEnsemble
from diffence_jax.audit.membership import membership_matrix
from diffence_jax.audit.optimised import SENT, Asked, OptimisedRow, optimised_rows
from diffence_jax.audit.typed import from_plain, to_plain

MODELS, NAMES = 16, ("undefended", "scenario 3")
POOL = make_pool().natural
MEMBERSHIP = membership_matrix(MODELS, len(POOL.ids), 5)
CHOSEN = tuple(predictor for predictor in PREDICTORS if predictor.name in NAMES)


def asked(leak, number):
  """Models, and a target, that leak so much; of noise of their own."""
  records = [
    make_record(100 * number + model, POOL, own, leak) for model, own in enumerate(MEMBERSHIP)
  ]
  ensemble = DefendedEnsemble(records.__getitem__, POOL, MEMBERSHIP, CHOSEN, seed=0, **ASKED)
  target = make_record(5000 + number, POOL, POOL.is_member, leak)
  every = defended_by(INTERVALS)
  defended = {name: every[name] for name in NAMES}
  return Asked(ensemble, answers_of(defended, target, POOL.labels))


@pytest.fixture(scope="module")
def rows():
  by_leak = dict(zip(SENT, (0.0, 2.0, 0.0), strict=True))
  world = {sent: asked(leak, at) for at, (sent, leak) in enumerate(by_leak.items())}
  made = optimised_rows(world, ATTACKS.choose("lira_online"))
  return {(row.predictor, row.sent, row.queries): row for row in made}


def test_every_predictor_is_asked_every_way(rows):
  assert set(rows) == {
    *((NAMES[0], sent, 1) for sent in SENT),
    *((NAMES[1], sent, k) for sent in SENT for k in ASKED["queries"]),
  }
  for (_, sent, _), row in rows.items():
    assert row.num_models == MODELS and row.num_samples == np.sum(~POOL.is_known)
    assert (row.auc_change is None) == (sent == SENT[0])
    assert from_plain(OptimisedRow, to_plain(row)) == row


def test_a_leak_that_only_the_query_shows_is_found(rows):
  for name in NAMES:
    row, sample = rows[name, SENT[1], 1], rows[name, SENT[0], 1]
    assert row.auc_change.low > 0.0 and row.auc.low > sample.auc.high
    assert row.auc_change.value == pytest.approx(row.auc.value - sample.auc.value)
    assert row.target_auc.value > 0.6
  assert rows[NAMES[0], SENT[1], 1].auc.value > rows[NAMES[1], SENT[1], 1].auc.value


def test_without_a_leak_none_is_found(rows):
  for row in rows.values():
    if row.sent == SENT[1]:
      continue
    for auc in (row.auc, row.target_auc):
      # Twice the 95% interval.
      assert (
        auc.value - 2 * (auc.value - auc.low) < 0.5 < auc.value + 2 * (auc.high - auc.value)
      )
