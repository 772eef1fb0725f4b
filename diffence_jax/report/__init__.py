"""What an experiment found: tables for the terminal, CSV files and HTML pages."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from diffence_jax.disk import write_atomically
from diffence_jax.report import shadow
from diffence_jax.report.curves import write_curves
from diffence_jax.report.examples_csv import write_examples
from diffence_jax.report.page import Timing, render_page, render_private_page
from diffence_jax.report.results import Results, read_results, to_json
from diffence_jax.report.results_csv import write_csv
from diffence_jax.report.scores_csv import write_scores
from diffence_jax.report.summary import finding
from diffence_jax.report.table import format_table

__all__ = [
  "Results",
  "Timing",
  "finding",
  "format_table",
  "read_results",
  "write_csv",
  "write_examples",
  "write_report",
  "write_scores",
]


def write_report(
  results: Results,
  arrays: Mapping[str, np.ndarray],
  stages: Sequence[Timing],
  directory: str | os.PathLike,
) -> None:
  """Writes `results.json`, `results.csv`, `curves.npz` and two pages, each whole or not at all.

  `report.html` has aggregates and what the diffusion model drew from noise; `private.html` has
  what shows single samples. With shadow models also `shadow.csv`; without them an old one is
  removed, which would be taken for this run's.

  Args:
    results: of the experiment.
    arrays: what the plots show, as `render_page` and `render_private_page` take it.
    stages: what every stage took.
    directory: an existing folder.

  Raises:
    ValueError: a figure is not finite, which JSON does not have.
  """
  directory = Path(directory)
  # Rendered before anything is written: a failure leaves the old report, not half of each.
  texts = {
    "results.json": to_json(results),
    "report.html": render_page(results, arrays, stages),
    "private.html": render_private_page(results, arrays),
  }
  for name, text in texts.items():
    write_atomically(directory / name, text)
  write_csv(results, directory / "results.csv")
  write_curves(arrays, directory)
  if results.shadow:
    shadow.write_csv(results, directory / "shadow.csv")
  else:
    (directory / "shadow.csv").unlink(missing_ok=True)
