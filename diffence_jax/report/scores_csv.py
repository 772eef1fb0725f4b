"""`scores.csv`: what every attack says of every sample. Private."""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from diffence_jax.audit.pool import Pool
from diffence_jax.disk import private_text
from diffence_jax.report.cells import no_formula

COLUMNS = ("id", "label", "member", "group", "predictor", "attack", "score")


def write_scores(
  pool: Pool, scores: Iterable[tuple[str, str, np.ndarray]], path: str | os.PathLike
) -> None:
  """Writes every attack's score of every sample, one a row; its owner alone can read the file.

  The columns are the sample's `id`, its true `label`, `member` (1 or 0), `group` ("known": the
  defense and the attacks were fitted to it; or "target"), `predictor`, `attack` as the config
  has it, and `score`, higher for likelier members, before any threshold.

  Args:
    pool: the samples.
    scores: predictor, attack and f64[N], NaN for samples that have no row.
    path: the file, replaced if it is there; there whole or not at all.
  """
  groups = np.where(pool.is_known, "known", "target").tolist()
  members = pool.is_member.astype(int).tolist()
  samples = list(zip(pool.ids.tolist(), pool.labels.tolist(), members, groups, strict=True))
  write_score_lines(COLUMNS, samples, scores, path)


def write_score_lines(
  columns: Sequence[str],
  samples: Sequence[tuple],
  scores: Iterable[tuple[str, str, np.ndarray]],
  path: str | os.PathLike,
) -> None:
  """Writes scores line by line, as there may be millions; their owner alone can read the file.

  Args:
    columns: names, those of a sample's first.
    samples: what is told of each of N, text as `no_formula` makes it; predictor, attack and
      score follow.
    scores: as of `write_scores`.
    path: the file, replaced if it is there; there whole or not at all.
  """
  with private_text(Path(path)) as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for predictor, attack, values in scores:
      named = (no_formula(predictor), no_formula(attack))
      writer.writerows(
        (*sample, *named, value)
        for sample, value in zip(samples, values.tolist(), strict=True)
        if value == value
      )
