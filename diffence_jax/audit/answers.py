"""What shadow models answer behind every policy, and what attacks read off it.

The defense, its policies fitted anew, stands before every shadow model as it does before the
target; it is also asked the same thing many times.
"""

import copy
import functools
from collections.abc import Callable, Sequence

import numpy as np

from diffence_jax import rng
from diffence_jax.attacks import Ensemble
from diffence_jax.attacks.ensemble import Statistic
from diffence_jax.audit.pool import Pool
from diffence_jax.audit.predictors import (
  Defended,
  FitAnswers,
  ModelRecord,
  Predictor,
  fit_predictors,
)
from diffence_jax.data import Images, view
from diffence_jax.defense.policy import Record
from diffence_jax.progress import progress_bar


class Answers:
  """The answers of one model behind one policy, and what was read off them.

  Attributes:
    logits: f32[N,A,k,K], of A versions and k queries; k is 1 where all answers are the same.
    reused: as in `predictors.Repeated`.
  """

  def __init__(self, logits: np.ndarray, labels: np.ndarray, reused: float = 0.0):
    """Takes the answers to samples with these true labels i[N]."""
    self.logits, self.reused = logits, reused
    self._labels = labels
    self._cache: dict[tuple[Statistic, int], np.ndarray] = {}

  @property
  def versions(self) -> int:
    """A."""
    return self.logits.shape[1]

  def of(self, num_queries: int) -> np.ndarray:
    """The answers f32[N,A*k,K] to the first k queries about each version."""
    num, *_, num_classes = self.logits.shape
    return self.logits[:, :, :num_queries].reshape(num, -1, num_classes)

  def statistic(self, function: Statistic, num_queries: int) -> np.ndarray:
    """What a statistic reads off the answers to the first k queries; computed once."""
    if (function, num_queries) not in self._cache:
      values = function(self.of(num_queries), self._labels, self.versions)
      self._cache[function, num_queries] = values
    return self._cache[function, num_queries]


class DefendedEnsemble:
  """All shadow models, each behind policies that are fitted for it.

  A model's policies are fitted on those samples that the target's are fitted on, as many
  members and non-members of *this* model as every model has among them.
  """

  def __init__(
    self,
    read: Callable[[int], ModelRecord],
    pool: Pool,
    membership: np.ndarray,
    predictors: Sequence[Predictor],
    *,
    num_candidates: int,
    queries: tuple[int, ...],
    seed: int,
    versions: int = 1,
    fit_answers: Callable[[int], FitAnswers | None] | None = None,
    images: Images | None = None,
  ):
    """Reads nothing yet.

    Args:
      read: model to its recorded answers; only one is held in memory.
      pool: the samples.
      membership: bool[S,N].
      predictors: which policies.
      num_candidates: M, that the defense draws for a query.
      queries: the numbers of repeated queries, rising.
      seed: of where each model's queries begin in the shared record.
      versions: A, in how many versions every image is asked about.
      fit_answers: model to how a defense of its answers is fitted; None for none.
      images: u8[N,H,W,C], the samples', for attacks that look at them.
    """
    self.pool, self.membership, self.queries = pool, membership, queries
    self.images, self.seed = images, seed
    self.names = tuple(predictor.name for predictor in predictors)
    self.versions = versions
    self._reused: dict[str, dict[int, float]] = {name: {} for name in self.names}
    self._read, self._predictors = read, predictors
    self._num_candidates = num_candidates
    self._fit_answers = fit_answers
    known = np.flatnonzero(pool.is_known)
    sizes = membership[:, known].sum(axis=1)
    size = int(min(sizes.min(), (len(known) - sizes).min()))
    self._known = [
      (known[members][:size], known[~members][:size]) for members in membership[:, known]
    ]
    self._cache: dict[Statistic, dict[str, list[np.ndarray]]] = {}

  def at(self, name: str, at: int) -> Ensemble:
    """The models behind a policy, asked `queries[at]` times, or once if more is of no use."""
    at = min(at, self.num_queries(name) - 1)
    k = self.queries[at]
    return Ensemble(
      self.membership,
      lambda model: self.answers(model, name).of(k),
      lambda function: self._statistics(function)[name][at],
    )

  def first_version(self) -> "DefendedEnsemble":
    """The same models, asked about the images themselves, the first of their versions."""
    if self.versions == 1:
      return self
    first = copy.copy(self)
    first.versions, first._cache = 1, {}
    first._reused = {name: {} for name in self.names}
    read = self._read
    first._read = lambda model: ModelRecord(*(values[:, :1] for values in read(model)))
    return first

  @functools.cached_property
  def natural_images(self) -> Images | None:
    """The images without the canaries."""
    return None if self.images is None else view(self.images, ~self.pool.is_canary)

  def reused(self, name: str) -> float:
    """As in `predictors.Repeated`, the mean over the models that have answered so far."""
    shares = self._reused[name].values()
    return float(np.mean(list(shares))) if shares else 0.0

  def num_queries(self, name: str) -> int:
    """How many of `queries` tell apart: one where the answer is always the same."""
    return len(self.queries) if self.draws(name) else 1

  def draws(self, name: str) -> bool:
    """Whether a policy looks at candidates."""
    return self._draws[name]

  def answers(self, model: int, name: str) -> Answers:
    """What one model answers behind one policy."""
    record = self._read(model)
    predictor = self._predictors[self.names.index(name)]
    return self._answers(model, record, *self._fitted(model, record, [predictor]))

  def statistic_of_others(
    self, function: Statistic, name: str, read_others: Callable[[int], ModelRecord]
  ) -> np.ndarray:
    """What is read off the answers, behind a policy, to other images than the samples.

    Args:
      function: the statistic; of labels it is given zeros.
      name: of the policy.
      read_others: model to its recorded answers to M other images.

    Returns:
      f32[S,M,...], of one query.
    """
    predictor, read = self._predictors[self.names.index(name)], []
    for model in range(len(self.membership)):
      (defended,) = self._fitted(model, self._read(model), [predictor])
      asked = {"num_candidates": self._num_candidates, "num_queries": 1}
      logits = defended.answer_repeatedly(read_others(model), **asked).logits[:, 0]
      read.append(np.asarray(function(logits, np.zeros(len(logits), int), 1), np.float32))
    return np.stack(read)

  @functools.cached_property
  def _draws(self) -> dict[str, bool]:
    """Predictor to whether its policy looks at candidates."""
    fitted = fit_predictors(self._predictors, *self._records(0, self._read(0)))
    return {defended.name: defended.policy.draws for defended in fitted}

  def _fitted(
    self, model: int, record: ModelRecord, predictors: Sequence[Predictor]
  ) -> tuple[Defended, ...]:
    fit = self._fit_answers(model) if self._fit_answers else None
    return fit_predictors(predictors, *self._records(model, record), fit)

  def _records(self, model: int, record: ModelRecord) -> tuple[Record, Record]:
    """The answers to the known members of a model, and to as many known non-members."""
    return tuple(
      Record(
        record.raw[rows, 0],
        record.candidates[rows, 0, : self._num_candidates],
        self.pool.labels[rows],
      )
      for rows in self._known[model]
    )

  def _answers(self, model, record, defended):
    repeated = defended.answer_repeatedly(
      record,
      num_candidates=self._num_candidates,
      num_queries=max(self.queries),
      seed=rng.numpy_seed(self.seed, f"shadow/{model}/first"),
    )
    self._reused[defended.name][model] = repeated.reused
    return Answers(repeated.logits, self.pool.labels, repeated.reused)

  def _statistics(self, function: Statistic) -> dict[str, list[np.ndarray]]:
    """Predictor to what is read at each number of queries, f32[S,N,...]; one pass for all."""
    if function in self._cache:
      return self._cache[function]
    num_models = len(self.membership)
    statistics = {name: [[] for _ in self.queries] for name in self.names}
    with progress_bar(num_models, "shadow answers", "model") as bar:
      for model in range(num_models):
        record = self._read(model)
        for defended in self._fitted(model, record, self._predictors):
          answers = self._answers(model, record, defended)
          last = len(self.queries) if defended.policy.draws else 1
          for of_queries, k in zip(
            statistics[defended.name][:last], self.queries, strict=False
          ):
            of_queries.append(np.asarray(answers.statistic(function, k), np.float32))
        bar.update()
    self._cache[function] = {
      name: [np.stack(values) for values in of_queries if values]
      for name, of_queries in statistics.items()
    }
    return self._cache[function]
