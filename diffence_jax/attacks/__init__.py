"""Membership inference attacks. Every score: higher means more likely a member."""

from diffence_jax.attacks.protocol import (
  AttackResult,
  Group,
  Groups,
  class_thresholds,
  pool,
  run_threshold_attacks,
  scored_attack,
  threshold_accuracy,
)
from diffence_jax.attacks.published import PUBLISHED_ATTACKS
from diffence_jax.attacks.threshold import (
  THRESHOLD_ATTACKS,
  confidence,
  correctness,
  entropy,
  loss,
  modified_entropy,
)

__all__ = [
  "PUBLISHED_ATTACKS",
  "THRESHOLD_ATTACKS",
  "AttackResult",
  "Group",
  "Groups",
  "class_thresholds",
  "confidence",
  "correctness",
  "entropy",
  "loss",
  "modified_entropy",
  "pool",
  "run_threshold_attacks",
  "scored_attack",
  "threshold_accuracy",
]
