"""The audit of an experiment: what is attacked, by what, and how it is asked."""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffence_jax.attacks.attack import ATTACKS, declaration_of
from diffence_jax.audit.canaries import CANARIES, title_of
from diffence_jax.audit.in_turn import is_in_turn
from diffence_jax.audit.pool import Pool
from diffence_jax.audit.predictors import Predictor, policy_title, undone
from diffence_jax.defense.output import OUTPUT_DEFENSES
from diffence_jax.defense.policy import POLICIES, PUBLISHED, UNDEFENDED
from diffence_jax.experiment.plan_models import plan_procedure, plan_training
from diffence_jax.experiment.samples import Samples
from diffence_jax.experiment.sections import Settings
from diffence_jax.experiment.stage import Stage
from diffence_jax.experiment.stages.host_shadows import (
  ProcedureShadow,
  ProcedureShadows,
  Regenerations,
)
from diffence_jax.experiment.stages.label_only import LabelOnly
from diffence_jax.experiment.stages.optimised_audit import OptimisedAudit
from diffence_jax.experiment.stages.optimised_queries import OptimisedQueries
from diffence_jax.experiment.stages.shadow_audit import ShadowAudit
from diffence_jax.experiment.stages.shadow_models import ShadowModel, ShadowModels
from diffence_jax.experiment.stages.shadow_queries import (
  NearDuplicates,
  ShadowQueries,
  TargetQueries,
)
from diffence_jax.experiment.stages.target import Target
from diffence_jax.named import Choice

# Shadow models that are attacked in turn: each needs models of both kinds besides its pair.
_LEAST_ANSWERING = 6


def plan_output(settings: Settings) -> Choice | None:
  """The output defense; None without."""
  name = settings.output.defense
  if name == "none":
    return None
  return OUTPUT_DEFENSES.choose(name, settings.options("defenses", name))


def plan_predictors(settings: Settings) -> tuple[Predictor, ...]:
  """What the audit attacks: one for each policy, the undefended one first.

  Behind a policy stands what comes out where an attacker who knows it undoes it.

  Raises:
    ValueError: two of them are called the same.
  """
  is_bare = (settings.classifier.defense, settings.output.defense) == ("undefended", "none")
  predictors = [Predictor("undefended" if is_bare else "alone", POLICIES.choose(UNDEFENDED))]
  for name in settings.purify.policies:
    if name == UNDEFENDED:
      continue
    chosen = PUBLISHED.get(name, name) if settings.audit.protocol == "paper" else name
    policy = POLICIES.choose(chosen, settings.options("policies", chosen))
    served = Predictor(policy_title(chosen), policy)
    predictors += filter(None, [served, undone(served)])
  names = [predictor.name for predictor in predictors]
  for name in names:
    if names.count(name) > 1:
      raise ValueError(
        f"purify.policies is {settings.purify.policies}; two of them are called {name!r}."
      )
  return tuple(predictors)


def plan_attacks(
  settings: Settings, pool: Pool
) -> tuple[tuple[Choice, ...], dict[str, tuple[str, ...]]]:
  """Attacks that can be run, the gap attack first.

  Returns:
    The attacks; and those left out, name to what they need and the experiment has not.

  Raises:
    ValueError: there are too few known samples for one of them.
  """
  attacks, left_out = [], {}
  for name in dict.fromkeys(("correctness", *settings.audit.attacks)):
    choice = ATTACKS.choose(name, settings.options("attacks", name))
    declared, lacking = declaration_of(name), []
    if "shadows" in declared.needs and not settings.shadow.num_models:
      lacking.append("shadow models (shadow.num_models)")
    if "networks" in declared.needs:
      if not settings.shadow.num_models or plan_procedure(settings) is not None:
        lacking.append("shadow models of Flax (shadow.num_models)")
      if "ask" not in declared.needs:
        raise ValueError(
          f"The attack {name!r} needs 'networks' and not 'ask'; an experiment runs what needs "
          "networks beside what asks. Declare both."
        )
    if "ask" in declared.needs and not settings.audit.num_label_only:
      lacking.append("many queries about single images (audit.num_label_only)")
    if {"ask", "shadows"} <= set(declared.needs):
      raise ValueError(
        f"The attack {name!r} needs both 'ask' and 'shadows'; of shadow models an experiment "
        "keeps what they answered. Leave it out of audit.attacks."
      )
    sides = [len(rows) for rows in pool.known()]
    if "known" in declared.needs and min(sides) < declared.least_known:
      raise ValueError(
        f"The attack {name!r} needs at least {declared.least_known} known members and as many "
        f"known non-members, and the split has {sides[0]} and {sides[1]}; leave it out of "
        "audit.attacks, or raise data.num_members and data.num_nonmembers."
      )
    if lacking:
      left_out[name] = tuple(lacking)
    else:
      attacks.append(choice)
  return tuple(attacks), left_out


def plan_canaries(settings: Settings) -> tuple[Choice, ...]:
  """The kinds of canaries; none where there are no canaries.

  Raises:
    ValueError: an option is not right, or the other data set is the experiment's.
  """
  shadow, kinds = settings.shadow, []
  for name in shadow.canaries:
    kind = CANARIES.choose(name, settings.options("canaries", name))
    if shadow.num_canaries and kind.options.get("source") == settings.data.source:
      raise ValueError(
        f"canaries.{name}.source is {settings.data.source!r}, as data.source is; expected "
        "another data set, such as 'digits' or 'photographs'."
      )
    kinds.append(kind)
  return tuple(kinds) if shadow.num_canaries else ()


def plan_label_only(
  settings: Settings,
  classifier: Target,
  asked: Samples,
  pool: Pool,
  attacks: Sequence[Choice],
  stages: Sequence[Stage],
) -> LabelOnly | None:
  """The stage of the attacks that ask many questions about each image; None without such.

  Args:
    settings: the experiment's.
    classifier: the target.
    asked: the samples of the pool.
    pool: without canaries.
    attacks: all that are run.
    stages: those of `plan_shadow_stages`.
  """
  asking = tuple(c for c in attacks if "ask" in declaration_of(c.name).needs)
  if not asking:
    return None
  groups = [pool.is_known == known for known in (True, False)]
  rows = np.sort(np.concatenate([
    np.flatnonzero(known & side)[: settings.audit.num_label_only]
    for known in groups for side in (pool.is_member, ~pool.is_member)
  ]))  # fmt: skip
  shadow = next((stage for stage in stages if isinstance(stage, ShadowModels)), None)
  if not any("networks" in declaration_of(c.name).needs for c in asking):
    shadow = None
  asked, pool = asked.take(rows), pool.take(rows)
  return LabelOnly(classifier, asked, pool, asking, shadow, settings.seed)


def plan_shadow_stages(
  settings: Settings,
  pool: Samples,
  asked: Samples,
  groups: Mapping[str, Samples],
  classifier: Target,
  recording: Mapping[str, Any],
) -> list[Stage]:
  """The shadow models, and what they and the target are asked; nothing without any.

  Args:
    settings: the experiment's.
    pool: all samples, canaries too; each shadow model trains on half of them.
    asked: those that the target is asked about.
    groups: group of the split to its samples.
    classifier: the target.
    recording: what all `Queries` share.
  """
  shadow_settings = settings.shadow
  if not shadow_settings.num_models:
    return []
  numbers = range(shadow_settings.num_models)
  everything = {**recording, "samples": pool, "augmentation": shadow_settings.augmentation}
  if (procedure := plan_procedure(settings)) is not None:
    made = Regenerations(**everything)
    models = (ProcedureShadow(procedure, made, number, settings.seed) for number in numbers)
    stages = [made, ProcedureShadows(tuple(models))]
  else:
    training = plan_training(settings, groups["reference"], -(-len(pool) // 2))
    models = (ShadowModel(training, pool, number, settings.seed) for number in numbers)
    shadow = ShadowModels(tuple(models))
    stages = [shadow, ShadowQueries(shadow=shadow, **everything)]
  target = {**recording, "samples": asked, "classifier": classifier}
  if shadow_settings.augmentation != "none":
    # Else the target's record is that of the stage "queries".
    stages.append(TargetQueries(augmentation=shadow_settings.augmentation, **target))
  if shadow_settings.near_duplicates:
    one_each = {**target, "num_recorded": 1}
    stages.append(NearDuplicates(num_queries=max(shadow_settings.queries), **one_each))
  return stages


def plan_shadow_audit(
  settings: Settings,
  pool: Pool,
  attacks: Sequence[Choice],
  judged: Mapping[str, Any],
  stages: Sequence[Stage],
) -> ShadowAudit | None:
  """The attacks with shadow models; None without any.

  Args:
    settings: the experiment's.
    pool: all samples, canaries too.
    attacks: all that are run.
    judged: what it shares with `Audit`.
    stages: those of `plan_shadow_stages`.

  Raises:
    ValueError: the main attack cannot be run with every model in turn.
  """
  if not stages:
    return None
  shadow_settings = settings.shadow
  by_name = {stage.name: stage for stage in stages}
  main = ATTACKS.choose(
    shadow_settings.main_attack, settings.options("attacks", shadow_settings.main_attack)
  )
  if not is_in_turn(main):
    raise ValueError(
      f"shadow.main_attack is {main.name!r}, which is not run with every model in turn; "
      "expected another, such as 'lira_online'."
    )
  used = [c for c in attacks if is_in_turn(c) or "shadows" in declaration_of(c.name).needs]
  if main.name not in [choice.name for choice in attacks]:
    used.append(main)
  return ShadowAudit(
    pool=pool,
    canaries=tuple(map(title_of, plan_canaries(settings))),
    shadow_queries=by_name[ShadowQueries.name],
    target_queries=by_name.get(TargetQueries.name),
    near_duplicates=by_name.get(NearDuplicates.name),
    attacks=tuple(used),
    main_attack=main,
    num_queries=shadow_settings.queries,
    has_epsilon=importlib.util.find_spec("jax_privacy") is not None,
    **judged,
  )


def plan_optimised(
  settings: Settings,
  asked: Samples,
  classifier: Target,
  recording: Mapping[str, Any],
  audit: ShadowAudit | None,
) -> OptimisedAudit | None:
  """The attack by optimised queries; None where none are asked for.

  Args:
    settings: the experiment's.
    asked: the samples that the target is asked about.
    classifier: the target.
    recording: what all `Queries` share.
    audit: of `plan_shadow_audit`.

  Raises:
    ValueError: there are too few shadow models, or no gradient of them.
  """
  num, optimised = settings.audit.num_optimised, settings.optimised
  if not num:
    return None
  shadow = None if audit is None else audit.shadow_queries.shadow
  if not isinstance(shadow, ShadowModels):
    raise ValueError(
      f"audit.num_optimised is {num}, and there are no shadow models of JAX to take gradients "
      "of; set shadow.num_models, without classifier.train, or set it to 0."
    )
  others = len(shadow.models) - optimised.num_models
  if others < _LEAST_ANSWERING:
    raise ValueError(
      f"optimised.num_models is {optimised.num_models} of {len(shadow.models)} shadow models, "
      f"which leaves {max(others, 0)} that answer; expected at least {_LEAST_ANSWERING}. Set "
      f"shadow.num_models to {optimised.num_models + _LEAST_ANSWERING} or more."
    )
  natural = audit.pool.natural
  sides = (natural.is_member, ~natural.is_member)
  rows = np.sort(
    np.concatenate([np.flatnonzero(~natural.is_known & side)[:num] for side in sides])
  )
  queries = OptimisedQueries(
    samples=asked.take(rows),
    classifier=classifier,
    shadow=shadow,
    rows=tuple(rows.tolist()),
    settings=optimised,
    **recording,
  )
  return OptimisedAudit(queries, audit)
