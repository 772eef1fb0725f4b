"""Metrics, in NumPy and float64: ROC, intervals, calibration, divergence."""

from diffence_jax.metrics.calibration import (
  accuracy,
  expected_calibration_error,
  label_changes,
  negative_log_likelihood,
)
from diffence_jax.metrics.clustered import (
  Band,
  ClusteredRoc,
  clustered_band,
  clustered_difference,
  clustered_mean,
  clustered_roc,
)
from diffence_jax.metrics.discoveries import (
  benjamini_hochberg,
  conformal_p_values,
  false_discovery_bound,
)
from diffence_jax.metrics.divergence import jensen_shannon_distance
from diffence_jax.metrics.epsilon import epsilon_lower_bound
from diffence_jax.metrics.epsilon_fdp import epsilon_lower_bound_fdp
from diffence_jax.metrics.intervals import (
  Estimate,
  balanced_accuracy,
  clopper_pearson,
  proportion,
  t_interval,
)
from diffence_jax.metrics.loss_tail import loss_tail
from diffence_jax.metrics.precision import precision
from diffence_jax.metrics.roc import Rate, Roc, roc
from diffence_jax.metrics.unlimited import Unlimited, unlimited_auc

__all__ = [
  "Band",
  "ClusteredRoc",
  "Estimate",
  "Rate",
  "Roc",
  "Unlimited",
  "accuracy",
  "balanced_accuracy",
  "benjamini_hochberg",
  "clopper_pearson",
  "clustered_band",
  "clustered_difference",
  "clustered_mean",
  "clustered_roc",
  "conformal_p_values",
  "epsilon_lower_bound",
  "epsilon_lower_bound_fdp",
  "expected_calibration_error",
  "false_discovery_bound",
  "jensen_shannon_distance",
  "label_changes",
  "loss_tail",
  "negative_log_likelihood",
  "precision",
  "proportion",
  "roc",
  "t_interval",
  "unlimited_auc",
]
