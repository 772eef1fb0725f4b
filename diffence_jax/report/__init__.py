"""What an experiment found: tables for the terminal, CSV files and one HTML page."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffence_jax.artifacts import write_atomically
from diffence_jax.report import shadow
from diffence_jax.report.table import finding, format_table, write_csv

__all__ = ["finding", "format_table", "write_csv", "write_report"]


def write_report(
  results: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
  stages: Sequence[Mapping[str, Any]],
  directory: str | os.PathLike,
) -> None:
  """Writes `results.json`, `results.csv` and `report.html`, each whole or not at all.

  With shadow models also `shadow.csv`; without them an old one is removed, which would be taken
  for this run's.

  Args:
    results: JSON-able figures of the experiment, as `diffence_jax.run` returns them.
    arrays: what the plots show, as `render_page` takes it.
    stages: name, fingerprint, seconds and cached of every stage.
    directory: an existing folder.
  """
  from diffence_jax.report.page import render_page

  directory = Path(directory)
  text = json.dumps(results, indent=2, sort_keys=True) + "\n"
  # Rendered before anything is written: a failure leaves the old report, not half of each.
  page = render_page(results, arrays, stages)
  write_atomically(directory / "results.json", text)
  write_csv(results, directory / "results.csv")
  if results.get("shadow"):
    shadow.write_csv(results, directory / "shadow.csv")
  else:
    (directory / "shadow.csv").unlink(missing_ok=True)
  write_atomically(directory / "report.html", page)
