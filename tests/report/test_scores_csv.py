"""`scores.csv`: what is in it, and who can read it."""

import csv
import os
import stat

import numpy as np
import pytest

from diffence_jax.audit.pool import Pool
from diffence_jax.report import write_scores

NUM = 40


@pytest.fixture
def pool():
  rng = np.random.default_rng(0)
  ids = rng.permutation(1000)[:NUM].astype(np.int64)
  labels = rng.integers(0, 3, NUM).astype(np.int32)
  each = np.arange(NUM)
  return Pool(ids, labels, each % 2 == 0, each < NUM // 2, np.zeros(NUM, bool))


@pytest.fixture
def scores(pool):
  rng = np.random.default_rng(1)
  scores = {
    (predictor, attack): rng.normal(size=NUM) + pool.is_member
    for predictor in ("undefended", "scenario 1")
    for attack in ("loss", "my_attacks:odd")
  }
  scores["undefended", "loss"][3] = -np.inf
  # Not judged on all samples.
  scores["scenario 1", "loss"][5:] = np.nan
  return scores


def _write(pool, scores, folder):
  write_scores(
    pool, ((*names, values) for names, values in scores.items()), folder / "scores.csv"
  )
  with open(folder / "scores.csv", newline="") as handle:
    return list(csv.DictReader(handle))


def test_a_row_for_every_score_that_there_is(pool, scores, tmp_path):
  rows = _write(pool, scores, tmp_path)
  assert list(rows[0]) == ["id", "label", "member", "group", "predictor", "attack", "score"]
  expected = [
    (pool.ids[i], pool.labels[i], pool.is_member[i], pool.is_known[i], *names, values[i])
    for names, values in scores.items()
    for i in range(NUM)
    if not np.isnan(values[i])
  ]
  assert len(rows) == len(expected) == 3 * NUM + 5
  for row, (sample, label, member, known, predictor, attack, score) in zip(
    rows, expected, strict=True
  ):
    assert (int(row["id"]), int(row["label"]), int(row["member"])) == (sample, label, member)
    assert row["group"] == ("known" if known else "target")
    assert (row["predictor"], row["attack"]) == (predictor, attack)
    # To the last bit.
    assert float(row["score"]) == score


def test_its_owner_alone_can_read_it(pool, scores, tmp_path):
  before = os.umask(0)
  try:
    (tmp_path / "scores.csv").write_text("old")
    _write(pool, scores, tmp_path)
  finally:
    os.umask(before)
  assert stat.S_IMODE((tmp_path / "scores.csv").stat().st_mode) == 0o600
  assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_a_failure_leaves_the_old_file(pool, scores, tmp_path):
  (tmp_path / "scores.csv").write_text("old")
  with pytest.raises(ValueError):
    write_scores(
      pool, [("a", "b", np.zeros(NUM)), ("a", "c", np.zeros(3))], tmp_path / "scores.csv"
    )
  assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_spreadsheet_runs_no_name(pool, tmp_path):
  rows = _write(pool, {("=1+1", "@x"): np.zeros(NUM)}, tmp_path)
  assert {(row["predictor"], row["attack"]) for row in rows} == {("'=1+1", "'@x")}
