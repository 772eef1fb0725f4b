"""Made-up records of a target and of shadow models, with and without a leak."""

from typing import NamedTuple

import numpy as np

import diffence_jax as dj
from diffence_jax.audit.answers import Answers, DefendedEnsemble
from diffence_jax.audit.membership import membership_matrix
from diffence_jax.audit.pool import Pool
from diffence_jax.audit.predictors import Defended, ModelRecord, Predictor, policy_title
from diffence_jax.defense import POLICIES, Record, interval_policy

NUM_MODELS, NUM, NUM_CANARIES, NUM_RECORDED, NUM_CLASSES = 24, 160, 20, 12, 4
ASKED = {"num_candidates": 4, "queries": (1, 3)}
PREDICTORS = tuple(
  Predictor(policy_title(name), POLICIES.choose(name))
  for name in ("undefended", "scenario_1", "scenario_2", "scenario_3", "average")
)
NAMES = tuple(predictor.name for predictor in PREDICTORS)
INTERVALS = {"scenario 1": (0.0, 3.0), "scenario 2": (1.0, 2.0), "scenario 3": None}


def make_pool():
  total = NUM + NUM_CANARIES
  at = np.arange(total)
  canary = at >= NUM
  return Pool(
    ids=np.random.default_rng(1).permutation(1000)[:total],
    labels=np.random.default_rng(0).integers(0, NUM_CLASSES, total),
    is_member=(at < NUM // 2) & ~canary,
    is_known=(at % 2 == 0) & ~canary,
    is_canary=canary,
  )


def make_record(seed, pool, member, leak, versions=1, difficulty=99):
  """Members' logits of the true label are `leak` higher; half of it is left in candidates."""
  difficulty = np.random.default_rng(difficulty).normal(2.0, 1.0, len(pool.labels))
  difficulty = difficulty[: len(member)]
  draw = np.random.default_rng([7, seed])
  labels = pool.labels[: len(member)]
  raw = draw.normal(0.0, 0.5, (len(member), versions, NUM_CLASSES))
  raw[np.arange(len(member)), :, labels] += (difficulty + leak * member)[:, None]
  shape = (len(member), versions, NUM_RECORDED, NUM_CLASSES)
  candidates = draw.normal(0.0, 0.7, shape) + raw[:, :, None]
  candidates[np.arange(len(member)), :, :, labels] -= 0.5 * leak * member[:, None, None]
  return ModelRecord(raw.astype(np.float32), candidates.astype(np.float32))


def defended_by(intervals, finish=None):
  """Every predictor, those that select with given intervals; perhaps with a finish by name."""
  nothing = Record(*[np.zeros((0, 1))] * 3)
  policies = {name: interval_policy(interval) for name, interval in intervals.items()}
  return {
    own.name: Defended(
      own,
      policies.get(own.name) or POLICIES.call(own.policy, nothing, nothing),
      (finish or {}).get(own.name),
    )
    for own in PREDICTORS
    if own.name in intervals or own.name in ("undefended", "average")
  }


def answers_of(defended, record, labels, seed=None):
  """Predictor to the model's answers, each image asked about as often as it gets."""
  found = {}
  for name, own in defended.items():
    repeated = own.answer_repeatedly(
      record,
      num_candidates=ASKED["num_candidates"],
      num_queries=max(ASKED["queries"]),
      seed=seed,
    )
    found[name] = Answers(repeated.logits, labels, repeated.reused)
  return found


class World(NamedTuple):
  """A target and shadow models.

  Attributes:
    pool: the samples.
    membership: bool[S,N].
    records: the shadow models' records.
    ensemble: the shadow models behind all policies.
    target: the target's record, of the pool without canaries.
    answers: predictor to the target's answers.
  """

  pool: Pool
  membership: np.ndarray
  records: list[ModelRecord]
  ensemble: DefendedEnsemble
  target: ModelRecord
  answers: dict[str, Answers]


def ensemble_of_records(records, pool, membership, versions=1, fit_answers=None):
  return DefendedEnsemble(
    records.__getitem__,
    pool,
    membership,
    PREDICTORS,
    seed=0,
    versions=versions,
    fit_answers=fit_answers,
    **ASKED,
  )


def make_world(leak, versions=1, num_models=NUM_MODELS):
  pool = make_pool()
  membership = membership_matrix(num_models, len(pool.labels), 3)
  records = [make_record(s, pool, own, leak, versions) for s, own in enumerate(membership)]
  ensemble = ensemble_of_records(records, pool, membership, versions)
  target = make_record(1000, pool, pool.is_member[:NUM], leak, versions)
  answers = answers_of(defended_by(INTERVALS), target, pool.labels[:NUM])
  return World(pool, membership, records, ensemble, target, answers)


def first_answers(record, intervals):
  """What every predictor answers to the first query, by the public functions."""
  raw, candidates = record.raw[:, 0], record.candidates[:, 0, :4]
  return {
    "undefended": raw,
    "average": np.asarray(dj.average(candidates)),
    **{
      name: np.asarray(dj.select(candidates, raw, interval).logits)
      for name, interval in intervals.items()
    },
  }
