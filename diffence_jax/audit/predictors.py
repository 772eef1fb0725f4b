"""The predictors that are audited, made from one record of raw and candidate logits."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from diffence_jax import metrics
from diffence_jax.defense import (
  Selection,
  average,
  fit_interval,
  member_interval,
  published_interval,
  select,
)

# Predictor to `(known members' logits, known non-members' logits) -> (logits -> logits)`: how a
# defense of the answers is fitted to it.
FitAnswers = Callable[[str, np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]

GROUPS = ("known_members", "target_members", "known_nonmembers", "target_nonmembers")


class Record(NamedTuple):
  """The recorded answers for one group of samples.

  Attributes:
    raw: f32[N,K], logits of the samples themselves.
    candidates: f32[N,M,K], logits of their candidates.
    labels: i[N], true labels.
  """

  raw: np.ndarray
  candidates: np.ndarray
  labels: np.ndarray


class Answers(NamedTuple):
  """What one predictor returns.

  Attributes:
    name: the predictor.
    interval: (lo, hi) on phi that its selection aims at, None if it has none.
    logits: group to f32[N,K].
    selections: group to `Selection`, None where nothing was selected.
  """

  name: str
  interval: tuple[float, float] | None
  logits: dict[str, np.ndarray]
  selections: dict[str, Selection] | None = None

  def label_changes(self, records: Mapping[str, Record]) -> int:
    """How many labels of the raw predictions it changes, over all groups."""
    return sum(metrics.label_changes(self.logits[g], records[g].raw) for g in GROUPS)


def fit_intervals(
  member_candidates: np.ndarray,
  member_raw: np.ndarray,
  nonmember_candidates: np.ndarray,
  nonmember_raw: np.ndarray,
  *,
  protocol: str,
) -> dict[str, tuple[float, float] | None]:
  """Diffence's three scenarios and the interval that each aims at.

  Args:
    member_candidates: f32[N,M,K], of known members.
    member_raw: f32[N,K].
    nonmember_candidates: f32[N',M,K], of known non-members.
    nonmember_raw: f32[N',K].
    protocol: "disjoint", or "paper" for the interval that the published code gives scenario 3.

  Returns:
    Predictor to (lo, hi), None where the first label-preserving candidate is taken.
  """
  known = (member_candidates, member_raw, nonmember_candidates, nonmember_raw)
  return {
    "scenario 1": fit_interval(*known),
    "scenario 2": member_interval(*known[:2]),
    "scenario 3": published_interval(*known) if protocol == "paper" else None,
  }


def predictors(records: Mapping[str, Record], protocol: str) -> list[Answers]:
  """The undefended predictor, Diffence in its three scenarios, and averaging.

  Intervals are fitted on known samples only.

  Args:
    records: group to record, for all of `GROUPS`.
    protocol: "disjoint", or "paper" for the interval that the published code gives scenario 3.

  Returns:
    One entry a predictor, undefended first.

  Raises:
    ValueError: no candidate of a known group keeps its label.
  """
  known = [records[group] for group in ("known_members", "known_nonmembers")]
  fitted_on = [array for record in known for array in (record.candidates, record.raw)]
  intervals = fit_intervals(*fitted_on, protocol=protocol)
  answers = [Answers("undefended", None, {g: r.raw for g, r in records.items()})]
  for name, interval in intervals.items():
    selections = {g: select(r.candidates, r.raw, interval) for g, r in records.items()}
    logits = {g: np.asarray(selection.logits) for g, selection in selections.items()}
    answers.append(Answers(name, interval, logits, selections))
  means = {g: np.asarray(average(r.candidates)) for g, r in records.items()}
  return [*answers, Answers("average", None, means)]


def selecting_intervals(answers: list[Answers]) -> dict[str, tuple[float, float] | None]:
  """The interval of every predictor that selects, None for the first of its candidates."""
  return {own.name: own.interval for own in answers if own.selections is not None}


def fit_finish(
  answers: list[Answers], fit: FitAnswers | None
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
  """Fits a defense of the answers to every predictor.

  Args:
    answers: the predictors' answers, as `predictors` gives them.
    fit: fits it to a predictor's answers to the known samples; None for no such defense.

  Returns:
    Predictor to what the defense does to its logits f32[n,K]; {} for no such defense.
  """
  if fit is None:
    return {}
  known = ("known_members", "known_nonmembers")
  return {own.name: fit(own.name, *(own.logits[group] for group in known)) for own in answers}


def with_output_defense(answers: list[Answers], fit: FitAnswers | None) -> list[Answers]:
  """Defends what the predictors return; see `fit_finish`."""
  finish = fit_finish(answers, fit)
  if not finish:
    return answers
  return [
    own._replace(logits={g: np.asarray(finish[own.name](z)) for g, z in own.logits.items()})
    for own in answers
  ]
