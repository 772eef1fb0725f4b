"""Who knows what: thresholds learnt on known samples, figures reported on target samples."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from diffence_jax import metrics
from diffence_jax.attacks.published import PUBLISHED_ATTACKS
from diffence_jax.attacks.threshold import THRESHOLD_ATTACKS, correctness
from diffence_jax.metrics import Estimate, Roc


class Group(NamedTuple):
  """The answers of a predictor to one group of samples.

  Attributes:
    logits: f[N,K].
    labels: i[N], true labels.
  """

  logits: ArrayLike
  labels: ArrayLike


class Groups(NamedTuple):
  """The samples whose membership the attacker knows, and those it is after."""

  known_members: Group
  target_members: Group
  known_nonmembers: Group
  target_nonmembers: Group


def pool(first: Group, second: Group) -> Group:
  """One group of the samples of both."""
  return Group(*(np.concatenate([a, b]) for a, b in zip(first, second, strict=True)))


class AttackResult(NamedTuple):
  """One attack's success.

  Attributes:
    name: the attack.
    threshold: "global", or "per_class" where every class has its own.
    roc: on the reported samples.
    known_threshold_accuracy: balanced accuracy there of the threshold that was learnt on
      known samples; the ROC's own accuracy takes the best threshold in hindsight.
  """

  name: str
  threshold: str
  roc: Roc
  known_threshold_accuracy: Estimate


def run_threshold_attacks(groups: Groups, *, protocol: str = "disjoint") -> list[AttackResult]:
  """Runs all threshold attacks, with a global and with per-class thresholds.

  Args:
    groups: the predictor's answers.
    protocol: "disjoint" reports on target samples; "paper" pools known and target samples in
      one ROC of `PUBLISHED_ATTACKS`, as published, for comparison only.

  Returns:
    The gap attack (`correctness`), then two results for each of `THRESHOLD_ATTACKS`.

  Raises:
    ValueError: an unknown protocol, or shapes that do not fit.
  """
  if protocol not in ("disjoint", "paper"):
    raise ValueError(f"protocol is {protocol!r}; expected 'disjoint' or 'paper'.")
  num_classes = np.shape(groups.known_members.logits)[-1]
  sides = (
    (groups.known_members, groups.target_members),
    (groups.known_nonmembers, groups.target_nonmembers),
  )
  known = [side[0] for side in sides]
  reported = [side[1] if protocol == "disjoint" else pool(*side) for side in sides]
  right = [[correctness(*group) for group in groups] for groups in (known, reported)]
  results = [_result("correctness", "global", *right)]
  attacks = THRESHOLD_ATTACKS if protocol == "disjoint" else PUBLISHED_ATTACKS
  for name, attack in attacks.items():
    known_scores = [attack(*group) for group in known]
    scores = [attack(*group) for group in reported]
    results.append(_result(name, "global", known_scores, scores))
    thresholds = class_thresholds(
      *known_scores, *(group.labels for group in known), num_classes=num_classes
    )
    shifted = [
      [s - thresholds[np.asarray(g.labels)] for s, g in zip(ss, gs, strict=True)]
      for ss, gs in ((known_scores, known), (scores, reported))
    ]
    results.append(_result(name, "per_class", *shifted))
  return results


def scored_attack(
  name: str, scores: Mapping[str, np.ndarray], *, protocol: str = "disjoint"
) -> AttackResult:
  """The success of any attack that has scored the four groups, with a global threshold.

  Args:
    name: the attack.
    scores: f64[N] for each group of `Groups` by name.
    protocol: as in `run_threshold_attacks`.

  Returns:
    The result.
  """
  known = [scores["known_members"], scores["known_nonmembers"]]
  reported = [scores["target_members"], scores["target_nonmembers"]]
  if protocol == "paper":
    reported = [np.concatenate(pair) for pair in zip(known, reported, strict=True)]
  return _result(name, "global", known, reported)


def class_thresholds(
  member_scores: np.ndarray,
  nonmember_scores: np.ndarray,
  member_labels: ArrayLike,
  nonmember_labels: ArrayLike,
  *,
  num_classes: int,
) -> np.ndarray:
  """For every class the threshold of the best balanced accuracy on known samples.

  Args:
    member_scores: f64[N], of known members.
    nonmember_scores: f64[N'], of known non-members.
    member_labels: i[N].
    nonmember_labels: i[N'].
    num_classes: K.

  Returns:
    f64[K]; a class without known members or without known non-members has the threshold that
    is best for all classes together.
  """
  member_labels, nonmember_labels = np.asarray(member_labels), np.asarray(nonmember_labels)
  shared = metrics.roc(member_scores, nonmember_scores).best_threshold
  thresholds = np.full(num_classes, shared)
  for label in np.intersect1d(member_labels, nonmember_labels):
    thresholds[label] = metrics.roc(
      member_scores[member_labels == label], nonmember_scores[nonmember_labels == label]
    ).best_threshold
  return thresholds


def threshold_accuracy(
  member_scores: np.ndarray, nonmember_scores: np.ndarray, threshold: float
) -> Estimate:
  """The balanced accuracy of a given threshold: a member is who scores at least that."""
  return metrics.balanced_accuracy(
    int(np.sum(member_scores >= threshold)),
    len(member_scores),
    int(np.sum(nonmember_scores >= threshold)),
    len(nonmember_scores),
  )


def _result(name, threshold, known_scores, scores):
  learnt = metrics.roc(*known_scores).best_threshold
  return AttackResult(
    name, threshold, metrics.roc(*scores), threshold_accuracy(*scores, learnt)
  )
