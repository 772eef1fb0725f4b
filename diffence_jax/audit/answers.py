"""What attacks with shadow models read from the recorded answers of target and shadow models.

The defense, its interval fitted anew, stands before every shadow model as it does before the
target; it is also asked the same thing many times.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from diffence_jax import rng
from diffence_jax.attacks.lira import true_label_phi
from diffence_jax.attacks.repeated import mean_over_queries, select_repeatedly
from diffence_jax.audit.predictors import (
  FitAnswers,
  Record,
  fit_finish,
  predictors,
  selecting_intervals,
)
from diffence_jax.defense import average, scaled_logit
from diffence_jax.defense.select import keeps_label


class Pool(NamedTuple):
  """The samples that shadow models are trained on and all models are asked about.

  Attributes:
    labels: i[N], the labels that training sees; wrong ones for mislabelled canaries.
    is_member: bool[N], of the target; half of the canaries are, with their wrong labels.
    is_known: bool[N], whose membership of the target is known to attacker and defender.
    is_canary: bool[N].
  """

  labels: np.ndarray
  is_member: np.ndarray
  is_known: np.ndarray
  is_canary: np.ndarray


class ModelRecord(NamedTuple):
  """One model's recorded answers to a pool, each of its samples in A versions.

  Attributes:
    raw: f32[N,A,K], logits of the images themselves.
    candidates: f32[N,A,R,K], logits of their re-generations.
  """

  raw: np.ndarray
  candidates: np.ndarray


class Statistics(NamedTuple):
  """What the attacks read from one predictor's answers, averaged over repeated queries.

  Attributes:
    phi: f64[...,N,A,k], mean of the true label's phi over so many queries.
    log_p: f64[...,N,A,k], logarithm of the true label's mean probability.
    reused: share of images whose last answers are not independent of their first, for the
      most queries: the record was too short.
  """

  phi: np.ndarray
  log_p: np.ndarray
  reused: float

  def first_version(self) -> "Statistics":
    """Those of the images themselves, without further versions."""
    return self._replace(phi=self.phi[..., :1, :], log_p=self.log_p[..., :1, :])


def model_statistics(
  record: ModelRecord,
  labels: np.ndarray,
  intervals: Mapping[str, tuple[float, float] | None],
  *,
  num_candidates: int,
  queries: tuple[int, ...],
  seed: list[int] | None = None,
  finish: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
) -> dict[str, Statistics]:
  """The statistics of every predictor that can be made from one model's record.

  Args:
    record: the model's answers.
    labels: i[N].
    intervals: predictor to the interval of its selection, for the randomised ones.
    num_candidates: M, that the defense draws for a query.
    queries: the numbers of repeated queries k. The undefended predictor, which always answers
      the same, is asked once: its last axis is 1.
    seed: draws the candidate where each image's first query begins, for one of many models
      that share re-generations; None begins at the first.
    finish: predictor to what a defense of the answers does to its logits f32[n,K], each row by
      itself; None for none.

  Returns:
    Predictor to statistics.
  """
  num, versions, num_classes = record.raw.shape
  raw = np.asarray(record.raw).reshape(-1, num_classes)
  candidates = np.asarray(record.candidates).reshape(len(raw), -1, num_classes)
  labels = np.repeat(labels, versions)
  raw_phi = true_label_phi(raw, labels)
  num_recorded = candidates.shape[1]
  first = np.zeros(len(raw), np.int64)
  if seed is not None:
    first = np.random.default_rng(seed).integers(0, num_recorded, len(raw))
  phi = np.concatenate([true_label_phi(candidates, labels), raw_phi[:, None]], axis=1)
  kept = np.asarray(keeps_label(candidates, raw))
  top_phi, top_raw_phi = np.asarray(scaled_logit(candidates)), np.asarray(scaled_logit(raw))
  finish = finish or {}

  def phi_of(name, answers):
    """Phi f64[n,...] of answers f32[n,...,K], after the defense of the answers."""
    if name in finish:
      answers = finish[name](answers.reshape(-1, num_classes)).reshape(answers.shape)
    return true_label_phi(answers, labels)

  shape = (num, versions, -1)
  bare_phi = phi_of("undefended", raw)
  found = {
    "undefended": Statistics(bare_phi.reshape(shape), _log_p(bare_phi).reshape(shape), 0.0)
  }

  def answered_with(phi, reused):
    """The statistics of answers whose phi are [N*A,k]."""
    with np.errstate(divide="ignore"):
      log_p = np.log(mean_over_queries(np.exp(_log_p(phi)), queries))
    means = mean_over_queries(phi, queries)
    return Statistics(means.reshape(shape), log_p.reshape(shape), reused)

  for name, interval in intervals.items():
    selection = select_repeatedly(
      kept,
      top_phi,
      top_raw_phi,
      interval,
      num_candidates=num_candidates,
      num_queries=max(queries),
      first=first,
    )
    reused = float(np.mean(selection.drawn > num_recorded))
    answered_phi = np.take_along_axis(phi, selection.index, axis=1)
    if name in finish:
      # Only what was returned, and once: a defense of the answers may take long.
      options = np.concatenate([candidates, raw[:, None]], axis=1).reshape(-1, num_classes)
      places = np.arange(len(raw))[:, None] * (num_recorded + 1) + selection.index
      places, inverse = np.unique(places, return_inverse=True)
      returned = finish[name](options[places])
      own = true_label_phi(returned, labels[places // (num_recorded + 1)])
      answered_phi = own[inverse].reshape(selection.index.shape)
    found[name] = answered_with(answered_phi, reused)
  # Averaging draws M candidates for every query: the record has R // M times as many.
  num_windows = num_recorded // num_candidates
  windows = []
  for query in range(min(num_windows, max(queries))):
    at = first[:, None] + query * num_candidates + np.arange(num_candidates)
    own = np.take_along_axis(candidates, at[..., None] % num_recorded, axis=1)
    windows.append(phi_of("average", np.asarray(average(own))))
  repeated = np.stack(windows, axis=1)[:, np.arange(max(queries)) % len(windows)]
  found["average"] = answered_with(repeated, float(max(queries) > num_windows))
  return found


def ensemble_statistics(
  records: Iterator[ModelRecord],
  pool: Pool,
  membership: np.ndarray,
  *,
  protocol: str,
  num_candidates: int,
  queries: tuple[int, ...],
  seed: int,
  fit_output: Callable[[int], FitAnswers | None] | None = None,
) -> dict[str, Statistics]:
  """The statistics of all shadow models, each behind a defense fitted for it.

  A model's intervals are fitted on those samples that the target's are fitted on, as many
  members and non-members of *this* model as every model has among them.

  Args:
    records: S models' answers, in order; only one is held in memory.
    pool: the samples.
    membership: bool[S,N].
    protocol: as in `audit.audit`.
    num_candidates: as in `model_statistics`.
    queries: likewise.
    seed: of what `model_statistics` draws.
    fit_output: model's number to how a defense of its answers is fitted, as `fit_finish` takes
      it; None for none.

  Returns:
    Predictor to statistics with a first axis of S, f32.
  """
  known = np.flatnonzero(pool.is_known)
  sizes = membership[:, known].sum(axis=1)
  size = int(min(sizes.min(), (len(known) - sizes).min()))
  collected: dict[str, list[Statistics]] = {}
  for model, (record, own) in enumerate(zip(records, membership, strict=True)):
    fitted_on = {
      group: Record(
        record.raw[rows, 0], record.candidates[rows, 0, :num_candidates], pool.labels[rows]
      )
      for group, rows in (
        ("known_members", known[own[known]][:size]),
        ("known_nonmembers", known[~own[known]][:size]),
      )
    }
    answers = predictors(fitted_on, protocol)
    finish = fit_finish(answers, fit_output(model) if fit_output else None)
    statistics = model_statistics(
      record,
      pool.labels,
      selecting_intervals(answers),
      num_candidates=num_candidates,
      queries=queries,
      seed=rng.numpy_seed(seed, f"shadow/{model}/first"),
      finish=finish,
    )
    for name, values in statistics.items():
      values = values._replace(
        phi=values.phi.astype(np.float32), log_p=values.log_p.astype(np.float32)
      )
      collected.setdefault(name, []).append(values)
  return {
    name: Statistics(
      np.stack([v.phi for v in values]),
      np.stack([v.log_p for v in values]),
      float(np.mean([v.reused for v in values])),
    )
    for name, values in collected.items()
  }


def _log_p(phi):
  """The log-probability p of phi = log(p / (1 - p)), exact next to 0."""
  return -np.logaddexp(0.0, -phi)
