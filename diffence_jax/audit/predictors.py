"""The predictors that are audited: one classifier behind every policy, fitted for it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from diffence_jax import rng
from diffence_jax.audit.repeated import select_repeatedly, windows
from diffence_jax.checks import check_instance
from diffence_jax.defense.output import Finish, make_output_defense
from diffence_jax.defense.policy import (
  POLICIES,
  PUBLISHED,
  Policy,
  RankPolicy,
  Record,
  answer,
  check_policy,
  ranks,
)
from diffence_jax.defense.select import Selection
from diffence_jax.named import Choice, option_key

# `(stream, known members' logits, known non-members' logits) -> finish`: how a defense of the
# answers is fitted to a predictor, whose name tells its stream of randomness apart.
FitAnswers = Callable[[str, np.ndarray, np.ndarray], Finish]
_UNDONE = ", undone"


class Predictor(NamedTuple):
  """What is audited, before it is fitted.

  Attributes:
    name: as tables and figures write it.
    policy: a choice from `POLICIES`.
  """

  name: str
  policy: Choice

  @property
  def stream(self) -> str:
    """The policy as it is called wherever it stands; names streams of randomness."""
    return policy_title(self.policy.name)


def undone(predictor: Predictor) -> Predictor | None:
  """The one whose answers an attacker gets who undoes this one's policy; None: no other's."""
  backwards = getattr(POLICIES.find(predictor.policy.name), "undone", None)
  found = backwards and backwards(**predictor.policy.options)
  return found and Predictor(name_undone(predictor.name), POLICIES.choose(*found))


def name_undone(name: str) -> str:
  """What a predictor is called whose answers come out where the policy of another is undone."""
  return f"{name}{_UNDONE}"


def is_served(name: str) -> bool:
  """Whether the predictor of this name is one that answers, and not what comes out undone."""
  return not name.endswith(_UNDONE)


def policy_title(name: str) -> str:
  """A policy as it is spoken of: "scenario_1" is "scenario 1"."""
  shown = {published: policy for policy, published in PUBLISHED.items()}
  return option_key(shown.get(name, name)).replace("_", " ")


class ModelRecord(NamedTuple):
  """One model's recorded answers to samples that are each asked about in A versions.

  Attributes:
    raw: f32[N,A,K], logits of the images themselves.
    candidates: f32[N,A,R,K], logits of their re-generations.
  """

  raw: np.ndarray
  candidates: np.ndarray


class Repeated(NamedTuple):
  """The answers to the same queries again and again.

  Attributes:
    logits: f32[N,A,k,K]; k is 1 where the answer is always the same.
    reused: share of images whose last answers are not independent of their first: the record
      was too short.
  """

  logits: np.ndarray
  reused: float


@dataclasses.dataclass(frozen=True, eq=False)
class Defended:
  """One classifier behind a policy that was fitted for it.

  Attributes:
    predictor: which one it is.
    policy: the fitted policy.
    finish: what a defense of the answers does to its logits, each row by itself; None for none.
  """

  predictor: Predictor
  policy: Policy
  finish: Finish | None = None

  @property
  def name(self) -> str:
    """As tables and figures write it."""
    return self.predictor.name

  def answer(self, candidates: np.ndarray | None, raw: np.ndarray) -> np.ndarray:
    """What it returns, f32[N,K].

    Args:
      candidates: f32[N,M,K]; None where the policy does not look at them.
      raw: f32[N,K], raw predictions.
    """
    return self.finished(np.asarray(answer(self.policy, candidates, raw)))

  def selection(self, candidates: np.ndarray, raw: np.ndarray) -> Selection | None:
    """What it selects; None where it does not select."""
    if not isinstance(self.policy, RankPolicy):
      return None
    return self.policy.select(candidates, raw)

  def answer_repeatedly(
    self,
    record: ModelRecord,
    *,
    num_candidates: int,
    num_queries: int,
    seed: list[int] | None = None,
  ) -> Repeated:
    """The answers to k queries about every version of every sample, from one record.

    Args:
      record: the model's.
      num_candidates: M, that the defense draws for a query.
      num_queries: k.
      seed: draws the candidate where each image's first query begins, for one of many models
        that share re-generations; None begins at the first.

    Returns:
      The answers.
    """
    num, versions, num_classes = record.raw.shape
    raw = np.asarray(record.raw).reshape(-1, num_classes)
    candidates = np.asarray(record.candidates).reshape(len(raw), -1, num_classes)
    first = np.zeros(len(raw), np.int64)
    if seed is not None:
      first = np.random.default_rng(seed).integers(0, candidates.shape[1], len(raw))
    asked = {"num_candidates": num_candidates, "num_queries": num_queries, "first": first}
    if not self.policy.draws:
      logits, reused = self.answer(None, raw)[:, None], 0.0
    elif isinstance(self.policy, RankPolicy):
      logits, reused = self._select(raw, candidates, asked)
    else:
      logits, reused = self._aggregate(raw, candidates, asked)
    return Repeated(logits.reshape(num, versions, -1, num_classes), reused)

  def _select(self, raw, candidates, asked):
    selection = select_repeatedly(np.asarray(ranks(self.policy, candidates, raw)), **asked)
    options = np.concatenate([candidates, raw[:, None]], axis=1)
    num_options = options.shape[1]
    # Only what is returned, and once: a defense of the answers may take long.
    places = np.arange(len(raw))[:, None] * num_options + selection.index
    places, inverse = np.unique(places, return_inverse=True)
    returned = self.finished(options.reshape(-1, raw.shape[-1])[places])
    reused = float(np.mean(selection.drawn > num_options - 1))
    return returned[inverse.reshape(selection.index.shape)], reused

  def _aggregate(self, raw, candidates, asked):
    drawn = windows(candidates.shape[1], **asked)
    answers = [
      self.answer(np.take_along_axis(candidates, places[..., None], axis=1), raw)
      for places in drawn
    ]
    queries = np.arange(asked["num_queries"]) % len(drawn)
    return np.stack(answers, axis=1)[:, queries], float(asked["num_queries"] > len(drawn))

  def finished(self, logits: np.ndarray) -> np.ndarray:
    """The policy's answers f32[n,K], after the defense of the answers if there is one."""
    return logits if self.finish is None else np.asarray(self.finish(logits))


def answers_defense(output: Choice | None, seed: int, model: str) -> FitAnswers | None:
  """How a defense of the answers is fitted to the predictors of one model.

  Args:
    output: a choice from `OUTPUT_DEFENSES`; None for none.
    seed: of the run.
    model: names the model's stream of randomness.
  """
  if output is None:
    return None
  fit = make_output_defense(output)
  return lambda stream, *known: fit(rng.stream(seed, f"{model}/output/{stream}"), *known)


def fit_predictors(
  predictors: Sequence[Predictor],
  members: Record,
  nonmembers: Record,
  fit_answers: FitAnswers | None = None,
) -> tuple[Defended, ...]:
  """Puts one classifier behind every policy, fitted on samples of known membership.

  Args:
    predictors: which.
    members: the classifier's recorded answers to known members.
    nonmembers: the same, to known non-members.
    fit_answers: fits a defense of the answers to a predictor's answers; None for none.

  Returns:
    One for each predictor.

  Raises:
    TypeError: what a user's own function returns is no policy.
    ValueError: a policy cannot be fitted.
  """
  check_instance("members", members, Record)
  check_instance("nonmembers", nonmembers, Record)
  fitted = []
  for predictor in predictors:
    choice = predictor.policy
    policy = check_policy(
      POLICIES.call(choice, members, nonmembers), f"The policy {choice.name!r}"
    )
    bare = Defended(predictor, policy)
    if fit_answers is not None:
      known = [bare.answer(record.candidates, record.raw) for record in (members, nonmembers)]
      bare = dataclasses.replace(bare, finish=fit_answers(predictor.stream, *known))
    fitted.append(bare)
  return tuple(fitted)
