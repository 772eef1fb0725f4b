"""`examples.csv`: a row a sample, with every attack's score and its own AUC."""

import csv
import stat

import numpy as np

from diffence_jax.audit.pool import Pool
from diffence_jax.report import write_examples

NUM = 6


def test_a_row_has_all_that_is_known_of_a_sample(tmp_path):
  rng, each = np.random.default_rng(0), np.arange(NUM)
  pool = Pool(each + 10, each % 3, each < 3, each % 2 == 0, np.zeros(NUM, bool))
  scores = {("undefended", "loss"): rng.normal(size=NUM), ("=p", "@own"): rng.normal(size=NUM)}
  scores["=p", "@own"][4] = np.nan
  arrays = {f"undefended/example_{end}": rng.random(NUM) for end in ("auc", "low", "high")}
  arrays["undefended/example_auc"][1] = np.nan
  path = tmp_path / "examples.csv"
  write_examples(pool, ((*names, own) for names, own in scores.items()), arrays, path)
  assert stat.S_IMODE(path.stat().st_mode) == 0o600
  with open(path, newline="") as handle:
    rows = list(csv.DictReader(handle))
  own = [f"undefended: {name}" for name in ("own_auc", "own_auc_low", "own_auc_high")]
  # A spreadsheet runs no name.
  assert list(rows[0]) == [
    "id", "label", "member", "group", "undefended: loss", *own, "'=p: @own"
  ]  # fmt: skip
  assert len(rows) == NUM
  for i, row in enumerate(rows):
    assert (int(row["id"]), int(row["label"]), row["member"]) == (
      i + 10,
      i % 3,
      str(int(i < 3)),
    )
    assert row["group"] == ("known" if i % 2 == 0 else "target")
    assert float(row["undefended: loss"]) == scores["undefended", "loss"][i]
    assert float(row["undefended: own_auc_low"]) == arrays["undefended/example_low"][i]
  assert rows[1]["undefended: own_auc"] == "" == rows[4]["'=p: @own"]


def test_without_shadow_models_there_are_scores_only(tmp_path):
  pool = Pool(*np.arange(4).reshape(2, 2), *np.zeros((3, 2), bool))
  write_examples(pool, [("undefended", "loss", np.zeros(2))], {}, tmp_path / "examples.csv")
  header, *rows = (tmp_path / "examples.csv").read_text().splitlines()
  assert header == "id,label,member,group,undefended: loss"
  assert rows == ["0,2,0,target,0.0", "1,3,0,target,0.0"]
