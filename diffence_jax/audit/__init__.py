"""The audit: predictors made from records, attacked and measured."""

from diffence_jax.audit.predictors import (
  GROUPS,
  Answers,
  FitAnswers,
  Record,
  fit_finish,
  fit_intervals,
  predictors,
  selecting_intervals,
  with_output_defense,
)
from diffence_jax.audit.rows import LIMITS, Scores, audit

__all__ = [
  "GROUPS",
  "LIMITS",
  "Answers",
  "FitAnswers",
  "Record",
  "Scores",
  "audit",
  "fit_finish",
  "fit_intervals",
  "predictors",
  "selecting_intervals",
  "with_output_defense",
]
