"""The worst case: single examples that stand out, and lower bounds on epsilon."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import scipy.stats

from diffence_jax import metrics
from diffence_jax.audit.pool import Pool

# A bound on epsilon takes seconds, and is of one model.
_EPSILON_MODELS = 4
_QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclasses.dataclass(frozen=True)
class VulnerabilityRow:
  """How far single examples stand out: quantiles of every example's own AUC over models.

  Attributes:
    predictor: as tables write it.
    num_examples: how many there are.
    auc_quantiles: quantile to AUC.
    auc_quantiles_by_chance: the same with memberships drawn at random: an AUC of few models
      scatters.
  """

  predictor: str
  num_examples: int
  auc_quantiles: Mapping[str, float]
  auc_quantiles_by_chance: Mapping[str, float]


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
  """

  predictor: str
  num_models: int
  num_samples: int
  first: float
  lowest: float
  highest: float


def vulnerability(
  name: str, scores: np.ndarray, membership: np.ndarray, pool: Pool, seed: int
) -> VulnerabilityRow:
  """How far single examples stand out, canaries apart.

  Args:
    name: of the predictor.
    scores: f64[S,N], of every model in turn.
    membership: bool[S,N].
    pool: the samples.
    seed: of the memberships that are drawn at random.
  """
  scores, membership = scores[:, ~pool.is_canary], membership[:, ~pool.is_canary]
  shuffled = np.random.default_rng(seed).permuted(membership, axis=0)

  def describe(members):
    quantiles = np.quantile(example_aucs(scores, members), _QUANTILES).tolist()
    return dict(zip(map(str, _QUANTILES), quantiles, strict=True))

  return VulnerabilityRow(name, scores.shape[1], describe(membership), describe(shuffled))


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
  return EpsilonRow(name, len(bounds), scores.shape[1], bounds[0], min(bounds), max(bounds))


def example_aucs(scores: np.ndarray, membership: np.ndarray) -> np.ndarray:
  """For every example the AUC f64[N] of its scores by models with it against those without.

  Args:
    scores: f64[S,N].
    membership: bool[S,N], of every example models with it and models without.

  Raises:
    ValueError: an example has models of one side only.
  """
  if (one_sided := membership.all(axis=0) | ~membership.any(axis=0)).any():
    raise ValueError(
      f"{one_sided.sum()} examples are members of all models or of none, the first at index "
      f"{np.argmax(one_sided)}; expected models of both kinds."
    )
  ranks = scipy.stats.rankdata(scores, axis=0)
  count = membership.sum(axis=0)
  above = np.sum(ranks * membership, axis=0) - count * (count + 1) / 2.0
  return above / (count * (len(membership) - count))
