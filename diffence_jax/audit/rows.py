"""One row of the results for every predictor: attacked, and measured for what it costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.special

from diffence_jax import attacks, metrics
from diffence_jax.audit.predictors import GROUPS, Answers, Record
from diffence_jax.defense import scaled_logit

LIMITS = (0.001, 0.01)
# Trained on the known samples: their scores must not be pooled with the target samples'.
_IN_SAMPLE = ("nn",)


# Predictor to attack to group to scores f64[N].
Scores = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]


def audit(
  answers: Sequence[Answers],
  records: Mapping[str, Record],
  protocol: str,
  scores: Scores | None = None,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
  """Attacks every predictor and measures what it costs.

  Args:
    answers: the predictors' answers, the undefended one's first.
    records: group to record, for all of `GROUPS`.
    protocol: "disjoint" reports on target samples, "paper" pools known and target ones.
    scores: of further attacks, besides the threshold attacks.

  Returns:
    The rows of the results, one a predictor, JSON-able; and the arrays of the figures.
  """
  rows, arrays = [], {}
  for answer in answers:
    further = (scores or {}).get(answer.name, {})
    row, roc = _evaluate(answer, records, protocol, further)
    rows.append(row)
    for side in ("members", "nonmembers"):
      phi = scaled_logit(answer.logits[f"target_{side}"])
      arrays[f"{answer.name}/phi_{side}"] = np.asarray(phi)
    arrays[f"{answer.name}/fpr"], arrays[f"{answer.name}/tpr"] = roc.fpr, roc.tpr
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


def _evaluate(answers, records, protocol, further):
  """One row of the results, and the ROC of the attack with the highest AUC."""
  groups = attacks.Groups(
    **{g: attacks.Group(answers.logits[g], records[g].labels) for g in GROUPS}
  )
  attacked = attacks.run_threshold_attacks(groups, protocol=protocol)
  for name, scores in further.items():
    own = "disjoint" if name in _IN_SAMPLE else protocol
    attacked.append(attacks.scored_attack(name, scores, protocol=own))
  # The published code reads TPR where the FPR is below the limit, not up to it.
  described = [_attack(result, strict=protocol == "paper") for result in attacked]
  gap = next(d["auc"] for d in described if d["name"] == "correctness")
  best = max(range(len(attacked)), key=lambda i: described[i]["auc"]["value"])
  highest_auc = _named(described[best], described[best]["auc"])
  members, nonmembers = groups.target_members, groups.target_nonmembers
  # As published, calibration is over members and non-members; ours is about unseen images.
  calibrated = nonmembers if protocol == "disjoint" else attacks.pool(members, nonmembers)
  phi = [np.asarray(scaled_logit(g.logits)) for g in (members, nonmembers)]
  row = {
    "name": answers.name,
    "interval": None if answers.interval is None else list(answers.interval),
    "test_accuracy": _accuracy(nonmembers),
    "member_accuracy": _accuracy(members),
    "label_changes": answers.label_changes(records),
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
      _highest(described, lambda d, f=figure, i=i: d[f][i]) for i in range(len(LIMITS))
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
    "tpr_at_fpr": [roc.tpr_at_fpr(limit, strict=strict)._asdict() for limit in LIMITS],
    "tnr_at_fnr": [roc.tnr_at_fnr(limit, strict=strict)._asdict() for limit in LIMITS],
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
