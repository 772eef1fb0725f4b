"""The audit: every predictor made from the record, attacked and measured."""

from typing import Any, NamedTuple

import numpy as np
import scipy.special

from diffence_jax import attacks, metrics
from diffence_jax.defense import (
  Selection,
  average,
  fit_interval,
  member_interval,
  published_interval,
  scaled_logit,
  select,
)

GROUPS = ("known_members", "target_members", "known_nonmembers", "target_nonmembers")
_LIMITS = (0.001, 0.01)


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


def predictors(records: dict[str, Record], protocol: str) -> list[Answers]:
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
  known = [
    array
    for group in ("known_members", "known_nonmembers")
    for array in (records[group].candidates, records[group].raw)
  ]
  intervals = {
    "scenario 1": fit_interval(*known),
    "scenario 2": member_interval(*known[:2]),
    "scenario 3": published_interval(*known) if protocol == "paper" else None,
  }
  answers = [Answers("undefended", None, {g: r.raw for g, r in records.items()})]
  for name, interval in intervals.items():
    selections = {g: select(r.candidates, r.raw, interval) for g, r in records.items()}
    logits = {g: np.asarray(selection.logits) for g, selection in selections.items()}
    answers.append(Answers(name, interval, logits, selections))
  means = {g: np.asarray(average(r.candidates)) for g, r in records.items()}
  return [*answers, Answers("average", None, means)]


def audit(
  records: dict[str, Record], protocol: str
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
  """Attacks every predictor and measures what it costs.

  Args:
    records: group to record, for all of `GROUPS`.
    protocol: "disjoint" reports on target samples, "paper" pools known and target ones.

  Returns:
    The rows of the results, one a predictor, JSON-able; and the arrays of the figures.
  """
  rows, arrays = [], {}
  for answers in predictors(records, protocol):
    row, roc = _evaluate(answers, records, protocol)
    rows.append(row)
    for side in ("members", "nonmembers"):
      phi = scaled_logit(answers.logits[f"target_{side}"])
      arrays[f"{answers.name}/phi_{side}"] = np.asarray(phi)
    arrays[f"{answers.name}/fpr"], arrays[f"{answers.name}/tpr"] = roc.fpr, roc.tpr
  for row in rows:
    pairs = [(row[figure], rows[0][figure]) for figure in ("highest_auc", "highest_accuracy")]
    for figure in ("highest_tpr_at_fpr", "highest_tnr_at_fnr"):
      pairs += zip(row[figure], rows[0][figure], strict=True)
    for after, before in pairs:
      # None for the undefended predictor itself, and for rates that start from zero.
      comparable = row is not rows[0] and before["value"] > 0.0
      change = after["value"] / before["value"] - 1.0 if comparable else None
      after["relative_change"] = change
  return rows, arrays


def _evaluate(answers, records, protocol):
  """One row of the results, and the ROC of the attack with the highest AUC."""
  groups = attacks.Groups(
    **{g: attacks.Group(answers.logits[g], records[g].labels) for g in GROUPS}
  )
  attacked = attacks.run_threshold_attacks(groups, protocol=protocol)
  # The published code reads TPR where the FPR is below the limit, not up to it.
  described = [_attack(result, strict=protocol == "paper") for result in attacked]
  gap = next(d["auc"] for d in described if d["name"] == "correctness")
  best = max(range(len(attacked)), key=lambda i: described[i]["auc"]["value"])
  highest_auc = _named(described[best], described[best]["auc"])
  members, nonmembers = groups.target_members, groups.target_nonmembers
  # As published, calibration is over members and non-members; ours is about unseen images.
  calibrated = nonmembers if protocol == "disjoint" else attacks.pool(members, nonmembers)
  phi = [np.asarray(scaled_logit(g.logits)) for g in (members, nonmembers)]
  changes = sum(metrics.label_changes(answers.logits[g], records[g].raw) for g in GROUPS)
  row = {
    "name": answers.name,
    "interval": None if answers.interval is None else list(answers.interval),
    "test_accuracy": _accuracy(nonmembers),
    "member_accuracy": _accuracy(members),
    "label_changes": changes,
    "num_labels": sum(len(records[g].labels) for g in GROUPS),
    **_kept(answers, records),
    "ece": metrics.expected_calibration_error(_softmax(calibrated.logits), calibrated.labels),
    "nll": metrics.negative_log_likelihood(*calibrated),
    "js_distance": metrics.jensen_shannon_distance(*phi),
    "gap": gap,
    "attacks": described,
    "highest_auc": {**highest_auc, "excess": highest_auc["value"] - gap["value"]},
    "highest_accuracy": _highest(described, lambda d: d["accuracy"]),
  }
  for figure in ("tpr_at_fpr", "tnr_at_fnr"):
    row[f"highest_{figure}"] = [
      _highest(described, lambda d, f=figure, i=i: d[f][i]) for i in range(len(_LIMITS))
    ]
  return row, attacked[best].roc


def _attack(result, *, strict):
  roc = result.roc
  return {
    "name": result.name,
    "threshold": result.threshold,
    "auc": _estimate(roc.auc, *roc.auc_interval),
    "accuracy": _estimate(roc.accuracy, *roc.accuracy_interval),
    "known_threshold_accuracy": result.known_threshold_accuracy._asdict(),
    "tpr_at_fpr": [roc.tpr_at_fpr(limit, strict=strict)._asdict() for limit in _LIMITS],
    "tnr_at_fnr": [roc.tnr_at_fnr(limit, strict=strict)._asdict() for limit in _LIMITS],
  }


def _highest(described, figure):
  best = max(described, key=lambda d: figure(d)["value"])
  return _named(best, figure(best))


def _named(attack, figure):
  return {"attack": attack["name"], "threshold": attack["threshold"], **figure}


def _estimate(value, low, high):
  return {"value": value, "low": low, "high": high}


def _accuracy(group):
  correct = np.argmax(group.logits, axis=-1) == group.labels
  return metrics.proportion(int(correct.sum()), len(correct))._asdict()


def _kept(answers, records):
  """How often the raw prediction was the only choice, and how many candidates kept a label."""
  if answers.selections is None:
    return {"returned_raw": None, "labels_kept": None}
  num_candidates = records[GROUPS[0]].candidates.shape[1]
  index = np.concatenate([answers.selections[g].index for g in GROUPS])
  kept = np.concatenate([answers.selections[g].kept for g in GROUPS])
  return {
    "returned_raw": float(np.mean(index == num_candidates)),
    "labels_kept": float(np.mean(kept) / num_candidates),
  }


def _softmax(logits):
  return scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)
