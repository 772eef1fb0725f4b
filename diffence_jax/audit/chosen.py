"""The best single attack, chosen on other models than the one that it is run on."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.stats

from diffence_jax import metrics
from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.judge import LIMITS
from diffence_jax.metrics import Estimate, Rate

_SIDES = ("left", "right")


class ChosenAttack(NamedTuple):
  """An attack that was chosen.

  Attributes:
    attack: as the config has it.
    title: the same, as reports write it.
    num_models: for so many targets.
  """

  attack: str
  title: str
  num_models: int


@dataclasses.dataclass(frozen=True)
class ChosenRow:
  """What an attacker reaches that chooses its attack, and its threshold's scale, elsewhere.

  Attributes:
    predictor: as tables write it.
    num_models: S.
    attacks: those that were chosen.
    auc: over all models as targets, with its interval over pairs of models and over samples.
    tpr_at_fpr: at each of `judge.LIMITS`.
  """

  predictor: str
  num_models: int
  attacks: tuple[ChosenAttack, ...]
  auc: Estimate
  tpr_at_fpr: tuple[Rate, ...]


def chosen_elsewhere(
  name: str,
  scores: Mapping[str, np.ndarray],
  membership: np.ndarray,
  pairs: np.ndarray,
  *,
  jackknife: np.ndarray | None = None,
) -> ChosenRow:
  """For each target the attack with the highest mean AUC on all models but its pair.

  The highest figure of many attacks is selected on the very scores that it is reported on;
  this one is not. Scores of different attacks are made comparable by the other models too: a
  score stands for the share of their non-members that the same attack gives a lower one.

  Args:
    name: of the predictor.
    scores: attack to f64[S,N] of the reported samples, of every model in turn.
    membership: bool[S,N].
    pairs: i[S], models that are not independent.
    jackknife: f64[P], the AUC without each pair, where there are few models; as of
      `metrics.clustered_roc`.
  """
  attacks = list(scores)
  aucs = np.stack([_aucs(scores[attack], membership) for attack in attacks])
  placed, times = np.empty(membership.shape), dict.fromkeys(attacks, 0)
  for pair in np.unique(pairs):
    others, targets = pairs != pair, np.flatnonzero(pairs == pair)
    best = attacks[int(np.argmax(aucs[:, others].mean(axis=1)))]
    times[best] += len(targets)
    nonmembers = np.sort(scores[best][others][~membership[others]])
    sides = (np.searchsorted(nonmembers, scores[best][targets], side) for side in _SIDES)
    placed[targets] = sum(sides) / (2.0 * len(nonmembers))
  roc = metrics.clustered_roc(
    placed, membership, models=pairs, limits=LIMITS, jackknife=jackknife
  )
  rates = tuple(roc.tpr_at_fpr(limit) for limit in LIMITS)
  chosen = tuple(
    ChosenAttack(attack, declaration_of(attack).title, num)
    for attack, num in times.items()
    if num
  )
  return ChosenRow(name, len(membership), chosen, roc.auc, rates)


def _aucs(scores, membership):
  """The AUC f64[S] of every model."""
  count = membership.sum(axis=1)
  ranks = scipy.stats.rankdata(scores, axis=1)
  above = np.sum(ranks * membership, axis=1) - count * (count + 1) / 2.0
  return above / np.maximum(count * (membership.shape[1] - count), 1)
