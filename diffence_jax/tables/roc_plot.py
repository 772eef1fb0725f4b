"""The ROC of any attack of a finished run, from the scores that it left."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffence_jax import metrics
from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.judge import AttackRow
from diffence_jax.disk import check_file
from diffence_jax.metrics import Roc
from diffence_jax.named import nearest
from diffence_jax.report import cells
from diffence_jax.report.figures import INK, draw_file, plain, start_roc
from diffence_jax.report.results import Results
from diffence_jax.tables.runs import Run, read_run, results_file

_COLOR = "#0072b2"
# Points of the band, evenly spaced on the logarithmic axis.
_NUM_LIMITS = 80


class AttackRoc(NamedTuple):
  """What is drawn.

  Attributes:
    run: that was attacked.
    predictor: as tables write it.
    row: the attack's row, of one threshold for all classes.
    roc: of it.
  """

  run: Run
  predictor: str
  row: AttackRow
  roc: Roc

  @property
  def summary(self) -> str:
    """The attack, the predictor and the AUC, in a line."""
    members, nonmembers = self.roc.num_members, self.roc.num_nonmembers
    return (
      f"{self.row.title} on {self.predictor}, one threshold for all classes: AUC "
      f"{self.row.auc.value:.3f} {cells.interval(self.row.auc)}, {members:,} members and "
      f"{nonmembers:,} non-members"
    )


def read_roc(path: str | os.PathLike, attack: str, predictor: str | None = None) -> AttackRoc:
  """The ROC of an attack of a finished run.

  Args:
    path: as of `runs.read_run`; `scores.csv`, of a record `examples.csv`, lies beside its
      results.
    attack: as the config has it.
    predictor: as tables write it; None for the undefended one.

  Raises:
    FileNotFoundError: the results or the scores are not there.
    ValueError: there is no such attack or predictor, or the scores are damaged, or not those
      of the results.
  """
  run = read_run(path)
  rows = {row.name: row for row in run.rows}
  predictor = run.rows[0].name if predictor is None else predictor
  if predictor not in rows:
    raise ValueError(f"The run has no predictor {predictor!r}{nearest(predictor, rows)}")
  # The first row of an attack is that of one threshold.
  attacks = {row.name: row for row in reversed(rows[predictor].attacks)}
  if attack not in attacks:
    raise ValueError(f"No attack {attack!r} was run on {predictor}{nearest(attack, attacks)}")
  file = results_file(path).with_name(
    "scores.csv" if isinstance(run.results, Results) else "examples.csv"
  )
  check_file(file, "expected what the run left beside its results.json; it is private")
  members, nonmembers = _scores(file, run, attack, predictor)
  if not (len(members) and len(nonmembers)):
    raise ValueError(f"{file} has no scores of {attack} on {predictor}.")
  roc, row = metrics.roc(members, nonmembers), attacks[attack]
  if abs(roc.auc - row.auc.value) > 1e-9:
    raise ValueError(
      f"{file} is not of these results: {attack} on {predictor} has an AUC of {roc.auc:.4f} "
      f"there, and {row.auc.value:.4f} in results.json."
    )
  return AttackRoc(run, predictor, row, roc)


def draw_roc(shown: AttackRoc, kind: str) -> bytes:
  """The ROC on logarithmic axes, which end at one sample, with its 95% band.

  The band is, at each false positive rate by itself, the interval of the TPR that the tables
  have (`metrics.rates`), which allows for the threshold's own sampling.

  Args:
    shown: as `read_roc` returns it.
    kind: one of `figures.KINDS`.

  Returns:
    The file's content.
  """
  roc = shown.roc
  left, bottom = 1.0 / roc.num_nonmembers, 1.0 / roc.num_members
  limits = np.geomspace(left, 1.0, _NUM_LIMITS)
  rates = [roc.tpr_at_fpr(min(float(limit), 1.0)) for limit in limits]
  low, high = (np.maximum([getattr(r, end) for r in rates], bottom) for end in ("low", "high"))

  def draw(figure):
    axes = figure.add_subplot()
    start_roc(axes, left, bottom)
    axes.fill_between(
      limits, low, high, color=_COLOR, alpha=0.15, linewidth=0,
      label="95% interval at each rate",
    )  # fmt: skip
    axes.plot(
      np.maximum(roc.fpr, left), np.maximum(roc.tpr, bottom), color=_COLOR, linewidth=1.8,
      drawstyle="steps-post", label=plain(shown.row.title),
    )  # fmt: skip
    warned, _, _ = shown.run.caution.partition(":")
    title = (
      f"{shown.row.title} on {shown.predictor}\n"
      f"AUC {shown.row.auc.value:.3f} {cells.interval(shown.row.auc)}"
    )
    axes.set_title(plain(f"{warned}\n{title}" if warned else title), loc="left", color=INK)
    axes.legend(loc="lower right", frameon=False)

  return draw_file(draw, 5.0, kind)


def _scores(file: Path, run: Run, attack: str, predictor: str) -> tuple[np.ndarray, np.ndarray]:
  """The scores f64[m] of the reported members and f64[n] of the reported non-members."""
  of_record = not isinstance(run.results, Results)
  names = ("is_member", "classifier") if of_record else ("member", "predictor")
  pooled = of_record or (
    run.results.protocol == "paper" and not declaration_of(attack).trains_on_known
  )
  sides: tuple[list[float], list[float]] = ([], [])
  try:
    for line in _lines(file, (*names, "attack", "score", "group")):
      if (line[names[1]], line["attack"]) != (cells.no_formula(predictor), attack):
        continue
      if pooled or line["group"] == "target":
        sides[line[names[0]] not in ("1", "True")].append(float(line["score"]))
  except (ValueError, csv.Error) as error:
    raise ValueError(f"{file} is damaged: {error}.") from error
  return np.array(sides[0]), np.array(sides[1])


def _lines(file: Path, names: tuple[str, ...]) -> Iterator[dict[str, str]]:
  with open(file, newline="", encoding="utf-8") as handle:
    reader = csv.DictReader(handle)
    if missing := set(names) - set(reader.fieldnames or ()):
      raise ValueError(f"it has no column {', '.join(sorted(missing))}")
    for line in reader:
      if None in line.values():
        raise ValueError(f"line {reader.line_num} is cut")
      yield line
