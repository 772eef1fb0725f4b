"""How much is at risk, from the losses alone: what the members' tail of high losses lacks."""

import numpy as np
from numpy.typing import ArrayLike

from diffence_jax.checks import check_numbers, check_range
from diffence_jax.metrics.roc import Rate, roc


def loss_tail(
  member_losses: ArrayLike, nonmember_losses: ArrayLike, *, limit: float = 0.01
) -> Rate:
  """The share of non-members whose loss is above that of nearly all members.

  The true-negative rate of the attack that calls a low loss a member, at a false-negative rate
  of at most `limit`. Training takes members out of the tail of high losses; Dodd et al. 2025,
  "The Tail Tells All" (arXiv:2510.19773), report that how empty the tail is predicts the
  true-positive rate of LiRA at a low false-positive rate, over many models, without any shadow
  model. It is a prediction of a model's risk, no attack, and says nothing of single samples. Of
  the paper we have the abstract; that both rates are read at the same limit is ours.

  Args:
    member_losses: f[N], of samples that the model was trained on.
    nonmember_losses: f[M], of others.
    limit: in [0, 1].

  Returns:
    The rate and its interval.

  Raises:
    ValueError: as `roc`, or the limit is out of its range.
  """
  check_range("limit", limit, 0.0, 1.0)
  members, nonmembers = (
    -np.asarray(check_numbers(name, losses), np.float64)
    for name, losses in (
      ("member_losses", member_losses),
      ("nonmember_losses", nonmember_losses),
    )
  )
  return roc(members, nonmembers).tnr_at_fnr(limit)
