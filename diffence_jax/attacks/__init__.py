"""Membership inference attacks. Every score: higher means more likely a member.

Training shadow models, which needs the training loop, is in `attacks.shadow`.
"""

from diffence_jax.attacks.hop_skip_jump import HopSkipJump, hop_skip_jump
from diffence_jax.attacks.label_only import augmentation_robustness, noise_robustness
from diffence_jax.attacks.lira import hinge, lira, true_label_phi
from diffence_jax.attacks.nn import NNAttack, nn_scores, train_nn_attack
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
from diffence_jax.attacks.quantile import quantile_attack, quantile_scores
from diffence_jax.attacks.rmia import log_probability, rmia
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
  "HopSkipJump",
  "NNAttack",
  "augmentation_robustness",
  "class_thresholds",
  "confidence",
  "correctness",
  "entropy",
  "hinge",
  "hop_skip_jump",
  "lira",
  "log_probability",
  "loss",
  "modified_entropy",
  "nn_scores",
  "noise_robustness",
  "pool",
  "quantile_attack",
  "quantile_scores",
  "rmia",
  "run_threshold_attacks",
  "scored_attack",
  "threshold_accuracy",
  "train_nn_attack",
  "true_label_phi",
]
