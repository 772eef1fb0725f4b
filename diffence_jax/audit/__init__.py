"""The audit: predictors made from records, attacked and measured."""

from diffence_jax.audit.predictors import (
  GROUPS,
  Answers,
  Record,
  fit_intervals,
  known_answers,
  predictors,
)
from diffence_jax.audit.rows import LIMITS, Scores, audit

__all__ = [
  "GROUPS",
  "LIMITS",
  "Answers",
  "Record",
  "Scores",
  "audit",
  "fit_intervals",
  "known_answers",
  "predictors",
]
