"""Finished runs beside each other: reading them, and whether they compare."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffence_jax.audit.rows import PredictorRow
from diffence_jax.recorded import results as recorded_results
from diffence_jax.recorded.results import RecordResults
from diffence_jax.report import results as report_results
from diffence_jax.report.curves import FILE, Curve, read_curves
from diffence_jax.report.results import Results, read_content
from diffence_jax.report.summary import caution
from diffence_jax.report.table import reported_sizes

_RESULTS = "results.json"
_MOST_NAMED = 4
# What names a run, and what sets neither figures nor samples.
_NOT_COMPARED = ("name", "variant", "seed", "compute", "samples")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A finished run.

  Attributes:
    label: what tables call it.
    results: of an experiment, or of an audit of a record.
    curves: predictor to the ROC of its strongest attack; empty where they were not kept.
  """

  label: str
  results: Results | RecordResults
  curves: Mapping[str, Curve]

  @property
  def rows(self) -> tuple[PredictorRow, ...]:
    """A row a predictor, the undefended one first."""
    return self.results.predictors

  @property
  def sizes(self) -> tuple[int, int]:
    """Members and non-members that the figures rest on."""
    results = self.results
    if isinstance(results, Results):
      return reported_sizes(results)
    return results.num_members, results.num_nonmembers

  @property
  def caution(self) -> str:
    """Why its figures measure nothing; empty where they do."""
    return caution(self.results) if isinstance(self.results, Results) else ""

  def milliseconds(self, row: PredictorRow) -> float | None:
    """What an answer takes, an image; None where it was not timed."""
    time = self.results.answer_time if isinstance(self.results, Results) else None
    if time is None:
      return None
    if row is self.rows[0]:
      return time.alone
    return time.defended if row.policy == time.policy else None


def results_file(path: str | os.PathLike) -> Path:
  """The `results.json` of a run that is given by it, or by its folder."""
  path = Path(path).expanduser()
  return path / _RESULTS if path.is_dir() else path


def read_run(path: str | os.PathLike, label: str | None = None) -> Run:
  """Reads a run.

  Args:
    path: a workdir, a folder of `reports/`, an output folder of `diffence audit`, or the
      `results.json` in one of them.
    label: what tables call it; None for the folder's name.

  Raises:
    FileNotFoundError: there are no results.
    ValueError: they are of another schema, or damaged.
  """
  file = results_file(path)
  content = read_content(file)
  kind = report_results if "experiment" in content else recorded_results
  results = kind.from_content(content, file)
  if not results.predictors:
    raise ValueError(f"{file} has no predictor; expected the results of a finished run.")
  curves = file.with_name(FILE)
  return Run(
    label=_name_of(file) if label is None else label,
    results=results,
    curves=read_curves(curves) if curves.is_file() else {},
  )


def read_runs(paths: Sequence[str | os.PathLike]) -> tuple[list[Run], list[str]]:
  """Reads runs, and says which cannot be read for their schema or damage.

  Args:
    paths: as of `read_run`.

  Returns:
    The runs under labels that differ, and a sentence on each that was left out.

  Raises:
    FileNotFoundError: there are no results in one of the places.
    ValueError: a run is given twice, or none can be read.
  """
  files = [results_file(path) for path in paths]
  for at, file in enumerate(files):
    if file.resolve() in [other.resolve() for other in files[:at]]:
      raise ValueError(f"{file} is given twice; expected different runs.")
  names = [_name_of(file) for file in files]
  runs, left_out = [], []
  for path, name in zip(paths, names, strict=True):
    try:
      runs.append(read_run(path, name if names.count(name) == 1 else str(path)))
    except ValueError as error:
      left_out.append(f"Left out: {error}")
  if not runs:
    raise ValueError(" ".join(left_out))
  return runs, left_out


def cautions(runs: Sequence[Run]) -> list[str]:
  """Why the figures of runs do not compare: a sentence each, none where they do."""
  first, *others = runs
  told = [f"{run.label}: {run.caution}" for run in runs if run.caution]
  for run in others:
    told += [f"{run.label} against {first.label}: {text}" for text in _differences(first, run)]
  return told


def changed_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
  """Settings that differ between experiments.

  Args:
    runs: those of records have no settings.

  Returns:
    Setting, as "purify.step", to its value in every run, as JSON has it; "" where a run has not
    got it.
  """
  settings = [
    _flat(run.results.settings) if isinstance(run.results, Results) else {} for run in runs
  ]
  names = sorted({name for one in settings for name in one})
  values = {name: [one.get(name, "") for one in settings] for name in names}
  given = [bool(one) for one in settings]
  return {
    name: of_runs
    for name, of_runs in values.items()
    if name.partition(".")[0] not in _NOT_COMPARED
    and len({v for v, has in zip(of_runs, given, strict=True) if has}) > 1
  }


def _flat(settings, prefix=""):
  flat = {}
  for name, value in settings.items():
    if isinstance(value, Mapping):
      flat |= _flat(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = str(value)
  return flat


def _name_of(file):
  return file.absolute().parent.name or str(file)


def _differences(first: Run, other: Run) -> list[str]:
  """What makes two runs differ besides what is to be compared."""
  one, two = first.results, other.results
  if type(one) is not type(two):
    told = ["one is an experiment, the other an audit of a record: their samples differ."]
  elif isinstance(one, Results):
    told = _of_experiments(one, two)
  else:
    told = _of_records(one, two)
  told += _other_attacks(first, other)
  versions = [results.versions.get("diffence_jax", "?") for results in (one, two)]
  if versions[0] != versions[1]:
    told.append(f"versions {versions[1]} and {versions[0]} of diffence_jax.")
  return told


def _other_attacks(first: Run, other: Run) -> list[str]:
  """Attacks that were run on the same predictor in one of the runs only."""
  tried = [
    {row.name: {attack.title for attack in row.attacks} for row in run.rows}
    for run in (first, other)
  ]
  predictors: dict[str, list[str]] = {}
  for name in tried[0]:
    if name in tried[1] and (missing := sorted(tried[0][name] ^ tried[1][name])):
      shown = "; ".join(missing[:_MOST_NAMED]) + ("; ..." if missing[_MOST_NAMED:] else "")
      predictors.setdefault(shown, []).append(name)
  return [
    f"other attacks were run on {', '.join(names)} (on one side only: {shown}); more attacks "
    "find more."
    for shown, names in predictors.items()
  ]


def _of_experiments(one: Results, two: Results) -> list[str]:
  told, data = [], [_data(results) for results in (one, two)]
  if data[0] != data[1]:
    told.append(f"other data ({two.data.source} and {one.data.source}, or options of it).")
  elif (one.seed, one.settings.get("data")) != (two.seed, two.settings.get("data")):
    seeds = f" (seeds {two.seed} and {one.seed})" if one.seed != two.seed else ""
    told.append(f"another split into members and non-members{seeds}.")
  if one.protocol != two.protocol:
    told.append(f"protocol {two.protocol!r} and {one.protocol!r}: other samples are reported.")
  return told


def _data(results: Results) -> tuple[Any, ...]:
  data = results.data
  options = results.settings.get("data", {}).get("options")
  return data.source, options, data.image_shape, data.num_classes


def _of_records(one: RecordResults, two: RecordResults) -> list[str]:
  sizes = [
    (results.num_samples, results.num_classes, results.num_members, results.num_nonmembers)
    for results in (one, two)
  ]
  if sizes[0] != sizes[1]:
    return [
      "other data or another split: {1[0]:,} samples, {1[2]:,} members and {1[3]:,} "
      "non-members reported, and {0[0]:,}, {0[2]:,} and {0[3]:,}.".format(*sizes)
    ]
  if one.thresholds != two.thresholds or one.seed != two.seed:
    return ["thresholds were learnt on other samples."]
  return []
