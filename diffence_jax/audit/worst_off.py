"""The worst case: single examples that stand out, and lower bounds on epsilon."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from diffence_jax import metrics
from diffence_jax.audit.answers import DefendedEnsemble
from diffence_jax.audit.in_turn import pairs_of, scores_in_turn
from diffence_jax.metrics.epsilon_fdp import CURVES
from diffence_jax.metrics.per_example import (
  ExampleAucs,
  Quantile,
  auc_quantiles,
  example_aucs,
  model_folds,
  permuted_in_folds,
)
from diffence_jax.named import Choice

# A bound on epsilon takes seconds, and is of one model.
_EPSILON_MODELS = 4
_QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclasses.dataclass(frozen=True)
class VulnerabilityRow:
  """How far single examples stand out: quantiles of every example's own AUC over models.

  Attributes:
    predictor: as tables write it.
    num_examples: how many there are.
    auc_quantiles: quantile to AUC, with its interval and what chance gives: an AUC of few
      models scatters.
  """

  predictor: str
  num_examples: int
  auc_quantiles: Mapping[str, Quantile]


@dataclasses.dataclass(frozen=True)
class EpsilonRow:
  """Lower bounds on epsilon for the first models.

  Each is a 95% bound of one training run, whose samples, the canaries among them, were made
  members by chance. Neither the highest nor the lowest of several is one.

  Attributes:
    predictor: as tables write it.
    num_models: how many bounds there are.
    num_samples: on so many samples.
    first: the bound of the first run.
    lowest: the least of all.
    highest: the largest of all.
    first_fdp: the bound of the first run by f-DP (`metrics.epsilon_lower_bound_fdp`).
    first_gaussian: the same; a bound only if the training's trade-off is Gaussian.
  """

  predictor: str
  num_models: int
  num_samples: int
  first: float
  lowest: float
  highest: float
  first_fdp: float
  first_gaussian: float


def vulnerability(
  name: str, ensemble: DefendedEnsemble, attack: Choice
) -> tuple[VulnerabilityRow, ExampleAucs]:
  """How far single examples stand out at one query, canaries apart.

  The attack is run fold by fold (`metrics.per_example`), and once more with memberships that
  are drawn at random: chance goes through the same attack.

  Args:
    name: of the predictor.
    ensemble: the shadow models; its seed is that of the memberships drawn at random.
    attack: which is run with every model in turn.

  Returns:
    The row, and the AUC of every example that is no canary.

  Raises:
    ValueError: no example has models with it and models without it that can be compared.
  """
  natural, membership = ~ensemble.pool.is_canary, ensemble.membership
  folds = model_folds(pairs_of(membership), membership)
  drawn = permuted_in_folds(membership, folds, np.random.default_rng(ensemble.seed))
  aucs = []
  for members in (membership, drawn):
    scored = scores_in_turn(ensemble, [attack], name, 0, groups=folds, membership=members)
    scores = scored[attack.name][:, natural]
    aucs.append((scores, example_aucs(scores, members[:, natural], folds)))
  (scores, of_examples), (_, by_chance) = aucs
  num = int((~np.isnan(of_examples.auc)).sum())
  if not num:
    raise ValueError(
      "No example has models that were trained with it beside models that were not; expected "
      "models of both kinds."
    )
  quantiles = auc_quantiles(scores, membership[:, natural], folds, by_chance.auc, _QUANTILES)
  row = VulnerabilityRow(name, num, dict(zip(map(str, _QUANTILES), quantiles, strict=True)))
  return row, of_examples


def epsilon(name: str, scores: np.ndarray, membership: np.ndarray) -> EpsilonRow:
  """Lower bounds for the first models; they need jax-privacy.

  Args:
    name: of the predictor.
    scores: f64[S,N], of every model in turn.
    membership: bool[S,N].
  """
  bounds = [
    metrics.epsilon_lower_bound(of_model[members], of_model[~members])
    for of_model, members in zip(scores[:_EPSILON_MODELS], membership, strict=False)
  ]
  first = scores[0][membership[0]], scores[0][~membership[0]]
  by_curve = (metrics.epsilon_lower_bound_fdp(*first, curve=curve) for curve in CURVES)
  scattered = bounds[0], min(bounds), max(bounds)
  return EpsilonRow(name, len(bounds), scores.shape[1], *scattered, *by_curve)
