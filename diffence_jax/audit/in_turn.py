"""Every shadow model as the target of the others."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from diffence_jax import metrics
from diffence_jax.attacks import View, run_attack
from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.answers import DefendedEnsemble
from diffence_jax.audit.judge import LIMITS
from diffence_jax.named import Choice


def is_in_turn(choice: Choice) -> bool:
  """Whether an attack is run with every model in turn: models that are gone answer nothing."""
  declared = declaration_of(choice.name)
  return declared.in_turn and "ask" not in declared.needs


def pairs_of(membership: np.ndarray) -> np.ndarray:
  """The pair i[S] that every model is of; partners stand beside each other."""
  return np.arange(len(membership)) // 2


def views_in_turn(
  ensemble: DefendedEnsemble,
  name: str,
  at: int = 0,
  *,
  groups: np.ndarray | None = None,
  membership: np.ndarray | None = None,
  left: np.ndarray | None = None,
) -> Iterator[View]:
  """Every shadow model as the target in turn, asked `queries[at]` times, against the others.

  Its partner was trained on the very samples that it was not trained on: leaving out both
  leaves as many models with as without every sample, and nothing that gives the answer away.
  All models share re-generations: the more queries, the more of the noise do they have in
  common, which favours the attacker a little.

  Args:
    ensemble: the shadow models.
    name: the policy that they stand behind.
    at: the place among the numbers of queries.
    groups: i[S], the models of a target's group are left out; None for its pair.
    membership: bool[S,N], that attacks are told; None for the true one.
    left: bool[S], the models that there are, as targets and as shadow models; None for all.
  """
  models, pool = ensemble.at(name, at), ensemble.pool
  if membership is not None:
    models = models.relabelled(membership)
  groups = pairs_of(models.membership) if groups is None else groups
  left = np.ones(len(models), bool) if left is None else left
  for target in np.flatnonzero(left).tolist():
    yield View(
      lambda target=target: models[target],
      pool.labels,
      versions=ensemble.versions,
      statistic=lambda function, target=target: models.statistic(function)[target],
      is_known=pool.is_known,
      is_member=models.membership[target],
      shadows=models.take(left & (groups != groups[target])),
      images=ensemble.images,
      ids=pool.ids,
      seed=ensemble.seed,
      name=f"{name}/{target}",
    )


def scores_in_turn(
  ensemble: DefendedEnsemble,
  attacks: Sequence[Choice],
  name: str,
  at: int,
  *,
  groups: np.ndarray | None = None,
  membership: np.ndarray | None = None,
  left: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """Attack to its scores f64[S,N] of every model as the target, as `views_in_turn` has them."""
  scores = {choice.name: [] for choice in attacks}
  views = views_in_turn(ensemble, name, at, groups=groups, membership=membership, left=left)
  for view in views:
    for choice in attacks:
      scores[choice.name].append(run_attack(choice, view))
  return {attack: np.stack(of_models) for attack, of_models in scores.items()}


def figures_in_turn(
  choice: Choice,
  scores: np.ndarray,
  before: np.ndarray,
  membership: np.ndarray,
  samples: np.ndarray,
  *,
  jackknife: np.ndarray | None = None,
  jackknife_before: np.ndarray | None = None,
) -> dict[str, Any]:
  """What a row of an attack over all models tells, by the names of its fields.

  Args:
    choice: the attack.
    scores: f64[S,N], of every model in turn.
    before: f64[S,N], those that the AUC's change is to; `scores` itself for no change.
    membership: bool[S,N].
    samples: bool[N], those that the figures are about.
    jackknife: the AUCs f64[P] without each pair of models, where there are few; see
      `jackknife.without_each_pair`.
    jackknife_before: the same of `before`.
  """
  declared, models = declaration_of(choice.name), pairs_of(membership)
  scored, members = scores[:, samples], membership[:, samples]
  roc = metrics.clustered_roc(
    scored, members, models=models, limits=LIMITS, jackknife=jackknife
  )
  change = None
  if before is not scores:
    change = metrics.clustered_difference(
      scored,
      before[:, samples],
      members,
      models=models,
      jackknife_a=jackknife,
      jackknife_b=jackknife_before,
    )
  return {
    "attack": choice.name,
    "title": declared.title,
    "family": declared.family,
    "num_models": len(membership),
    "auc": roc.auc,
    "auc_change": change,
    "tpr_at_fpr": tuple(roc.tpr_at_fpr(limit) for limit in LIMITS),
  }
