"""The reports of a workdir: one of every config that was run there, and the latest at hand."""

import re
from collections.abc import Sequence
from pathlib import Path

from diffence_jax import report
from diffence_jax.audit.in_turn_file import SCORES_IN_TURN
from diffence_jax.disk import link_or_copy, private_files
from diffence_jax.experiment.collect import arrays_of
from diffence_jax.experiment.config import as_json
from diffence_jax.experiment.plan import Experiment
from diffence_jax.experiment.stage import fingerprint
from diffence_jax.experiment.store import Store
from diffence_jax.report import Results, Timing
from diffence_jax.report.pdf import write_pdf

# All that a report may consist of; which of them there are depends on the config.
_PDF = "report.pdf"
FILES = (
  "results.json", "results.csv", "curves.npz", "shadow.csv", "scores.csv", "examples.csv",
  SCORES_IN_TURN, "report.html", "private.html", _PDF,
)  # fmt: skip


def report_folder(experiment: Experiment, workdir: Path) -> Path:
  """`reports/<name>-<fingerprint>`: of settings and data, not of how they are computed."""
  settings = as_json(experiment.settings)
  del settings["compute"]
  stages = {name: stage.fingerprint for name, stage in experiment.stages.items()}
  named = "-".join(filter(None, (experiment.settings.name, experiment.settings.variant)))
  # What stands in a config may be no name of a folder.
  name = re.sub(r"[^A-Za-z0-9_.-]+", "-", named).strip(".-")[:80] or "run"
  return workdir / "reports" / f"{name}-{fingerprint({'settings': settings, 'stages': stages})}"


def write_reports(
  experiment: Experiment, store: Store, results: Results, timings: Sequence[Timing]
) -> None:
  """Writes an experiment's report into a folder of its own, and puts it at hand.

  In the workdir itself are the files of the report that was written last, as hard links, so
  that they take no room twice; as copies where the file system has no links. In the same way
  the report has the scores in turn, which are large, from the artifact.

  Args:
    experiment: that is computed.
    store: of its artifacts; the workdir is locked.
    results: as `results_of` makes them.
    timings: what its stages took.
  """
  folder = report_folder(experiment, store.workdir)
  folder.mkdir(parents=True, exist_ok=True)
  arrays, pool = arrays_of(experiment, store), experiment.audit.pool
  report.write_report(results, arrays, timings, folder)
  scores = tuple(experiment.audit.load_scores(store))
  report.write_scores(pool, scores, folder / "scores.csv")
  report.write_examples(pool, scores, arrays, folder / "examples.csv")
  if experiment.shadow_audit:
    in_turn = experiment.shadow_audit.in_turn_file(store)
    link_or_copy(in_turn, folder / SCORES_IN_TURN)
  # An old one is of the old page.
  (folder / _PDF).unlink(missing_ok=True)
  for name in FILES:
    if (folder / name).is_file():
      link_or_copy(folder / name, store.workdir / name)
    else:
      # Of another config, it would be taken for this one's.
      (store.workdir / name).unlink(missing_ok=True)


def print_report(experiment: Experiment, workdir: Path) -> Path:
  """Prints a report that is written, and puts the PDF at hand too.

  Returns:
    `report.pdf` in the workdir.

  Raises:
    ValueError: there is no browser to print with.
    RuntimeError: it has failed.
  """
  folder = report_folder(experiment, workdir)
  with private_files():
    write_pdf(folder / "report.html", folder / _PDF)
    link_or_copy(folder / _PDF, workdir / _PDF)
  return workdir / _PDF
