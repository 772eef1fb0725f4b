"""Membership inference attacks. Every score: higher means more likely a member."""

from diffence_jax.attacks.attack import (
  ATTACKS,
  Attack,
  View,
  attack,
  run_attack,
)
from diffence_jax.attacks.base import base
from diffence_jax.attacks.bavaria import bavaria
from diffence_jax.attacks.ensemble import Ensemble, Networks, ensemble_of
from diffence_jax.attacks.hop_skip_jump import HopSkipJump, hop_skip_jump
from diffence_jax.attacks.label_only import augmentation_robustness, noise_robustness
from diffence_jax.attacks.lira import lira
from diffence_jax.attacks.multi_signal import multi_signal
from diffence_jax.attacks.nn import NNAttack, train_nn_attack
from diffence_jax.attacks.oslo import one_shot_queries
from diffence_jax.attacks.pmia import pmia
from diffence_jax.attacks.quantile import quantile_scores
from diffence_jax.attacks.rmia import rmia
from diffence_jax.attacks.threshold import (
  confidence,
  correctness,
  entropy,
  loss,
  modified_entropy,
)
from diffence_jax.attacks.transfer import transferred_changes
from diffence_jax.metrics.predictions import hinge, log_probability, true_label_phi

__all__ = [
  "ATTACKS",
  "Attack",
  "Ensemble",
  "HopSkipJump",
  "NNAttack",
  "Networks",
  "View",
  "attack",
  "augmentation_robustness",
  "base",
  "bavaria",
  "confidence",
  "correctness",
  "ensemble_of",
  "entropy",
  "hinge",
  "hop_skip_jump",
  "lira",
  "log_probability",
  "loss",
  "modified_entropy",
  "multi_signal",
  "noise_robustness",
  "one_shot_queries",
  "pmia",
  "quantile_scores",
  "rmia",
  "run_attack",
  "train_nn_attack",
  "transferred_changes",
  "true_label_phi",
]
