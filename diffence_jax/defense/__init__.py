"""Diffence: candidates, selection, intervals, and `protect`, which joins them; and MemGuard."""

from diffence_jax.defense.aggregate import average
from diffence_jax.defense.blend import fit_blend
from diffence_jax.defense.candidates import candidate_logits
from diffence_jax.defense.early_exit import EarlySelection, make_early_selection
from diffence_jax.defense.interval import (
  fit_interval,
  interval_policy,
  member_interval,
  published_interval,
)
from diffence_jax.defense.mean_kept import mean_kept, with_label
from diffence_jax.defense.memguard import (
  attacker_logit,
  memguard,
  memguard_logits,
  train_memguard_attacker,
)
from diffence_jax.defense.policy import POLICIES, AggregatePolicy, Policy, RankPolicy, Record
from diffence_jax.defense.protect import protect
from diffence_jax.defense.select import Selection, keeps_label, scaled_logit, select

__all__ = [
  "POLICIES",
  "AggregatePolicy",
  "EarlySelection",
  "Policy",
  "RankPolicy",
  "Record",
  "Selection",
  "attacker_logit",
  "average",
  "candidate_logits",
  "fit_blend",
  "fit_interval",
  "interval_policy",
  "keeps_label",
  "make_early_selection",
  "mean_kept",
  "member_interval",
  "memguard",
  "memguard_logits",
  "protect",
  "published_interval",
  "scaled_logit",
  "select",
  "train_memguard_attacker",
  "with_label",
]
