"""The frontier between privacy and usefulness: every policy before the same shadow models.

Each model is attacked in turn, asked once and as often as was recorded. Usefulness is on
non-members, the mean over models. Networks, re-generations and attackers are the same for all
policies: only the rule of what is answered differs.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.answers import DefendedEnsemble
from diffence_jax.audit.in_turn import pairs_of, scores_in_turn
from diffence_jax.audit.jackknife import Jackknife, without_each_pair
from diffence_jax.audit.predictors import ModelRecord, Predictor, name_undone
from diffence_jax.metrics import (
  Estimate,
  Rate,
  Unlimited,
  clustered_mean,
  clustered_roc,
  roc,
  unlimited_auc,
)
from diffence_jax.metrics.calibration import calibration_gap
from diffence_jax.named import Choice

# The false-positive rate at which attacks are told besides their AUC.
LIMIT = 0.01
_TEMPERATURES = np.geomspace(0.2, 5.0, 33)
_RAW_TEMPERATURE = int(np.argmin(np.abs(_TEMPERATURES - 1.0)))
# Probabilities of less count as this: one wrong answer is not to decide a mean.
_LEAST = 1e-7
# What `usefulness` reads, in front of the likelihoods.
_RIGHT, _SURE, _INVERSE, _FIRST_NLL = range(4)


@dataclasses.dataclass(frozen=True)
class Strongest:
  """The most that attacks reached.

  Attributes:
    attack: the one with the highest AUC, as reports write it.
    queries: how often it asked.
    auc: its AUC, with its interval over pairs of models and over samples.
    tpr: the highest TPR at 1% FPR of all attacks.
  """

  attack: str
  queries: int
  auc: Estimate
  tpr: Rate


class Drawing(NamedTuple):
  """How candidates are drawn.

  Attributes:
    step: T, diffusion steps of noise.
    num_candidates: N, that the defense draws for a query.
  """

  step: int
  num_candidates: int


@dataclasses.dataclass(frozen=True)
class FrontierRow:
  """What a policy leaves to attacks, and how useful it is.

  Attributes:
    name: as tables write it.
    policy: as the config has it.
    options: the policy's.
    drawing: how its candidates are drawn; None where it draws none.
    accuracy: the mean over models, with its interval over pairs of models and over samples; of
      non-members, as all that follow.
    nll: negative log-likelihood in nats, of probabilities of at least 1e-7.
    calibrated_nll: the same after a temperature that known non-members chose, one a model.
    ece: expected calibration error.
    risk_coverage: area under the risk-coverage curve: the mean error where only the surest are
      answered, over all shares of them.
    most_queries: how often attacks asked at most; an answer that never changes but once.
    once: with one query.
    often: with any number of queries that was tried.
    unlimited: what the AUC goes to with ever more queries, the highest of all attacks.
    out_of_distribution: how well images of another data set are told by the largest probability
      of their answer (Hendrycks and Gimpel 2017): the AUC against non-members, the mean over
      models. None where there are none.
  """

  name: str
  policy: str
  options: Mapping[str, Any]
  drawing: Drawing | None
  accuracy: Estimate
  nll: Estimate
  calibrated_nll: Estimate
  ece: float
  risk_coverage: float
  most_queries: int
  once: Strongest
  often: Strongest
  unlimited: Unlimited
  out_of_distribution: float | None = None


def usefulness(logits: np.ndarray, labels: np.ndarray, versions: int) -> np.ndarray:
  """What is read off a model's answers for every sample, of the first one where not said.

  Args:
    logits: f[N,Q,K].
    labels: i[N], true labels.
    versions: A, the versions of an image that the Q answers are to.

  Returns:
    f64[N,3+T]: whether the answer is right, its largest probability, one over the number of
    different answers to a version, and its negative log-likelihoods at T temperatures.
  """
  first, rows = np.asarray(logits[:, 0], np.float64), np.arange(len(labels))
  largest = first.argmax(axis=-1)
  log_p = scipy.special.log_softmax(first, axis=-1)
  nll = [
    -scipy.special.log_softmax(first / temperature, axis=-1)[rows, labels]
    for temperature in _TEMPERATURES
  ]
  # Answers are told apart by a sum of all their classes.
  marks = np.sqrt(np.arange(2, first.shape[-1] + 2))
  marked = np.sort((np.asarray(logits, np.float64) * marks).sum(axis=-1), axis=1)
  distinct = 1 + np.count_nonzero(np.diff(marked, axis=1), axis=1)
  inverse = np.minimum(versions / distinct, 1.0)
  sure = np.exp(log_p[rows, largest])
  columns = [largest == labels, sure, inverse, *np.minimum(nll, -np.log(_LEAST))]
  return np.stack(columns, axis=1)


def risk_coverage_area(is_right: np.ndarray, confidence: np.ndarray) -> float:
  """The area under the risk-coverage curve (Geifman et al. 2019), of bool[N] and f[N].

  The mean, over n = 1 to N, of the error among the n surest; of equals the first are surer.
  """
  right = is_right[np.argsort(-confidence, kind="stable")]
  return float(np.mean(1.0 - np.cumsum(right) / np.arange(1, len(right) + 1)))


class Scored(NamedTuple):
  """What attacks make of all models' answers; an entry for every number of queries.

  Attributes:
    scores: attack to f64[S,N], of every model in turn.
    inverse: f64[S,N], one over the number of different answers.
    jackknife: what attacks find without each pair, where there are few models.
  """

  scores: list[dict[str, np.ndarray]]
  inverse: list[np.ndarray]
  jackknife: list[Jackknife]


def score_all(
  ensemble: DefendedEnsemble,
  attacks: Sequence[Choice],
  name: str,
  groups: Mapping[str, np.ndarray],
) -> Scored:
  """Attacks every model in turn behind a policy, as often as it is asked.

  Args:
    ensemble: the shadow models.
    attacks: those that can be run with every model in turn.
    name: the policy.
    groups: name to bool[N], the samples that figures will be about.
  """
  numbers = range(ensemble.num_queries(name))
  return Scored(
    [scores_in_turn(ensemble, attacks, name, at) for at in numbers],
    [ensemble.at(name, at).statistic(usefulness)[..., _INVERSE] for at in numbers],
    [without_each_pair(ensemble, attacks, name, at, groups) for at in numbers],
  )


def frontier_row(
  ensemble: DefendedEnsemble,
  predictor: Predictor,
  attacks: Sequence[Choice],
  groups: Mapping[str, np.ndarray],
  drawing: Drawing,
  read_others: Callable[[int], ModelRecord] | None = None,
  undone: Scored | None = None,
) -> dict[str, FrontierRow]:
  """Measures a predictor on groups of samples.

  Args:
    ensemble: the shadow models behind it, in pairs that are each other's complement.
    predictor: which.
    attacks: those that can be run with every model in turn.
    groups: a group's name to bool[N], the samples that its figures are about.
    drawing: how the candidates of the ensemble are drawn.
    read_others: model to its recorded answers to images of another data set; None for none.
    undone: what attacks make of the answers that come out where the policy is undone, too; of
      these groups.

  Returns:
    A group's name to its row.

  Raises:
    ValueError: a group has no member or no non-member of some model, or there is one pair of
      models only.
  """
  _check_groups(groups, ensemble.membership)
  scored = {"": score_all(ensemble, attacks, predictor.name, groups)}
  if undone:
    scored[name_undone("")] = undone
  read = ensemble.at(predictor.name, 0).statistic(usefulness)
  others = (
    read_others
    and ensemble.statistic_of_others(usefulness, predictor.name, read_others)[..., _SURE]
  )
  return {
    group: FrontierRow(
      name=predictor.name,
      policy=predictor.policy.name,
      options=dict(predictor.policy.options),
      drawing=drawing if ensemble.draws(predictor.name) else None,
      most_queries=max(ensemble.queries),
      **_useful(read.astype(np.float64), others, ensemble, samples),
      **_private(scored, ensemble, group, samples),
    )
    for group, samples in groups.items()
  }


def _check_groups(groups, membership):
  for group, samples in groups.items():
    members = membership[:, samples]
    if members.all(axis=1).any() or not members.any(axis=1).all():
      raise ValueError(
        f"Of the {int(samples.sum())} {group} samples some model was trained with all or none; "
        "expected members and non-members of every model: raise data.num_members and "
        "data.num_nonmembers."
      )


def _useful(read, others, ensemble, samples):
  """The figures of usefulness of `FrontierRow`.

  Args:
    read: f64[S,N,3+T], what `usefulness` read.
    others: f[S,M], the largest probabilities of other images; None for none.
    ensemble: the shadow models.
    samples: bool[N].
  """
  membership, pairs = ensemble.membership, pairs_of(ensemble.membership)
  judged = samples & ~membership
  nll = read[..., _FIRST_NLL:]
  fitted = ensemble.pool.is_known & ~membership
  best = [of_model[rows].mean(axis=0).argmin()
          for of_model, rows in zip(nll, fitted, strict=True)]  # fmt: skip
  calibrated = nll[np.arange(len(nll)), :, best]
  right, sure = read[..., _RIGHT], read[..., _SURE]
  by_model = [(right[s, rows], sure[s, rows]) for s, rows in enumerate(judged)]
  return {
    "accuracy": clustered_mean(right, judged, models=pairs, is_share=True),
    "nll": _at_least_0(clustered_mean(nll[..., _RAW_TEMPERATURE], judged, models=pairs)),
    "calibrated_nll": _at_least_0(clustered_mean(calibrated, judged, models=pairs)),
    "ece": float(np.mean([calibration_gap(p, is_right) for is_right, p in by_model])),
    "risk_coverage": float(np.mean([risk_coverage_area(*model) for model in by_model])),
    "out_of_distribution": None
    if others is None
    else float(
      np.mean([roc(p, other).auc for (_, p), other in zip(by_model, others, strict=True)])
    ),
  }


def _at_least_0(estimate: Estimate) -> Estimate:
  return estimate._replace(low=max(estimate.low, 0.0))


def _private(scored, ensemble, group, samples):
  """The figures of privacy of `FrontierRow`.

  Args:
    scored: `Scored` by what stands behind an attack's title.
    ensemble: the shadow models.
    group: the name of these samples.
    samples: bool[N].
  """
  members, pairs = ensemble.membership[:, samples], pairs_of(ensemble.membership)
  reached, limits = [], []
  for behind, (scores, inverse, jackknife) in scored.items():
    shares = [values[:, samples].mean() for values in inverse]
    for attack in scores[0]:
      of_attack = [of_queries[attack][:, samples] for of_queries in scores]
      anew = [of_queries.of(attack, group) for of_queries in jackknife]
      title = f"{declaration_of(attack).title}{behind}"
      for k, scores_of_k, without in zip(ensemble.queries, of_attack, anew, strict=False):
        roc = clustered_roc(
          scores_of_k, members, models=pairs, limits=(LIMIT,), jackknife=without
        )
        reached.append(Strongest(title, k, roc.auc, roc.tpr_at_fpr(LIMIT)))
      anew = None if anew[0] is None else anew
      limits.append(unlimited_auc(of_attack, shares, members, models=pairs, jackknife=anew))
  return {
    "once": _strongest([figure for figure in reached if figure.queries == 1]),
    "often": _strongest(reached),
    "unlimited": max(limits, key=lambda limit: limit.auc.value),
  }


def _strongest(reached):
  best = max(reached, key=lambda figure: figure.auc.value)
  rate = max((figure.tpr for figure in reached), key=lambda rate: rate.value)
  return dataclasses.replace(best, tpr=rate)


def is_dominated(row: FrontierRow, rows: Sequence[FrontierRow]) -> bool:
  """Whether another is at least as useful and as private, and not the same in both.

  By calibrated negative log-likelihood, and AUC with any number of queries.
  """
  place = lambda of: (of.calibrated_nll.value, of.often.auc.value)
  here = place(row)
  others = [place(other) for other in rows]
  return any(nll <= here[0] and auc <= here[1] and (nll, auc) != here for nll, auc in others)
