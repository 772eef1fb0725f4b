"""An audit of a record, from its arrays to a folder with a report."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from diffence_jax.attacks.attack import DEFAULT_ATTACKS
from diffence_jax.checks import check_type, check_whole
from diffence_jax.disk import make_private, private_files, write_atomically
from diffence_jax.recorded import table
from diffence_jax.recorded.audit import Audited, audit
from diffence_jax.recorded.record import LogitRecord, read_record
from diffence_jax.recorded.results import RecordResults, to_json
from diffence_jax.report import cells, figures, shadow_figures, worst_off
from diffence_jax.report.curves import write_curves
from diffence_jax.report.page import label_floors, svg_uri
from diffence_jax.report.scores_csv import write_score_lines
from diffence_jax.report.template import render

# Of an audit whose page was printed.
PDF = "report.pdf"
FILES = ("report.html", "results.json", "results.csv", "curves.npz", "examples.csv")


def audit_record(
  record: str | os.PathLike | Mapping[str, np.ndarray],
  folder: str | os.PathLike,
  *,
  attacks: Sequence[str] = DEFAULT_ATTACKS,
  seed: int = 0,
) -> RecordResults:
  """Attacks recorded answers with all that the record allows, and writes a report.

  Nothing but arrays is needed: no model, no images, no framework. With shadow models' answers
  LiRA, RMIA and their like are run too, and every shadow model is the target in turn.

  Args:
    record: an `.npz` file, a folder of `.npy` files, or a mapping of name to array: `logits`
      (or `probabilities`) f[N,K], f[N,Q,K] of Q queries, or f[N] of a sigmoid; `labels` i[N];
      `is_member` bool[N]; and what docs/audit_record.md names besides.
    folder: `report.html`, `results.json`, `results.csv`, `curves.npz`, and `examples.csv`,
      which tells who is a member, go there; a new folder, an empty one, or that of an earlier
      audit.
    attacks: names of attacks as `audit.attacks` of an experiment has them, or "module:function"
      of your own; the rest is left out.
    seed: of what attacks draw, and of the halves on which thresholds are learnt where the
      record has no `is_known`.

  Returns:
    The content of `results.json`.

  Raises:
    FileNotFoundError: there is no such file or folder.
    ValueError: the record is damaged, or an array is missing, misshapen, out of range or NaN;
      or the folder holds something else.
  """
  check_whole("seed", seed, 0, 2**31 - 1)
  attacks = check_type("attacks", attacks, Sequence[str])
  folder = Path(folder).expanduser()
  check_report_folder(folder)
  given = read_record(record)
  audited = audit(given, attacks=attacks, seed=seed)
  write_report(given, audited, folder)
  return audited.results


def write_report(given: LogitRecord, audited: Audited, folder: Path) -> None:
  """Writes what came of an audit to a folder, that its owner alone can read.

  Args:
    given: what was audited.
    audited: what came of it.
    folder: as `check_report_folder` takes it.
  """
  results = audited.results
  # Rendered before anything is written: a failure leaves nothing.
  texts = {
    "results.json": to_json(results),
    "report.html": render_page(results, audited.arrays),
  }
  with private_files():
    make_private(folder)
    (folder / PDF).unlink(missing_ok=True)  # of an old page
    for name, text in texts.items():
      write_atomically(folder / name, text)
    cells.write_rows(list(table.csv_rows(results)), folder / "results.csv")
    write_curves(audited.arrays, folder)
    scores = (
      (name, attack, values)
      for name, of_attacks in audited.scores.items()
      for attack, values in of_attacks.items()
    )
    samples = table.example_columns(given)
    write_score_lines(table.EXAMPLE_COLUMNS, samples, scores, folder / "examples.csv")


def render_page(results: RecordResults, arrays: Mapping[str, np.ndarray]) -> str:
  """The report as one HTML page, which shows no single sample.

  Args:
    results: of an audit.
    arrays: as `recorded.audit.Audited` has them.
  """
  names = [row.name for row in results.predictors]
  roc = {name: (arrays[f"{name}/fpr"], arrays[f"{name}/tpr"]) for name in names}
  aucs = {row.name: row.highest_auc for row in results.predictors}
  floors = {row.name: row.gap.value for row in results.predictors}
  banded = {
    name: tuple(arrays[f"{name}/loo_{curve}"] for curve in ("fpr", "tpr", "low", "high"))
    for name in names
    if f"{name}/loo_fpr" in arrays
  }
  # About half of the samples are members of each shadow model.
  pooled = results.num_models * (results.num_members + results.num_nonmembers) // 2
  return render(
    Path(__file__).parent / "page.html.jinja",
    results=results,
    cells=cells,
    table=table,
    worst_off=worst_off,
    roc=svg_uri(figures.roc_curves(roc, results.num_members, results.num_nonmembers)),
    aucs=svg_uri(figures.attack_aucs(aucs, floors, label_floors(results.predictors))),
    models_roc=svg_uri(shadow_figures.banded_roc(banded, pooled, pooled)) if banded else None,
  )


def check_report_folder(folder: Path) -> None:
  """Raises ValueError where the report would lie among other things."""
  if folder.is_dir():
    others = sorted({path.name for path in folder.iterdir()} - {*FILES, PDF})
    if others:
      raise ValueError(
        f"{folder} holds {others[0]} and is no folder of an earlier audit; choose a new folder."
      )
  elif os.path.lexists(folder):
    raise ValueError(f"{folder} is there and is no folder; choose another name.")
