"""Which candidate's prediction is returned: one that keeps the label."""

from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffence_jax.checks import check_labels
from diffence_jax.predictor import are_finite, check_answers, check_classes, to_array

# The rank of an option that is taken at once; all others' are at least 0.
ACCEPTED = -1.0


class Selection(NamedTuple):
  """The returned predictions.

  Attributes:
    logits: [N,K], the returned logits, bit for bit those of the chosen candidate.
    index: i32[N], the chosen candidate; M is the raw prediction.
    kept: i32[N], how many of the M candidates keep the label of the raw prediction.
  """

  logits: jax.Array
  index: jax.Array
  kept: jax.Array


def scaled_logit(logits: jax.Array, labels: jax.Array | None = None) -> jax.Array:
  """The confidence on an unbounded scale: `phi = log(p / (1 - p))`.

  Computed from logits, `z - logsumexp(others)`, so that it stays finite as p tends to 1
  (Carlini et al. 2022, section IV.C).

  Args:
    logits: f[..., K], K at least 2.
    labels: i[...], the class whose probability p is meant; None for the largest one.

  Returns:
    f32[...].

  Raises:
    TypeError: logits or labels are no such numbers.
    ValueError: fewer than two classes, or a label that is none of them.

  Example:
    >>> import numpy as np
    >>> import diffence_jax as dj
    >>> p = np.array([0.9, 0.06, 0.04])
    >>> phi = dj.scaled_logit(np.log(p))
    >>> np.isclose(phi, np.log(0.9 / 0.1)).item()
    True
  """
  logits = check_answers(logits, values=False).astype(jnp.float32)
  chosen = jnp.argmax(logits, axis=-1) if labels is None else _check_labels(labels, logits)
  is_chosen = jax.nn.one_hot(chosen, logits.shape[-1], dtype=bool)
  logit = jnp.sum(jnp.where(is_chosen, logits, 0.0), axis=-1)
  return logit - jax.nn.logsumexp(jnp.where(is_chosen, -jnp.inf, logits), axis=-1)


def keeps_label(candidate_logits: jax.Array, raw_logits: jax.Array) -> jax.Array:
  """bool[N,M]: the candidate's arg-max is the raw one's, and its largest logit is finite.

  Args:
    candidate_logits: f[N,M,K].
    raw_logits: f[N,K].

  Returns:
    bool[N,M].
  """
  same = jnp.argmax(candidate_logits, axis=-1) == jnp.argmax(raw_logits, axis=-1)[:, None]
  return same & are_finite(candidate_logits)


def select(
  candidate_logits: jax.Array,
  raw_logits: jax.Array,
  interval: tuple[float, float] | None = None,
) -> Selection:
  """Chooses for every sample one prediction that keeps its label.

  With an interval: the first label-preserving candidate, in generation order and the raw
  prediction last, whose phi lies in the interval; if there is none, the label-preserving one
  (the raw prediction among them) whose phi is nearest to the interval's midpoint. Without:
  the first label-preserving candidate, the raw prediction if there is none (scenario 3). The
  returned arg-max is the raw one's in every case.

  Args:
    candidate_logits: f[N,M,K].
    raw_logits: f[N,K], of the same dtype.
    interval: (lo, hi) on phi, lo <= hi; None for scenario 3.

  Returns:
    The selection.

  Raises:
    TypeError: logits are no floating-point numbers.
    ValueError: the shapes do not fit, the interval is not one, or raw logits are NaN, +inf or
      nothing but -inf. (Candidates that are so are passed over, and are not `kept`.)

  Example:
    One image of two classes, three candidates: the first has lost the label, 0; phi of the
    other two is 4 and 1.

    >>> import numpy as np
    >>> import diffence_jax as dj
    >>> candidates = np.array([[[0.0, 2.0], [4.0, 0.0], [1.0, 0.0]]])
    >>> raw = np.array([[5.0, 0.0]])
    >>> dj.select(candidates, raw).index.tolist()
    [1]
    >>> dj.select(candidates, raw, interval=(0.5, 2.0)).index.tolist()
    [2]
  """
  candidate_logits = check_answers(candidate_logits, "candidate_logits", 3, values=False)
  raw_logits = check_answers(raw_logits, "raw_logits", 2)
  return select_by_rank(candidate_logits, raw_logits, interval_rank(interval))


@jax.jit
def select_by_rank(
  candidate_logits: jax.Array,
  raw_logits: jax.Array,
  rank: Callable[[jax.Array], jax.Array],
) -> Selection:
  """Chooses the option of the lowest rank, the first of equal ones; see `rank_options`."""
  index = jnp.argmin(rank_options(candidate_logits, raw_logits, rank), axis=1)
  kept = jnp.sum(keeps_label(candidate_logits, raw_logits), axis=1, dtype=jnp.int32)
  options = jnp.concatenate([candidate_logits, raw_logits[:, None]], axis=1)
  logits = jnp.take_along_axis(options, index[:, None, None], axis=1)[:, 0]
  return Selection(logits=logits, index=index.astype(jnp.int32), kept=kept)


def rank_options(
  candidate_logits: jax.Array,
  raw_logits: jax.Array,
  rank: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """How good a choice every option is: the first of the lowest rank is selected.

  The rank of an option depends on nothing but its own logits and the label, so a lower one may
  end the search before the others are drawn: none is below `ACCEPTED`.

  Args:
    candidate_logits: f[N,M,K].
    raw_logits: f[N,K], of the same dtype.
    rank: `logits f[...,K] -> f32[...]`, as `policy.RankPolicy` has it.

  Returns:
    f32[N,M+1], the raw prediction last: the rank of an option that keeps the label, `ACCEPTED`
    or at least 0 and finite; infinity where the label is lost.

  Raises:
    ValueError: the shapes do not fit.
  """
  check_fit(candidate_logits, raw_logits)
  options = jnp.concatenate([candidate_logits, raw_logits[:, None]], axis=1)
  # The raw prediction keeps its label, whatever its logits.
  valid = jnp.pad(
    keeps_label(candidate_logits, raw_logits), ((0, 0), (0, 1)), constant_values=True
  )
  ranks = rank(options).astype(jnp.float32)
  # Finite, so that an option that loses the label, at infinity, is never the best.
  largest = jnp.finfo(jnp.float32).max
  others = jnp.clip(jnp.where(jnp.isnan(ranks), largest, ranks), 0.0, largest)
  ranks = jnp.where(ranks == ACCEPTED, ACCEPTED, others)
  return jnp.where(valid, ranks, jnp.inf)


def interval_rank(interval: tuple[float, float] | None) -> Partial:
  """The rank of `select`: whether phi is in an interval, or how far from its midpoint it is.

  Args:
    interval: (lo, hi) on phi; None accepts every option (scenario 3).

  Returns:
    `logits f[...,K] -> f32[...]`, a pytree with the interval as leaves.

  Raises:
    ValueError: the interval is not one.
  """
  return Partial(_accept) if interval is None else Partial(_rank, check_interval(interval))


def check_interval(interval: tuple[float, float]) -> tuple[float, float]:
  """Returns (lo, hi) as floats; raises ValueError unless finite in float32 and lo <= hi."""
  try:
    is_ordered = not isinstance(interval, str | bytes | Mapping | Set)
    lo, hi = (float(end) for end in (interval if is_ordered else ()))
  except (TypeError, ValueError) as error:
    raise ValueError(f"interval is {interval!r}; expected two numbers, (lo, hi).") from error
  largest = float(jnp.finfo(jnp.float32).max)
  if not -largest <= lo <= hi <= largest:
    raise ValueError(f"interval is {interval}; expected finite (lo, hi) with lo <= hi.")
  return lo, hi


def check_fit(candidate_logits: jax.Array, raw_logits: jax.Array) -> None:
  """Raises ValueError unless candidates [N,M,K] and raw predictions [N,K] go together."""
  for name, logits in (("candidate_logits", candidate_logits), ("raw_logits", raw_logits)):
    if logits is None:
      raise ValueError(f"{name} are None; expected logits, as this policy looks at them.")
  if (
    candidate_logits.ndim != 3
    or raw_logits.shape != candidate_logits.shape[::2]
    or candidate_logits.dtype != raw_logits.dtype
  ):
    raise ValueError(
      f"candidate_logits are {candidate_logits.dtype}{list(candidate_logits.shape)} and "
      f"raw_logits {raw_logits.dtype}{list(raw_logits.shape)}; expected [N, M, K] and "
      "[N, K] of one dtype."
    )
  check_classes(raw_logits.shape[-1], "raw_logits")


def _accept(logits):
  return jnp.full(logits.shape[:-1], ACCEPTED, jnp.float32)


def _rank(interval, logits):
  lo, hi = interval
  phi = scaled_logit(logits)
  largest = jnp.finfo(jnp.float32).max
  distance = jnp.abs(jnp.clip(phi, -largest, largest) - (0.5 * lo + 0.5 * hi))
  return jnp.where((phi >= lo) & (phi <= hi), ACCEPTED, distance)


def _check_labels(labels, logits):
  labels, num_classes = to_array(labels, "labels"), logits.shape[-1]
  if not jnp.issubdtype(labels.dtype, jnp.integer):
    raise TypeError(f"labels have dtype {labels.dtype}; expected integers.")
  if labels.shape != logits.shape[:-1]:
    raise ValueError(
      f"labels have shape {list(labels.shape)}; expected {list(logits.shape[:-1])}, that of "
      "the logits without their last axis."
    )
  if labels.size and not isinstance(labels, jax.core.Tracer):
    check_labels("labels", np.asarray(labels), num_classes)
  return labels
