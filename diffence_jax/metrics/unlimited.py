"""What an attack would reach with queries without limit, from figures of a few.

An attacker that averages R independent answers sees their mean with a variance of 1/R of one
answer's. To first order in that variance its AUC is then a line,

  AUC(R) = a + b/R,

whose intercept a is the AUC at the expected answer itself. Where the noise of one answer is not
small against what tells members apart, the line is a chord: `misfit` says by how much it misses
what was measured. It holds for attacks that average, and for answers that are independent.

The intercept of a least squares line is a weighted sum of the AUCs, with weights that depend on
the numbers of queries alone; so what every score adds to it is the same sum of what it adds to
each AUC, and the variance is two-way as that of an AUC is (`two_way.py`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.checks import check_numbers
from diffence_jax.metrics.clustered import (
  auc_estimate,
  auc_shares,
  check_jackknife,
  check_scores,
)
from diffence_jax.metrics.intervals import Estimate
from diffence_jax.metrics.roc import roc
from diffence_jax.metrics.two_way import spread


class Unlimited(NamedTuple):
  """The AUC that figures of a few queries point to.

  Attributes:
    auc: the intercept a, cut off at 0 and 1, with its 95% interval over models and samples; it
      does not know of what is not on a line.
    misfit: the largest distance of a measured AUC from the line.
  """

  auc: Estimate
  misfit: float


def unlimited_auc(
  scores: Sequence[ArrayLike],
  inverse_queries: Sequence[float],
  membership: ArrayLike,
  *,
  models: ArrayLike | None = None,
  jackknife: Sequence[ArrayLike] | None = None,
) -> Unlimited:
  """Fits AUC(R) = a + b/R by least squares.

  Args:
    scores: f[T,N] for every number of queries, higher means more likely a member of target t.
    inverse_queries: 1/R of each, above 0 and at most 1; where samples got different numbers of
      independent answers, the mean of 1/R. Where all are the same, as of an answer that never
      changes, the last AUC is taken as it is.
    membership: bool[T,N], whether sample n is a member of target t.
    models: as for `clustered_roc`.
    jackknife: as there, for every number of queries.

  Returns:
    The intercept with its interval, and how well the line fits.

  Raises:
    ValueError: as by `clustered_roc`, or the numbers of queries do not fit the scores or the
      jackknife.
  """
  inverse = check_numbers("inverse_queries", inverse_queries).astype(np.float64)
  if inverse.shape != (len(scores),) or not np.all((inverse > 0.0) & (inverse <= 1.0)):
    raise ValueError(
      f"inverse_queries is {inverse.tolist()}; expected one number for each of {len(scores)} "
      "numbers of queries, above 0 and at most 1."
    )
  if jackknife is not None and len(jackknife) != len(scores):
    raise ValueError(
      f"Got jackknife of {len(jackknife)} numbers of queries; expected {len(scores)}."
    )
  weights = intercept_weights(inverse)
  aucs, shares = np.empty(len(inverse)), 0.0
  for at, (weight, of_queries) in enumerate(zip(weights, scores, strict=True)):
    checked, members, groups = check_scores(of_queries, membership, models)
    aucs[at] = roc(checked[members], checked[~members]).auc
    shares = shares + weight * auc_shares(checked, members, aucs[at])
  intercept, anew = weights @ aucs, None
  if jackknife is not None:
    anew = weights @ [check_jackknife("jackknife", without, groups) for without in jackknife]
  estimate = auc_estimate(
    float(np.clip(intercept, 0.0, 1.0)), spread(shares, groups, anew), groups
  )
  if np.ptp(inverse) == 0.0:
    return Unlimited(estimate, 0.0)
  slope = (aucs - intercept) @ inverse / (inverse @ inverse)
  return Unlimited(estimate, float(np.abs(aucs - intercept - slope * inverse).max()))


def intercept_weights(inverse_queries: np.ndarray) -> np.ndarray:
  """Weights f64[n] whose sum with n figures is the intercept of their least squares line.

  Args:
    inverse_queries: f64[n], where the figures stand; where all are the same, the last counts.
  """
  if np.ptp(inverse_queries) == 0.0:
    return np.eye(len(inverse_queries))[-1]
  line = np.stack([np.ones_like(inverse_queries), inverse_queries], axis=1)
  return np.linalg.pinv(line)[0]
