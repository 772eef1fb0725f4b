"""The same selection from fewer candidates: an image that has its answer draws no more.

Selection takes the first acceptable candidate in generation order, and the noise of a candidate
depends on nothing but its own sample and number. So candidates are drawn in rounds, and what is
selected is what drawing all of them would have selected: the same index and label, the same
logits but for rounding.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffence_jax import parallel
from diffence_jax.batching import cut
from diffence_jax.compiling import shared
from diffence_jax.defense.candidates import check_settings
from diffence_jax.defense.interval import interval_policy
from diffence_jax.defense.on_host import in_parts, make_host_answers
from diffence_jax.defense.pairs import as_key, chunk_size_for, pair_logits
from diffence_jax.defense.policy import RankPolicy
from diffence_jax.defense.policy import ranks as ranks_by
from diffence_jax.defense.select import ACCEPTED
from diffence_jax.diffusion.schedule import Schedule
from diffence_jax.predictor import (
  Denoise,
  Predict,
  are_finite,
  as_argument,
  check_function,
  runs_on_host,
)


class EarlySelection(NamedTuple):
  """The returned predictions, and what it took to find them.

  Attributes:
    logits: [N,K], the returned logits, those of the chosen candidate.
    index: i32[N], the chosen candidate; M is the raw prediction.
    drawn: i32[N], how many of its M candidates were drawn: as many as were needed, or a few
      more. It tells what the returned logits are to hide, so it is not for clients to see.
    finite: bool[N], whether all that were drawn have a finite largest logit.
    evaluations: how many re-generations went through the networks, with those that only filled
      a batch; at least the sum of `drawn`.
  """

  logits: jax.Array
  index: jax.Array
  drawn: jax.Array
  finite: jax.Array
  evaluations: int


def make_early_selection(
  predict: Predict,
  denoise: Denoise,
  schedule: Schedule,
  *,
  num_candidates: int = 30,
  policy: RankPolicy | None = None,
  chunk_size: int | None = None,
  mesh: Mesh | None = None,
  **sampler: Any,
) -> Callable[[jax.Array, jax.Array, jax.Array, jax.Array], EarlySelection]:
  """Builds `policy.select(candidate_logits(...), raw)` that stops drawing early.

  Driven from the host: in every round the images without an answer draw their next candidate,
  in batches of a few sizes, each compiled when it is first needed: `chunk_size`, a 4th, a 16th
  and a 64th of it. Images that do not fill the smallest size wait for the next round, and when
  only such are left each draws several candidates at once. Memory grows neither with M nor,
  but for images and answers, with N.

  Args:
    predict: this and the next two as `candidate_logits` takes them.
    denoise: the noise-prediction network.
    schedule: its noise schedule.
    num_candidates: M, at least 1.
    policy: what ranks candidates; None for scenario 3.
    chunk_size: the most re-generations that go through the networks at a time, on every device;
      None as in `candidate_logits`.
    mesh: as `parallel.batch_mesh` makes it, to split every round over it; None for one device.
    **sampler: as `reconstruct` takes it, with `step`.

  Returns:
    `(key, images f32[N,H,W,C] in [0,1], ids i32[N], raw f[N,K]) -> EarlySelection`, for any N;
    `raw` is `predict`'s answer to the images. It raises TypeError under a caller's `jit`.

  Raises:
    TypeError: there is no such setting.
    ValueError: a setting is out of its range.
  """
  check_function("predict", predict, "key, images")
  check_function("denoise", denoise, "x, t")
  check_settings(schedule, None, num_candidates, chunk_size, **sampler)
  policy = interval_policy(None) if policy is None else policy
  draw = _make_draw(predict, denoise, schedule, mesh, **sampler)
  chunk_size_of = chunk_size_for(chunk_size, predict, denoise, schedule, **sampler)

  def early_selection(key, images, ids, raw):
    _refuse_traced(key, images, ids, raw)
    images, ids, raw = np.asarray(images), np.asarray(ids, np.int32), np.array(raw)
    sizes = _batch_sizes(chunk_size_of(images.shape[1:]), mesh)
    best = _Best.before_any(raw, num_candidates)
    pending, evaluations = np.arange(len(images)), 0
    while pending.size:
      rows, candidates = _next_pairs(pending, best.drawn, num_candidates, sizes[-1])
      pairs = images[rows], ids[rows], candidates
      best.update(rows, candidates, *draw(key, policy, pairs, raw[rows], sizes))
      evaluations += sum(size for _, size in cut(len(rows), sizes))
      is_open = (best.rank[pending] > ACCEPTED) & (best.drawn[pending] < num_candidates)
      pending = pending[is_open]
    raw_is_better = best.raw_rank < best.rank
    best.logits[raw_is_better], best.index[raw_is_better] = raw[raw_is_better], num_candidates
    results = best.logits, best.index, best.drawn, best.finite
    return EarlySelection(*(jnp.asarray(array) for array in results), evaluations)

  return early_selection


class _Best(NamedTuple):
  """The best candidate of every image so far, in arrays that every round writes to."""

  logits: np.ndarray  # [N,K], the candidate's; the raw ones before any.
  index: np.ndarray  # i32[N], its number; M before any.
  rank: np.ndarray  # f32[N], lower is better; infinite before any.
  raw_rank: np.ndarray  # f32[N], the raw prediction's; known from the first round on.
  drawn: np.ndarray  # i32[N], candidates drawn.
  finite: np.ndarray  # bool[N], whether they all have a finite largest logit.

  @classmethod
  def before_any(cls, raw: np.ndarray, num_candidates: int) -> "_Best":
    """Where every image stands before the first round."""
    num = len(raw)
    return cls(
      logits=raw.copy(),
      index=np.full(num, num_candidates, np.int32),
      rank=np.full(num, np.inf, np.float32),
      raw_rank=np.zeros(num, np.float32),
      drawn=np.zeros(num, np.int32),
      finite=np.ones(num, bool),
    )

  def update(
    self, rows: np.ndarray, candidates: np.ndarray, logits: np.ndarray, ranks: np.ndarray
  ) -> None:
    """Takes over from a round's P pairs what is better; results as `_make_draw`'s."""
    self.raw_rank[rows] = ranks[:, 1]
    chosen = _best_of_each(rows, candidates, ranks[:, 0])
    chosen = chosen[ranks[chosen, 0] < self.rank[rows[chosen]]]
    at = rows[chosen]
    self.logits[at], self.index[at] = logits[chosen], candidates[chosen]
    self.rank[at] = ranks[chosen, 0]
    np.add.at(self.drawn, rows, 1)
    np.logical_and.at(self.finite, rows, are_finite(logits))


def _refuse_traced(*given: Any) -> None:
  """Raises TypeError under a caller's `jit`."""
  if any(isinstance(array, jax.core.Tracer) for array in given):
    raise TypeError(
      "Early exit looks at every round's results before it draws the next, so it cannot be "
      "jitted, mapped or exported; call it outside, or use constant_time=True."
    )


def _make_draw(
  predict: Predict, denoise: Denoise, schedule: Schedule, mesh: Mesh | None, **sampler: Any
) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
  """Builds the drawing of P pairs, in batches of the sizes.

  Args:
    predict: this and the next two as `candidate_logits` takes them.
    denoise: the noise-prediction network.
    schedule: its noise schedule.
    mesh: to split the pairs over; None for one device.
    **sampler: as `reconstruct` takes it, with `step`.

  Returns:
    `(key, policy, pairs, raw f[P,K], sizes) -> (logits f[P,K], ranks f32[P,2])`, the ranks of
    the candidates and of the raw ones.
  """
  if runs_on_host(predict):
    answer = make_host_answers(predict, denoise, schedule, mesh=mesh, **sampler)

    def draw_and_ask(key, policy, pairs, raw, sizes):
      logits = answer(key, pairs, sizes)
      rank = lambda logits, raw: ranks_by(policy, logits[:, None], raw)
      return logits, in_parts(rank, (logits, raw), sizes)

    return draw_and_ask

  place = lambda tree: tree if mesh is None else parallel.replicate(mesh, tree)
  networks, fixed = (as_argument(predict), as_argument(denoise), schedule), as_key(sampler)
  placed = place(networks)

  def draw_parts(key, policy, pairs, raw, sizes):
    compiled = _compile_draw(jax.tree.structure((policy, networks)), mesh, *fixed)
    shared = (*place((key, policy)), placed)
    return in_parts(functools.partial(compiled, shared), (*pairs, raw), sizes, mesh)

  return draw_parts


# By the networks too, so that no more than a few that are gone are held by their programs.
@shared(16)
def _compile_draw(structure, mesh, *sampler):
  """Compiles a round's draws; for networks and a policy of one structure, once."""
  del structure

  def draw(shared, images, ids, candidates, raw):
    key, policy, networks = shared
    logits = pair_logits(key, *networks, images, ids, candidates, **dict(sampler))
    return logits, policy.ranks(logits[:, None], raw)

  return jax.jit(draw if mesh is None else parallel.map_over_batch(draw, mesh))


def _batch_sizes(chunk_size: int, mesh: Mesh | None) -> list[int]:
  """The sizes of batches over all devices, the largest first."""
  num_devices = 1 if mesh is None else mesh.size
  sizes = {max(1, chunk_size // part) * num_devices for part in (1, 4, 16, 64)}
  return sorted(sizes, reverse=True)


def _next_pairs(
  pending: np.ndarray, drawn: np.ndarray, num_candidates: int, smallest: int
) -> tuple[np.ndarray, np.ndarray]:
  """What a round draws: rows i[P] and candidates i32[P], each row's in generation order."""
  if len(pending) >= smallest:
    rows = pending[: len(pending) // smallest * smallest]
    return rows, drawn[rows]
  further = drawn[pending] + np.arange(num_candidates, dtype=np.int32)[:, None]
  rows = np.broadcast_to(pending, further.shape)
  there = further < num_candidates
  return rows[there][:smallest], further[there][:smallest]


def _best_of_each(rows: np.ndarray, candidates: np.ndarray, ranks: np.ndarray) -> np.ndarray:
  """Positions i[R] of every row's lowest rank, of equal ones the earliest candidate's."""
  order = np.lexsort((candidates, ranks, rows))
  return order[np.unique(rows[order], return_index=True)[1]]
