"""Who knows what: thresholds learnt on known samples, figures reported on the others."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from diffence_jax import metrics
from diffence_jax.attacks import Attack
from diffence_jax.audit.pool import Pool
from diffence_jax.metrics import Estimate, Rate, Roc

# The error rates that are reported.
LIMITS = (0.001, 0.01)


class AttackRow(NamedTuple):
  """What one attack reached.

  Attributes:
    name: as the config has it.
    title: as reports write it.
    family: attacks of one kind.
    threshold: "global", or "per_class" where every class has its own.
    auc: area under the ROC.
    accuracy: balanced accuracy of the best threshold in hindsight.
    known_threshold_accuracy: of the threshold that was learnt on known samples.
    tpr_at_fpr: at each of `LIMITS`.
    tnr_at_fnr: as above.
  """

  name: str
  title: str
  family: str
  threshold: str
  auc: Estimate
  accuracy: Estimate
  known_threshold_accuracy: Estimate
  tpr_at_fpr: tuple[Rate, ...]
  tnr_at_fnr: tuple[Rate, ...]


class Fold(NamedTuple):
  """An attack's scores, and on which samples thresholds are learnt and figures reported.

  Attributes:
    scores: f64[N], higher for likelier members.
    pool: the N samples; thresholds are learnt on the known ones.
    is_reported: bool[N].
  """

  scores: np.ndarray
  pool: Pool
  is_reported: np.ndarray


def judge(
  name: str, declared: Attack, scores: np.ndarray, pool: Pool, *, protocol: str
) -> list[tuple[AttackRow, Roc]]:
  """The success of an attack, with a global threshold and, if it is declared, per class.

  Args:
    name: the attack, as the config has it.
    declared: what it declares.
    scores: f64[N], of the samples of the pool.
    pool: the samples; both sides of the known ones and of the others are there.
    protocol: "disjoint" reports on the samples that are not known; "paper" on all together, as
      published, for comparison only.

  Returns:
    The rows, and the ROC on the reported samples behind each.
  """
  pooled = protocol == "paper" and not declared.trains_on_known
  reported = np.ones(len(scores), bool) if pooled else ~pool.is_known
  # The published code reads TPR where the FPR is below the limit, not up to it.
  return judge_folds(name, declared, [Fold(scores, pool, reported)], strict=protocol == "paper")


def judge_folds(
  name: str, declared: Attack, folds: Sequence[Fold], *, strict: bool = False
) -> list[tuple[AttackRow, Roc]]:
  """The same, pooled over folds that report different samples.

  Args:
    name: the attack, as the config has it.
    declared: what it declares.
    folds: in each both sides are among the known samples and among the reported ones.
    strict: reads rates where the error rate is below the limit, not up to it.

  Returns:
    As of `judge`.
  """
  judged = [_row(name, declared, "global", folds, strict)]
  if declared.per_class:
    shifted = [
      fold._replace(scores=fold.scores - _of_classes(fold)[fold.pool.labels]) for fold in folds
    ]
    judged.append(_row(name, declared, "per_class", shifted, strict))
  return judged


def _of_classes(fold: Fold) -> np.ndarray:
  """The thresholds f64[K] of a fold's classes."""
  scores, labels = fold.scores, fold.pool.labels
  members, nonmembers = fold.pool.known()
  return class_thresholds(
    scores[members], scores[nonmembers], labels[members], labels[nonmembers],
    num_classes=int(labels.max()) + 1,
  )  # fmt: skip


def class_thresholds(
  member_scores: np.ndarray,
  nonmember_scores: np.ndarray,
  member_labels: ArrayLike,
  nonmember_labels: ArrayLike,
  *,
  num_classes: int,
) -> np.ndarray:
  """For every class the threshold of the best balanced accuracy on known samples.

  Args:
    member_scores: f64[N], of known members.
    nonmember_scores: f64[N'], of known non-members.
    member_labels: i[N].
    nonmember_labels: i[N'].
    num_classes: K.

  Returns:
    f64[K]; a class without known members or without known non-members has the threshold that
    is best for all classes together.

  Raises:
    ValueError: labels are no classes, or there is none for a score.
  """
  member_labels, nonmember_labels = np.asarray(member_labels), np.asarray(nonmember_labels)
  for name, labels, scores in (
    ("member_labels", member_labels, member_scores),
    ("nonmember_labels", nonmember_labels, nonmember_scores),
  ):
    is_whole = np.issubdtype(labels.dtype, np.integer) and labels.shape == np.shape(scores)
    if not is_whole or labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
      raise ValueError(
        f"{name} are {labels.dtype}{list(labels.shape)}; expected a whole number, 0 to "
        f"{num_classes - 1}, for each of {len(scores)} scores."
      )
  shared = metrics.roc(member_scores, nonmember_scores).best_threshold
  thresholds = np.full(num_classes, shared)
  for label in np.intersect1d(member_labels, nonmember_labels):
    thresholds[label] = metrics.roc(
      member_scores[member_labels == label], nonmember_scores[nonmember_labels == label]
    ).best_threshold
  return thresholds


def _row(name, declared, threshold, folds, strict):
  members, nonmembers = _reported(folds, [fold.scores for fold in folds])
  roc = metrics.roc(members, nonmembers)
  called = [
    fold.scores
    >= metrics.roc(*(fold.scores[known] for known in fold.pool.known())).best_threshold
    for fold in folds
  ]
  called_members, called_nonmembers = _reported(folds, called)
  row = AttackRow(
    name=name,
    title=declared.title,
    family=declared.family,
    threshold=threshold,
    auc=Estimate(roc.auc, *roc.auc_interval),
    accuracy=roc.best_accuracy,
    known_threshold_accuracy=metrics.balanced_accuracy(
      int(called_members.sum()),
      len(called_members),
      int(called_nonmembers.sum()),
      len(called_nonmembers),
    ),
    tpr_at_fpr=tuple(roc.tpr_at_fpr(limit, strict=strict) for limit in LIMITS),
    tnr_at_fnr=tuple(roc.tnr_at_fnr(limit, strict=strict) for limit in LIMITS),
  )
  return row, roc


def _reported(folds, values):
  """The values of the reported members and of the reported non-members, of all folds."""
  return tuple(
    np.concatenate(
      [
        of_fold[fold.is_reported & (fold.pool.is_member == side)]
        for fold, of_fold in zip(folds, values, strict=True)
      ]
    )
    for side in (True, False)
  )
