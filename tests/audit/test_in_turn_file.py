"""`scores_in_turn.npz` is written array by array, for its owner alone, and read likewise."""

import os
import stat
import tracemalloc

import numpy as np
import pytest

from diffence_jax.audit.in_turn_file import read_in_turn, written_in_turn
from diffence_jax.audit.pool import Pool

MODELS, NUM = 6, 50


@pytest.fixture
def pool():
  each = np.arange(NUM)
  return Pool(each + 2**40, each % 3, each % 2 == 0, each < 20, each >= 40)


@pytest.fixture
def membership():
  half = np.random.default_rng(0).random((MODELS // 2, NUM)) < 0.5
  return np.stack([half, ~half], axis=1).reshape(MODELS, NUM)


@pytest.fixture
def scores():
  draw = np.random.default_rng(1)
  return {
    (predictor, attack): draw.normal(size=(MODELS, NUM))
    for predictor in ("undefended", "scenario 3", "labels alone")
    for attack in ("lira_online", "my_attacks:odd")
  }


def written(path, pool, membership, scores):
  with written_in_turn(path, pool, membership, ~pool.is_known) as keep:
    for (predictor, attack), values in scores.items():
      keep(predictor, attack, values)
  return path


def test_what_is_written_is_read_by_policy_to_the_last_bit(pool, membership, scores, tmp_path):
  scores["undefended", "lira_online"][0, :2] = np.inf, -np.inf
  path = written(tmp_path / "scores.npz", pool, membership, scores)
  found = read_in_turn(path, {"undefended": "undefended", "scenario 3": "scenario_3"})
  np.testing.assert_array_equal(found.membership, membership)
  np.testing.assert_array_equal(found.pairs, [0, 0, 1, 1, 2, 2])
  for name in ("ids", "labels", "is_known", "is_canary"):
    np.testing.assert_array_equal(getattr(found, name), getattr(pool, name))
  # Neither known nor a canary.
  assert found.is_reported.shape == (MODELS, NUM)
  for of_model in found.is_reported:
    np.testing.assert_array_equal(np.flatnonzero(of_model), np.arange(20, 40))
  assert list(found.by_policy) == ["undefended", "scenario_3", "labels alone"]
  for (predictor, attack), values in scores.items():
    of_attacks = found.by_policy[predictor.replace(" 3", "_3")]
    assert list(of_attacks) == ["lira_online", "my_attacks:odd"] and len(of_attacks) == 2
    assert of_attacks[attack].dtype == np.float64
    np.testing.assert_array_equal(of_attacks[attack], values)
  with pytest.raises(KeyError, match="rmia"):
    _ = found.by_policy["undefended"]["rmia"]


def test_its_owner_alone_can_read_it(pool, membership, scores, tmp_path):
  before = os.umask(0)
  try:
    path = written(tmp_path / "scores.npz", pool, membership, scores)
  finally:
    os.umask(before)
  assert stat.S_IMODE(path.stat().st_mode) == 0o600
  assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(pool, membership, scores, tmp_path):
  path = tmp_path / "scores.npz"
  path.write_text("old")
  with pytest.raises(RuntimeError), written_in_turn(path, pool, membership, pool.is_known) as k:
    k("undefended", "loss", scores["undefended", "lira_online"])
    raise RuntimeError
  assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_no_more_than_one_array_is_in_memory(tmp_path):
  """Neither while they are written nor while they are read."""
  models, num, arrays = 16, 8192, 24
  pool = Pool(*(np.zeros(num, kind) for kind in (int, int, bool, bool, bool)))
  size = models * num * 8
  tracemalloc.start()
  try:
    with written_in_turn(
      tmp_path / "scores.npz", pool, np.ones((models, num), bool), ~pool.is_known
    ) as keep:
      for number in range(arrays):
        keep("undefended", f"attack {number}", np.full((models, num), number, float))
    found = read_in_turn(tmp_path / "scores.npz", {})
    means = [scores.mean() for scores in found.by_policy["undefended"].values()]
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert means == list(range(arrays)) and peak < 4 * size
