"""The frontier of a finished audit: all policies before its shadow models."""

import dataclasses
from collections.abc import Sequence

from diffence_jax.attacks import ATTACKS
from diffence_jax.audit.frontier import FrontierRow, frontier_row
from diffence_jax.audit.predictors import Predictor, policy_title
from diffence_jax.defense.policy import POLICIES, PUBLISHED, UNDEFENDED
from diffence_jax.experiment.plan import Experiment
from diffence_jax.experiment.run import usual_jax
from diffence_jax.experiment.sections import Settings
from diffence_jax.experiment.stages.shadow_audit import ShadowAudit
from diffence_jax.experiment.store import Store

# One by thresholds and two with shadow models; trees and networks over these take much longer.
ATTACKS_IN_TURN = ("confidence", "lira_online", "rmia_online")
# Of the calibrated mean in a blend; a weight of 0 is the policy "constant".
WEIGHTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def compared_predictors(settings: Settings, undefended: Predictor) -> tuple[Predictor, ...]:
  """All policies there are and the config's own, `blend` with every weight.

  Args:
    settings: the experiment's.
    undefended: the first.
  """
  left_out = {UNDEFENDED, "blend", *PUBLISHED.values()}
  names = [name for name in dict.fromkeys([*POLICIES.known, *settings.purify.policies])
           if name not in left_out]  # fmt: skip
  policies = [
    Predictor(policy_title(name), POLICIES.choose(name, settings.options("policies", name)))
    for name in names
  ]
  blends = [
    Predictor(f"blend {weight:g}", POLICIES.choose("blend", {"weight": weight}))
    for weight in WEIGHTS
  ]
  return (undefended, *policies, *blends)


@usual_jax()
def measure_frontier(
  experiment: Experiment, store: Store, groups: Sequence[str] = ("target",)
) -> dict[str, tuple[FrontierRow, ...]]:
  """Measures all policies on the record of a finished audit.

  Args:
    experiment: as `plan` makes it.
    store: as `open_store` makes it.
    groups: "target", the samples that reports are about; "known", those that policies were
      fitted on.

  Returns:
    A group to its rows.

  Raises:
    FileNotFoundError: the audit is not finished.
    ValueError: the config trains no shadow models, or there are too few samples or models.
    ArtifactError: an artifact is damaged.
  """
  stage = shadow_audit_of(experiment)
  predictors = compared_predictors(experiment.settings, stage.predictors[0])
  # Before anything is computed: all that is read.
  for needed in (stage.shadow_queries.shadow, stage.shadow_queries):
    store.open(needed)
  pool = stage.pool
  samples = {"target": pool.reported(stage.protocol), "known": pool.is_known & ~pool.is_canary}
  chosen = {group: samples[group] for group in groups}
  attacks = [ATTACKS.choose(name) for name in ATTACKS_IN_TURN]
  rows = {group: [] for group in groups}
  for predictor in predictors:
    # One at a time: what is read off all models' answers stays in memory.
    ensemble = dataclasses.replace(stage, predictors=(predictor,)).ensemble(store)
    for group, row in frontier_row(ensemble, predictor, attacks, chosen).items():
      rows[group].append(row)
  return {group: tuple(of_group) for group, of_group in rows.items()}


def shadow_audit_of(experiment: Experiment) -> ShadowAudit:
  """The stage of an experiment's attacks with shadow models.

  Raises:
    ValueError: it has none.
  """
  num_models = experiment.settings.shadow.num_models
  if experiment.shadow_audit is None:
    raise ValueError(
      f"shadow.num_models is {num_models}; the frontier is about every shadow model in turn: "
      "expected at least 6, as configs/digits.py:audit has, and a finished run."
    )
  return experiment.shadow_audit
