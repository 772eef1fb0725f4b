"""Attacks with shadow models on every predictor: on the target, and on each model in turn."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from diffence_jax import metrics
from diffence_jax.attacks import View, run_attack
from diffence_jax.attacks.attack import declaration_of
from diffence_jax.audit.answers import Answers, DefendedEnsemble
from diffence_jax.audit.chosen import ChosenRow, chosen_elsewhere
from diffence_jax.audit.discoveries import NamedRow, who_can_be_named
from diffence_jax.audit.in_turn import figures_in_turn, pairs_of, scores_in_turn
from diffence_jax.audit.in_turn_file import Keep
from diffence_jax.audit.jackknife import without_each_pair
from diffence_jax.audit.judge import LIMITS
from diffence_jax.audit.worst_off import EpsilonRow, VulnerabilityRow, epsilon, vulnerability
from diffence_jax.metrics import Estimate, Rate
from diffence_jax.named import Choice

# The group of samples that are no canaries, beside the kinds of those.
_NATURAL = "samples"


@dataclasses.dataclass(frozen=True)
class TargetRow:
  """What an attack reached on the target.

  Attributes:
    predictor: as tables write it.
    attack: as the config has it.
    title: the same, as reports write it.
    family: attacks of one kind.
    queries: k, how often each image was asked about.
    inputs: what was sent: the "same" image every time, or "near duplicates" of it.
    shadow_models: "defended", or "raw": asked without the defense.
    auc: with its interval over samples.
    tpr_at_fpr: at each of `judge.LIMITS`.
  """

  predictor: str
  attack: str
  title: str
  family: str
  queries: int
  inputs: str
  shadow_models: str
  auc: Estimate
  tpr_at_fpr: tuple[Rate, ...]


@dataclasses.dataclass(frozen=True)
class InTurnRow:
  """What an attack reached with every shadow model as the target in turn.

  Attributes:
    predictor: as tables write it.
    attack: as the config has it.
    title: the same, as reports write it.
    family: attacks of one kind.
    queries: k, how often each image was asked about.
    num_models: S.
    auc: with its interval over pairs of models and over samples.
    auc_change: to the undefended predictor's, at one query; None for that itself.
    tpr_at_fpr: at each of `judge.LIMITS`.
  """

  predictor: str
  attack: str
  title: str
  family: str
  queries: int
  num_models: int
  auc: Estimate
  auc_change: Estimate | None
  tpr_at_fpr: tuple[Rate, ...]


@dataclasses.dataclass(frozen=True)
class CanaryRow(InTurnRow):
  """The same, on the canaries of one kind.

  Attributes:
    kind: as reports write it.
  """

  kind: str


@dataclasses.dataclass(frozen=True)
class ShadowTables:
  """All that attacks with shadow models found.

  Attributes:
    main_attack: the one that figures, single examples and bounds are of, chosen beforehand.
    main_title: the same, as reports write it.
    adaptive: about the target.
    samples: about every shadow model in turn.
    canaries: the same, on the canaries of each kind.
    label_floor: the same as `samples`, behind an answer that tells the label alone, at one
      query; see `audit.label_floor`.
    vulnerability: how far single examples stand out.
    chosen: the best single attack, chosen on other models than it is run on.
    named: how many members an attacker can name at a false discovery rate.
    epsilon: lower bounds; empty without jax-privacy.
    reused: predictor to what was asked ("target", "shadow", "near_duplicates") to the share of
      images for which too few answers were recorded.
  """

  main_attack: str
  main_title: str
  adaptive: tuple[TargetRow, ...]
  samples: tuple[InTurnRow, ...]
  canaries: tuple[CanaryRow, ...]
  label_floor: tuple[InTurnRow, ...]
  vulnerability: tuple[VulnerabilityRow, ...]
  chosen: tuple[ChosenRow, ...]
  named: tuple[NamedRow, ...]
  epsilon: tuple[EpsilonRow, ...]
  reused: Mapping[str, Mapping[str, float]]


def target_view(
  answers: Answers,
  ensemble: DefendedEnsemble,
  shadow_name: str,
  at: int,
) -> View:
  """The target against the shadow models, all asked `queries[at]` times.

  The canaries are left out: the target's answers are to the pool without them.

  Args:
    answers: the target's, behind one policy.
    ensemble: the shadow models.
    shadow_name: the policy that they stand behind.
    at: the place among the numbers of queries.
  """
  natural = ~ensemble.pool.is_canary
  pool, k = ensemble.pool.natural, ensemble.queries[at]
  shadows = ensemble.at(shadow_name, at).take(slice(None), natural)
  return View(
    lambda: answers.of(k),
    pool.labels,
    versions=answers.versions,
    statistic=lambda function: answers.statistic(function, k),
    is_known=pool.is_known,
    is_member=pool.is_member,
    shadows=shadows,
    images=ensemble.natural_images,
    ids=pool.ids,
    seed=ensemble.seed,
    name=shadow_name,
  )


def target_rows(
  target: Mapping[str, Answers],
  ensemble: DefendedEnsemble,
  attacks: Sequence[Choice],
  *,
  reported: np.ndarray,
  inputs: str = "same",
) -> list[TargetRow]:
  """What repeating a query gains on every predictor, for the target.

  Args:
    target: predictor to the target's answers to the pool without the canaries, the undefended
      one first.
    ensemble: the shadow models.
    attacks: those that are run.
    reported: bool[N], of the pool without the canaries: the samples that figures are about.
    inputs: as in `TargetRow`.

  Returns:
    One row for every predictor, number of queries and attack; those that need shadow models
    once more with shadow models that are asked without the defense.
  """
  rows = []
  undefended = ensemble.names[0]
  is_member = ensemble.pool.natural.is_member
  for name, answers in target.items():
    asked = {"defended": name}
    if name != undefended:
      asked["raw"] = undefended
    for at in range(ensemble.num_queries(name)):
      for models, shadow_name in asked.items():
        view = target_view(answers, ensemble, shadow_name, at)
        for choice in attacks:
          declared = declaration_of(choice.name)
          if models == "raw" and "shadows" not in declared.needs:
            continue
          scores = run_attack(choice, view)
          roc = metrics.roc(scores[reported & is_member], scores[reported & ~is_member])
          rows.append(
            TargetRow(
              predictor=name,
              attack=choice.name,
              title=declared.title,
              family=declared.family,
              queries=ensemble.queries[at],
              inputs=inputs,
              shadow_models=models,
              auc=Estimate(roc.auc, *roc.auc_interval),
              tpr_at_fpr=tuple(roc.tpr_at_fpr(limit) for limit in LIMITS),
            )
          )
  return rows


def in_turn_tables(
  ensemble: DefendedEnsemble,
  attacks: Sequence[Choice],
  main_attack: Choice,
  *,
  reported: np.ndarray,
  has_epsilon: bool,
  canaries: Mapping[str, np.ndarray] | None = None,
  keep: Keep | None = None,
) -> tuple[dict[str, list], dict[str, np.ndarray]]:
  """Figures pooled over all shadow models as targets, each against all pairs but its own.

  There are S times as many scores as for the target alone, so low false-positive rates can be
  told; the intervals are about other pairs of models and other samples.

  Args:
    ensemble: the shadow models.
    attacks: those that are run, `main_attack` among them.
    main_attack: the one that the arrays, single examples and bounds are of.
    reported: bool[N], the samples that figures are about; canaries have a table of their own.
    has_epsilon: whether there are bounds on epsilon; they need jax-privacy.
    canaries: kind to bool[N], its canaries; None without any.
    keep: is given the scores f64[S,N] of every predictor and attack, at the first number of
      queries, as they come; None: they are not kept.

  Returns:
    "samples": `InTurnRow`s; "canaries": `CanaryRow`s, at one query only; "vulnerability",
    "chosen", "named" and "epsilon": a row a predictor. And the arrays of the figures, for every
    predictor p the ROC of the main attack with its band: "p/loo_fpr", "p/loo_tpr",
    "p/loo_low", "p/loo_high"; and every natural example's own AUC f64[n] with its interval:
    "p/example_auc", "p/example_low", "p/example_high".
  """
  names = ("samples", "canaries", "vulnerability", "chosen", "named", "epsilon")
  tables, arrays, undefended = {table: [] for table in names}, {}, {}
  pool, membership = ensemble.pool, ensemble.membership
  natural = ~pool.is_canary & reported
  of_natural = {_NATURAL: natural} if natural.any() else {}
  for name in ensemble.names:
    for at in range(ensemble.num_queries(name)):
      scores = scores_in_turn(ensemble, attacks, name, at)
      groups = of_natural | ({} if at else dict(canaries or {}))
      chosen_on = None if at else _NATURAL
      jackknife = without_each_pair(ensemble, attacks, name, at, groups, chosen_on=chosen_on)
      asked = {"predictor": name, "queries": ensemble.queries[at]}
      for choice in attacks:
        scored = scores[choice.name]
        if keep and not at:
          keep(name, choice.name, scored)
        before, jackknife_before = undefended.setdefault(choice.name, (scored, jackknife))
        for group, samples in groups.items():
          figures = figures_in_turn(
            choice,
            scored,
            before,
            membership,
            samples,
            jackknife=jackknife.of(choice.name, group),
            jackknife_before=jackknife_before.of(choice.name, group),
          )
          if group == _NATURAL:
            tables["samples"].append(InTurnRow(**asked, **figures))
          else:
            tables["canaries"].append(CanaryRow(**asked, **figures, kind=group))
      if not at:
        rows, of_predictor = _at_one_query(
          ensemble, name, scores, main_attack, natural, jackknife.chosen
        )
        arrays |= of_predictor
        if has_epsilon:
          rows["epsilon"] = epsilon(name, scores[main_attack.name], membership)
        for table, row in rows.items():
          tables[table].append(row)
  return tables, arrays


def samples_in_turn(
  ensemble: DefendedEnsemble,
  name: str,
  attacks: Sequence[Choice],
  reported: np.ndarray,
  keep: Keep | None = None,
) -> list[InTurnRow]:
  """The rows "samples" of one predictor alone, at the first number of queries.

  Args:
    ensemble: the shadow models.
    name: of the predictor; no change to another's is told.
    attacks: those that are run.
    reported: bool[N], as of `in_turn_tables`.
    keep: the same.
  """
  natural, membership = ~ensemble.pool.is_canary & reported, ensemble.membership
  if not natural.any():
    return []
  scores = scores_in_turn(ensemble, attacks, name, 0)
  for attack, scored in scores.items() if keep else ():
    keep(name, attack, scored)
  jackknife = without_each_pair(ensemble, attacks, name, 0, {_NATURAL: natural})
  asked = {"predictor": name, "queries": ensemble.queries[0]}
  rows = []
  for choice in attacks:
    scored, anew = scores[choice.name], jackknife.of(choice.name, _NATURAL)
    figures = figures_in_turn(choice, scored, scored, membership, natural, jackknife=anew)
    rows.append(InTurnRow(**asked, **figures))
  return rows


def _at_one_query(ensemble, name, scores, main_attack, natural, chosen_anew):
  """The rows of a predictor that are about one query alone, by table, and its arrays."""
  row, aucs = vulnerability(name, ensemble, main_attack)
  rows = {"vulnerability": row}
  arrays = {f"{name}/example_{key}": values for key, values in aucs._asdict().items()}
  if natural.any():
    members = ensemble.membership[:, natural]
    reported = {attack: scored[:, natural] for attack, scored in scores.items()}
    main = reported[main_attack.name]
    arrays |= _band(name, main, members)
    pairs = pairs_of(members)
    rows["chosen"] = chosen_elsewhere(name, reported, members, pairs, jackknife=chosen_anew)
    rows["named"] = who_can_be_named(name, main, members, ensemble.seed)
  return rows, arrays


def _band(name, scores, membership):
  band = metrics.clustered_band(scores, membership, models=pairs_of(membership))
  return {f"{name}/loo_{figure}": values for figure, values in band._asdict().items()}
