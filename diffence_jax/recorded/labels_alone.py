"""What of a record is left where answers tell the label alone, and how sure it is."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from diffence_jax.audit.judge import Fold
from diffence_jax.audit.label_floor import LABELS_ALONE
from diffence_jax.defense.blend import constants, fit_constants
from diffence_jax.recorded.record import LogitRecord, Recorded, ShadowOutputs


class ShadowLabels:
  """The labels f32[S,N,1,K] of shadow models, which are read model by model."""

  def __init__(self, outputs: ShadowOutputs, record: LogitRecord, folds: Sequence[Fold]):
    """Takes the answers; each model's accuracies are those among its known non-members."""
    self._outputs, self._record, self._folds = outputs, record, folds

  def __len__(self) -> int:
    return len(self._outputs)

  def __getitem__(self, model: int) -> np.ndarray:
    logits, record = self._outputs[model][:, 0], self._record
    nonmembers = ~record.shadow_membership[model]
    return _told_by_folds(logits, record.labels, nonmembers, self._folds)[:, None]

  def __iter__(self) -> Iterator[np.ndarray]:
    return (self[model] for model in range(len(self)))


def labels_alone(record: LogitRecord, folds: Sequence[Fold]) -> LogitRecord:
  """The record of the undefended classifier behind `defense.blend.constant`.

  Args:
    record: as `read_record` returns it.
    folds: the accuracies are learnt on the known non-members of each, for those it reports.

  Returns:
    The same samples, and one classifier, called as `LABELS_ALONE`, that was asked once.
  """
  first = record.predictors[0]
  logits = _told_by_folds(first.logits[:, 0], record.labels, ~record.is_member, folds)
  shadows = None if first.shadows is None else ShadowLabels(first.shadows, record, folds)
  alone = Recorded(LABELS_ALONE.name, logits[:, None], shadows)
  return dataclasses.replace(record, predictors=(alone,))


def _told_by_folds(logits, labels, nonmembers, folds) -> np.ndarray:
  """f32[N,K]: of each label its accuracy among those of the non-members that a fold knows."""
  answers = np.empty_like(logits)
  for at, fold in enumerate(folds):
    rows = fold.is_reported if at else slice(None)
    answers[rows] = _told(logits, labels, fold.pool.is_known & nonmembers)[rows]
  return answers


def _told(logits, labels, nonmembers) -> np.ndarray:
  """f32[N,K]: of each label its accuracy among some samples, bool[N]; of none, a half."""
  num_classes = logits.shape[-1]
  table = constants(np.full(num_classes, 0.5), num_classes)
  if nonmembers.any():
    table = fit_constants(logits[nonmembers], labels[nonmembers])
  return table[np.argmax(logits, axis=-1)]
