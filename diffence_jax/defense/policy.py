"""Policies: what is answered, given the candidates of an image and its raw prediction.

A policy is fitted: it is chosen by a function `(members, nonmembers, **options) -> policy` of
the answers to samples of known membership (`Record`s), which returns one of two kinds.

* `RankPolicy` selects: it answers with one of the options, the candidates and the raw
  prediction. Options are ranked one by one, so that early exit and repeated queries follow
  from the same rank.
* `AggregatePolicy` makes one answer of all of them.

The function may say as `undone(**options)` which policy's answers come out where somebody who
knows the numbers that it was fitted to computes backwards: (name, options), or None for its own
only. Attackers know them: they are fitted on samples that the attacker knows, too.

Both are pytrees: the numbers in them are arguments of a compiled function, not constants.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from diffence_jax.defense.select import Selection, check_fit, rank_options, select_by_rank
from diffence_jax.named import Registry
from diffence_jax.predictor import as_argument


class Record(NamedTuple):
  """A classifier's recorded answers to some samples.

  Attributes:
    raw: f32[N,K], logits of the samples themselves.
    candidates: f32[N,M,K], logits of their candidates.
    labels: i[N], true labels.
  """

  raw: np.ndarray
  candidates: np.ndarray
  labels: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class RankPolicy:
  """Answers with the option of the lowest rank that keeps the label, the first of equal ones.

  Attributes:
    rank: `logits f[...,K] -> f32[...]`, traceable by JAX: `select.ACCEPTED` for an option that
      is taken at once, else at least 0. It sees one option at a time, and never decides about
      labels: options that lose the label are passed over, and the raw prediction is always
      there. Numbers that it was fitted to are given by `jax.tree_util.Partial`.
    interval: (lo, hi) on phi that the rank aims at, for reports; None if it aims at none.
  """

  rank: Callable[[jax.Array], jax.Array]
  interval: tuple[float, float] | None = None

  # Whatever the candidates, the arg-max is the raw prediction's; and candidates are needed.
  keeps_labels = True
  draws = True

  def __post_init__(self):
    object.__setattr__(self, "rank", as_argument(self.rank))

  def ranks(self, candidate_logits: jax.Array, raw_logits: jax.Array) -> jax.Array:
    """Ranks f32[N,M+1] of candidates f[N,M,K] and the raw prediction f[N,K], which is last."""
    return rank_options(candidate_logits, raw_logits, self.rank)

  def select(self, candidate_logits: jax.Array, raw_logits: jax.Array) -> Selection:
    """The selection of one option for every image; see `defense.select`."""
    return select_by_rank(candidate_logits, raw_logits, self.rank)

  def answer(self, candidate_logits: jax.Array, raw_logits: jax.Array) -> jax.Array:
    """Logits [N,K], of candidates f[N,M,K] and raw predictions f[N,K] of the same dtype."""
    return self.select(candidate_logits, raw_logits).logits


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class AggregatePolicy:
  """Makes one answer of all candidates and the raw prediction.

  Attributes:
    function: `(candidate_logits f[N,M,K], raw_logits f[N,K]) -> logits f[N,K]`, traceable by
      JAX, every row by itself. Numbers that it was fitted to are given by
      `jax.tree_util.Partial`.
    keeps_labels: whether the arg-max is always the raw prediction's.
    draws: whether it looks at candidates; without, the answer to an image is always the same.
  """

  function: Callable[[jax.Array, jax.Array], jax.Array]
  keeps_labels: bool = dataclasses.field(metadata={"static": True})
  draws: bool = dataclasses.field(default=True, metadata={"static": True})

  interval = None

  def __post_init__(self):
    object.__setattr__(self, "function", as_argument(self.function))

  def answer(self, candidate_logits: jax.Array, raw_logits: jax.Array) -> jax.Array:
    """Logits [N,K], of candidates f[N,M,K] and raw predictions f[N,K] of the same dtype."""
    if self.draws:
      check_fit(candidate_logits, raw_logits)
    return self.function(candidate_logits, raw_logits)


Policy = RankPolicy | AggregatePolicy

# The raw prediction, as it is: what all others are compared with.
UNDEFENDED = "undefended"

POLICIES = Registry(
  "policy",
  "policies",
  {
    UNDEFENDED: "diffence_jax.defense.aggregate:undefended",
    "scenario_1": "diffence_jax.defense.interval:scenario_1",
    "scenario_2": "diffence_jax.defense.interval:scenario_2",
    "scenario_3": "diffence_jax.defense.interval:scenario_3",
    "scenario_3_published": "diffence_jax.defense.interval:scenario_3_published",
    "average": "diffence_jax.defense.aggregate:average_policy",
    "majority": "diffence_jax.defense.aggregate:majority",
    "mean_kept": "diffence_jax.defense.mean_kept:mean_kept_policy",
    "blend": "diffence_jax.defense.blend:blend",
    "constant": "diffence_jax.defense.blend:constant",
    "temperature": "diffence_jax.defense.baselines:temperature",
    "rounded": "diffence_jax.defense.baselines:rounded",
    "levels": "diffence_jax.defense.baselines:levels",
  },
  num_args=2,
)

# Policies that were published in another form, which `protocol="paper"` takes.
PUBLISHED = {"scenario_3": "scenario_3_published"}


def headline(names: Sequence[str]) -> str | None:
  """The policy that a report begins with, chosen before any figure is there.

  Args:
    names: of the audited policies, as the config has them or as published, in its order.

  Returns:
    Scenario 3 if it is among them, which is what `protect` does unless it is told otherwise;
    else the first; None of none.
  """
  for name in names:
    if name in ("scenario_3", PUBLISHED["scenario_3"]):
      return name
  return names[0] if names else None


def check_policy(policy: Policy, name: str = "policy") -> Policy:
  """Returns the policy; raises TypeError unless it is one."""
  if not isinstance(policy, Policy):
    raise TypeError(
      f"{name} is a {type(policy).__name__}; expected a RankPolicy or an AggregatePolicy."
    )
  return policy


@jax.jit
def answer(policy: Policy, candidate_logits: jax.Array, raw_logits: jax.Array) -> jax.Array:
  """`policy.answer`, compiled once for all policies that differ in numbers only."""
  return policy.answer(candidate_logits, raw_logits)


@jax.jit
def ranks(policy: RankPolicy, candidate_logits: jax.Array, raw_logits: jax.Array) -> jax.Array:
  """`policy.ranks`, compiled in the same way."""
  return policy.ranks(candidate_logits, raw_logits)
