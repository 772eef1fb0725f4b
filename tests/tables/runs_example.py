"""Finished runs on disk: the stored results, and variations of them."""

from pathlib import Path

from report import report_example

from diffence_jax.recorded import results as recorded
from diffence_jax.report import Results, results
from diffence_jax.report.curves import write_curves


def real(**fields) -> Results:
  """The stored results as if they were no smoke run's, and not at chance."""
  given = {"variant": "audit"} | fields
  data = given.pop("data", None) or report_example.stored().data.__class__(
    **{**vars(report_example.stored().data), "largest_class": 0.0}
  )
  return report_example.changed(data=data, **given)


def write_run(folder: Path, content: Results | None = None, *, curves: bool = True) -> Path:
  """A folder as a run leaves it, without what tables do not read."""
  folder.mkdir(parents=True)
  (folder / "results.json").write_text(results.to_json(content or real()))
  if curves:
    write_curves(report_example.stored_arrays(), folder)
  return folder


def write_record(folder: Path, **fields) -> Path:
  """A folder as `diffence audit` leaves it, with the rows of the stored results."""
  given = {
    "schema": recorded.SCHEMA, "versions": {"diffence_jax": "0.1.0"}, "seed": 0,
    "num_samples": 96, "num_classes": 10, "num_members": 24, "num_nonmembers": 24,
    "num_models": 0, "thresholds": "known", "predictors": report_example.stored().predictors,
    "main_attack": "", "in_turn": (), "vulnerability": (), "chosen": (), "named": (),
    "epsilon": (), "slices": (), "slices_left_out": (), "left_out": {},
  }  # fmt: skip
  folder.mkdir(parents=True)
  content = recorded.RecordResults(**given | fields)
  (folder / "results.json").write_text(recorded.to_json(content))
  write_curves(report_example.stored_arrays(), folder)
  return folder
