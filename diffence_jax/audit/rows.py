"""One row of the results for every predictor: attacked, and measured for what it costs."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from diffence_jax import metrics
from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.judge import LIMITS, AttackRow, judge
from diffence_jax.audit.pool import Pool
from diffence_jax.audit.predictors import Defended
from diffence_jax.defense import scaled_logit
from diffence_jax.defense.policy import Record, answer
from diffence_jax.metrics import Estimate
from diffence_jax.metrics.predictions import bounded
from diffence_jax.named import Choice


@dataclasses.dataclass(frozen=True)
class Highest:
  """The highest figure of all attacks, with its interval.

  Attributes:
    attack: the attack that reaches it, as the config has it.
    title: the same, as reports write it.
    threshold: "global" or "per_class".
    value: the figure.
    low: lower end of its 95% interval.
    high: upper end.
    relative_change: to the same figure of the undefended predictor; None for that itself, and
      where it starts from zero.
  """

  attack: str
  title: str
  threshold: str
  value: float
  low: float
  high: float
  relative_change: float | None = None


@dataclasses.dataclass(frozen=True)
class HighestRate(Highest):
  """The highest TPR or TNR at one limit; see `metrics.Rate` for the rest."""

  limit: float = 0.0
  realised: float = 0.0
  count: int = 0
  num: int = 0
  enough: bool = False


@dataclasses.dataclass(frozen=True)
class PredictorRow:
  """What attacks reach on one predictor, and what it costs.

  Attributes:
    name: as tables write it.
    policy: as the config has it.
    interval: (lo, hi) on phi that its selection aims at; None if there is none.
    test_accuracy: on target non-members.
    member_accuracy: on target members.
    label_changes: labels that differ from the raw predictions', over all queried samples.
    num_labels: how many these are.
    returned_raw: share of the queries whose answer was the raw prediction, for want of another;
      None where nothing is selected.
    labels_kept: share of the candidates that keep the label; None there too.
    ece: expected calibration error.
    nll: negative log-likelihood, in nats.
    js_distance: between the phi of members and of non-members.
    gap: AUC of calling every rightly classified image a member: the floor of all that keep
      labels.
    excess: the highest AUC above this floor.
    label_floor: the highest AUC behind an answer that tells the label alone, and how sure it
      is; None where labels were changed. See `audit.label_floor`.
    chosen: the AUC, at one query, of the attack that is strongest on shadow models behind the
      same policy; None without shadow models. See `audit.chosen_target`.
    attacks: every attack's row.
    highest_auc: over all attacks.
    highest_accuracy: as above.
    highest_tpr_at_fpr: as above, at each of `judge.LIMITS`.
    highest_tnr_at_fnr: as above.
  """

  name: str
  policy: str
  interval: tuple[float, ...] | None
  test_accuracy: Estimate
  member_accuracy: Estimate
  label_changes: int
  num_labels: int
  returned_raw: float | None
  labels_kept: float | None
  ece: float
  nll: float
  js_distance: float
  gap: Estimate
  excess: float
  label_floor: Highest | None
  chosen: Highest | None
  attacks: tuple[AttackRow, ...]
  highest_auc: Highest
  highest_accuracy: Highest
  highest_tpr_at_fpr: tuple[HighestRate, ...]
  highest_tnr_at_fnr: tuple[HighestRate, ...]


class Scored(NamedTuple):
  """An attack's scores of some samples.

  Attributes:
    scores: f64[n], higher for likelier members.
    rows: i[n], which samples of the pool.
  """

  scores: np.ndarray
  rows: np.ndarray


# `(predictor, its answers f32[N,K], attack) -> scores`; None where the attack was not run.
Score = Callable[[Defended, np.ndarray, Choice], Scored | None]


def audit_predictors(
  predictors: Sequence[Defended],
  record: Record,
  pool: Pool,
  attacks: Sequence[Choice],
  score: Score,
  *,
  protocol: str,
) -> tuple[tuple[PredictorRow, ...], dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Attacks every predictor and measures what it costs.

  Args:
    predictors: the undefended one first.
    record: the classifier's recorded answers to the samples of the pool, M candidates each.
    pool: the samples, without canaries.
    attacks: from `ATTACKS`, the gap attack (`correctness`) whether it is among them or not.
    score: runs an attack on a predictor, or finds its scores.
    protocol: "disjoint" reports on target samples, "paper" pools known and target ones.

  Returns:
    The rows of the results, the arrays of the figures, and the scores: f64[N] by
    `score_name`, NaN for samples that an attack was not judged on.
  """
  rows, arrays, scores = [], {}, {}
  for defended in predictors:
    answers = np.asarray(answer(defended.policy, record.candidates, record.raw))
    _warn_of_changed_labels(defended, answers, record.raw)
    logits = defended.finished(answers)
    judged = []
    for choice in attacks:
      scored = score(defended, logits, choice)
      if scored is not None:
        everyone = scores[score_name(defended.name, choice.name)] = np.full(
          len(pool.ids), np.nan
        )
        everyone[scored.rows] = scored.scores
        judged += judge(
          choice.name,
          declaration_of(choice.name),
          scored.scores,
          pool.take(scored.rows),
          protocol=protocol,
        )
    row, roc = predictor_row(
      defended.name,
      logits,
      record.raw,
      pool,
      judged,
      protocol=protocol,
      policy=defended.predictor.policy.name,
      interval=defended.policy.interval,
      **_kept(defended, record),
    )
    rows.append(row)
    arrays |= arrays_of(defended.name, logits, pool, roc)
  return compared(rows), arrays, scores


def score_name(predictor: str, attack: str) -> str:
  """What an attack's scores of a predictor are called among all scores."""
  return f"{predictor}/{attack}"


def arrays_of(
  name: str, logits: np.ndarray, pool: Pool, roc: metrics.Roc
) -> dict[str, np.ndarray]:
  """What figures show of a predictor p: "p/phi_members", "p/phi_nonmembers", "p/fpr", "p/tpr".

  Args:
    name: p.
    logits: f32[N,K], its answers.
    pool: the samples.
    roc: of its strongest attack.
  """
  sides = (("members", pool.is_member), ("nonmembers", ~pool.is_member))
  phi = {
    f"{name}/phi_{side}": bounded(np.asarray(scaled_logit(logits[chosen & ~pool.is_known])))
    for side, chosen in sides
  }
  return {**phi, f"{name}/fpr": roc.fpr, f"{name}/tpr": roc.tpr}


def _warn_of_changed_labels(defended, answers, raw):
  changed = metrics.label_changes(answers, raw) if defended.policy.keeps_labels else 0
  if changed:
    warnings.warn(
      f"The policy {defended.predictor.policy.name!r} declares that it keeps labels, and "
      f"changed {changed} of {len(raw)}.",
      stacklevel=3,
    )


def predictor_row(
  name: str,
  logits: np.ndarray,
  raw: np.ndarray,
  pool: Pool,
  judged: Sequence[tuple[AttackRow, metrics.Roc]],
  *,
  protocol: str,
  **facts: Any,
) -> tuple[PredictorRow, metrics.Roc]:
  """One row of the results, and the ROC of the attack with the highest AUC.

  Args:
    name: of the predictor.
    logits: f32[N,K], its answers.
    raw: f32[N,K], the undefended predictor's.
    pool: the samples.
    judged: every attack's row and ROC, "correctness" among them.
    protocol: as of `audit_predictors`.
    **facts: the other attributes of `PredictorRow`: `policy`, `interval`, `returned_raw` and
      `labels_kept`. There is no `label_floor` and no `chosen` yet.
  """
  targets = ~pool.is_known
  nonmembers = targets & ~pool.is_member
  # As published, calibration is over members and non-members; ours is about unseen images.
  calibrated = nonmembers if protocol == "disjoint" else targets
  answers = logits[calibrated], pool.labels[calibrated]
  members = targets & pool.is_member
  phi = [bounded(np.asarray(scaled_logit(logits[side]))) for side in (members, nonmembers)]
  rows = [row for row, _ in judged]
  best = max(judged, key=lambda one: one[0].auc.value)
  gap = next(row.auc for row in rows if row.name == "correctness")
  row = PredictorRow(
    name=name,
    test_accuracy=_accuracy(logits[nonmembers], pool.labels[nonmembers]),
    member_accuracy=_accuracy(logits[members], pool.labels[members]),
    label_changes=metrics.label_changes(logits, raw),
    num_labels=len(pool.labels),
    **facts,
    ece=metrics.expected_calibration_error(_softmax(answers[0]), answers[1]),
    nll=metrics.negative_log_likelihood(*answers),
    js_distance=metrics.jensen_shannon_distance(*phi),
    gap=gap,
    excess=best[0].auc.value - gap.value,
    label_floor=None,
    chosen=None,
    attacks=tuple(rows),
    highest_auc=_highest(rows, lambda row: row.auc),
    highest_accuracy=_highest(rows, lambda row: row.accuracy),
    highest_tpr_at_fpr=_highest_rates(rows, lambda row: row.tpr_at_fpr),
    highest_tnr_at_fnr=_highest_rates(rows, lambda row: row.tnr_at_fnr),
  )
  return row, best[1]


def _highest(rows, figure):
  best = max(rows, key=lambda row: figure(row).value)
  return Highest(best.name, best.title, best.threshold, *figure(best))


def _highest_rates(rows, rates):
  highest = []
  for at in range(len(LIMITS)):
    best = max(rows, key=lambda row, at=at: rates(row)[at].value)
    rate = rates(best)[at]._asdict()
    highest.append(HighestRate(best.name, best.title, best.threshold, **rate))
  return tuple(highest)


def compared(rows: Sequence[PredictorRow]) -> tuple[PredictorRow, ...]:
  """The rows with the relative changes of their highest figures to those of the first."""
  return tuple(_compared(row, rows[0]) for row in rows)


def _compared(row, undefended):
  def change_of(after, before):
    if isinstance(after, tuple):
      return tuple(change_of(*pair) for pair in zip(after, before, strict=True))
    comparable = row is not undefended and before.value > 0.0
    change = after.value / before.value - 1.0 if comparable else None
    return dataclasses.replace(after, relative_change=change)

  names = [f.name for f in dataclasses.fields(row) if f.name.startswith("highest_")]
  changes = {name: change_of(getattr(row, name), getattr(undefended, name)) for name in names}
  return dataclasses.replace(row, **changes)


def _accuracy(logits, labels):
  correct = np.argmax(logits, axis=-1) == labels
  return metrics.proportion(int(correct.sum()), len(correct))


def _kept(defended, record):
  """How often the raw prediction was the only choice, and how many candidates kept a label."""
  selection = defended.selection(record.candidates, record.raw)
  if selection is None:
    return {"returned_raw": None, "labels_kept": None}
  num_candidates = record.candidates.shape[1]
  return {
    "returned_raw": float(np.mean(np.asarray(selection.index) == num_candidates)),
    "labels_kept": float(np.mean(np.asarray(selection.kept)) / num_candidates),
  }


def _softmax(logits):
  return scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)
