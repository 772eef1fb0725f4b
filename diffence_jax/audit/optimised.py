"""What optimised queries reach beside the samples themselves, behind every policy."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from diffence_jax import metrics
from diffence_jax.attacks import run_attack
from diffence_jax.audit.answers import Answers, DefendedEnsemble
from diffence_jax.audit.in_turn import figures_in_turn, scores_in_turn
from diffence_jax.audit.jackknife import without_each_pair
from diffence_jax.audit.shadow import target_view
from diffence_jax.metrics import Estimate, Rate
from diffence_jax.named import Choice

# What is sent, as reports write it, in the order of a record.
SENT = ("the sample", "optimised", "optimised through re-generation")

# The group of samples that are asked about.
_JUDGED = "judged"


@dataclasses.dataclass(frozen=True)
class OptimisedRow:
  """What an attack reached by one kind of query, on the same samples and models as by others.

  Attributes:
    predictor: as tables write it.
    attack: as the config has it.
    title: the same, as reports write it.
    family: attacks of one kind.
    sent: one of `SENT`.
    queries: k, how often each query was sent.
    num_samples: how many samples were asked about.
    num_models: shadow models that were the target in turn, none of which the queries were
      optimised for.
    auc: over these models, with its interval over pairs of models and over samples.
    auc_change: to that of the sample itself, sent to the same predictor as often; None for it.
    tpr_at_fpr: at each of `judge.LIMITS`, over these models.
    target_auc: on the target, with its interval over samples.
  """

  predictor: str
  attack: str
  title: str
  family: str
  sent: str
  queries: int
  num_samples: int
  num_models: int
  auc: Estimate
  auc_change: Estimate | None
  tpr_at_fpr: tuple[Rate, ...]
  target_auc: Estimate


class Asked(NamedTuple):
  """The models' answers to one kind of query.

  Attributes:
    ensemble: the shadow models, of a pool without canaries: the known samples, which their
      policies are fitted on, and those that are asked about.
    target: predictor to the target's answers to the same.
  """

  ensemble: DefendedEnsemble
  target: Mapping[str, Answers]


def optimised_rows(asked: Mapping[str, Asked], attack: Choice) -> list[OptimisedRow]:
  """What every kind of query reaches, for every predictor and number of queries.

  Args:
    asked: what is sent to the answers to it, the sample itself first.
    attack: with shadow models.

  Returns:
    The rows.
  """
  rows = []
  first = next(iter(asked.values())).ensemble
  membership, judged = first.membership, ~first.pool.is_known
  is_member = first.pool.is_member[judged]
  for name in first.names:
    for at in range(first.num_queries(name)):
      before = jackknife_before = None
      for sent, (ensemble, target) in asked.items():
        scores = scores_in_turn(ensemble, [attack], name, at)[attack.name]
        found = without_each_pair(ensemble, [attack], name, at, {_JUDGED: judged})
        jackknife = found.of(attack.name, _JUDGED)
        if before is None:
          before, jackknife_before = scores, jackknife
        of_target = run_attack(attack, target_view(target[name], ensemble, name, at))[judged]
        on_target = metrics.roc(of_target[is_member], of_target[~is_member])
        rows.append(
          OptimisedRow(
            predictor=name,
            sent=sent,
            queries=ensemble.queries[at],
            num_samples=int(judged.sum()),
            target_auc=Estimate(on_target.auc, *on_target.auc_interval),
            **figures_in_turn(
              attack,
              scores,
              before,
              membership,
              judged,
              jackknife=jackknife,
              jackknife_before=jackknife_before,
            ),
          )
        )
  return rows
