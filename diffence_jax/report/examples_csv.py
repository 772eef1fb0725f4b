"""`examples.csv`: what is known of every sample, one a row. Private."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from diffence_jax.audit.pool import Pool
from diffence_jax.disk import private_text
from diffence_jax.report.cells import no_formula

# Of an array of every predictor to a column of it.
OWN_AUC = {
  "example_auc": "own_auc",
  "example_low": "own_auc_low",
  "example_high": "own_auc_high",
}


def write_examples(
  pool: Pool,
  scores: Iterable[tuple[str, str, np.ndarray]],
  arrays: Mapping[str, np.ndarray],
  path: str | os.PathLike,
) -> None:
  """Writes a row for every sample; its owner alone can read the file.

  The columns are `id`, `label`, `member` and `group` as in `scores.csv`; of every predictor p
  `p: attack`, the attack's score, for each attack; and with shadow models `p: own_auc`,
  `p: own_auc_low` and `p: own_auc_high`, the example's own AUC over models with its 95%
  interval. What there is not is empty.

  Args:
    pool: the samples, without canaries.
    scores: predictor, attack and f64[N], NaN for samples that have no score.
    arrays: as of `render_page`; those named "p/example_auc" and so on are read.
    path: the file, replaced if it is there; there whole or not at all.
  """
  columns: dict[str, dict[str, np.ndarray]] = {}
  for predictor, attack, values in scores:
    columns.setdefault(predictor, {})[attack] = values
  for predictor, of_predictor in columns.items():
    for array, column in OWN_AUC.items():
      if f"{predictor}/{array}" in arrays:
        of_predictor[column] = arrays[f"{predictor}/{array}"]
  named = {
    f"{predictor}: {column}": ["" if value != value else value for value in values.tolist()]
    for predictor, of_predictor in columns.items()
    for column, values in of_predictor.items()
  }
  groups = np.where(pool.is_known, "known", "target").tolist()
  facts = (pool.ids.tolist(), pool.labels.tolist(), pool.is_member.astype(int).tolist(), groups)
  with private_text(Path(path)) as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "label", "member", "group", *map(no_formula, named)])
    writer.writerows(zip(*facts, *named.values(), strict=True))
