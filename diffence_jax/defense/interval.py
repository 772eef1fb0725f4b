"""The interval on phi that selection aims at, from the samples a defender knows."""

import itertools

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.defense.policy import RankPolicy, Record
from diffence_jax.defense.select import interval_rank, keeps_label, scaled_logit
from diffence_jax.metrics.divergence import jensen_shannon_distances
from diffence_jax.predictor import check_answers, check_logits

_GRID_STEPS = 20
# Ends are phi of known candidates. Wider by so many of float32's last places, they have each of
# these inside, however its phi is rounded in a batch of another size.
_SLACK = 2


def fit_interval(
  member_candidates: ArrayLike,
  member_raw: ArrayLike,
  nonmember_candidates: ArrayLike,
  nonmember_raw: ArrayLike,
) -> tuple[float, float]:
  """The interval that makes members and non-members look most alike (scenario 1).

  A grid search (the paper, section IV.B): both ends lie on a 20-step grid from the smallest
  phi of the members' label-preserving candidates to the largest one of the non-members';
  taken is the pair with the least Jensen-Shannon distance between the phi that selection then
  returns for members and for non-members. All pairs are evaluated at once.

  Args:
    member_candidates: f[N,M,K], candidate logits of known members.
    member_raw: f[N,K], their raw logits.
    nonmember_candidates: f[N',M,K], those of known non-members.
    nonmember_raw: f[N',K].

  Returns:
    (lo, hi), lo <= hi.

  Raises:
    TypeError: logits are no floating-point numbers.
    ValueError: one of the two groups has no label-preserving candidate, shapes do not fit, or
      raw logits are NaN, +inf or nothing but -inf, or look like probabilities.
  """
  member_phi, member_valid = _phi_of_options(member_candidates, member_raw, "member")
  nonmember_phi, nonmember_valid = _phi_of_options(
    nonmember_candidates, nonmember_raw, "nonmember"
  )
  if (classes := np.shape(member_raw)[1]) != (others := np.shape(nonmember_raw)[1]):
    raise ValueError(
      f"member_raw has {classes} classes and nonmember_raw {others}; expected answers of one "
      "classifier."
    )
  ends = (
    _candidates_phi(member_phi, member_valid, "members").min(),
    _candidates_phi(nonmember_phi, nonmember_valid, "non-members").max(),
  )
  # The published grid runs upwards; groups that do not overlap at all would turn it around.
  grid = np.linspace(min(ends), max(ends), _GRID_STEPS + 1)
  pairs = np.array(list(itertools.combinations(range(len(grid)), 2)))
  member_selected = _selected_phi(member_phi, member_valid, grid, pairs)
  nonmember_selected = _selected_phi(nonmember_phi, nonmember_valid, grid, pairs)
  best = np.argmin(jensen_shannon_distances(member_selected, nonmember_selected))
  return _widened(*grid[pairs[best]])


def member_interval(member_candidates: ArrayLike, member_raw: ArrayLike) -> tuple[float, float]:
  """From the smallest to the mean phi of the members' candidates (scenario 2).

  Args:
    member_candidates: f[N,M,K], candidate logits of known members.
    member_raw: f[N,K], their raw logits.

  Returns:
    (lo, hi), over the label-preserving candidates.

  Raises:
    TypeError: logits are no floating-point numbers.
    ValueError: no candidate keeps its label, shapes do not fit, or raw logits are NaN, +inf or
      nothing but -inf.
  """
  phi = _candidates_phi(*_phi_of_options(member_candidates, member_raw, "member"), "members")
  return _widened(phi.min(), phi.mean())


def published_interval(
  member_candidates: ArrayLike,
  member_raw: ArrayLike,
  nonmember_candidates: ArrayLike,
  nonmember_raw: ArrayLike,
) -> tuple[float, float]:
  """The wide interval the published code uses in scenario 3, for comparison with it.

  Args:
    member_candidates: f[N,M,K], candidate logits of known members.
    member_raw: f[N,K], their raw logits.
    nonmember_candidates: f[N',M,K], those of known non-members.
    nonmember_raw: f[N',K].

  Returns:
    From the smallest phi of the non-members' label-preserving candidates to the largest one
    of the members'.

  Raises:
    TypeError: logits are no floating-point numbers.
    ValueError: one of the two groups has no label-preserving candidate, shapes do not fit, or
      raw logits are NaN, +inf or nothing but -inf.
  """
  members = _candidates_phi(
    *_phi_of_options(member_candidates, member_raw, "member"), "members"
  )
  nonmembers = _candidates_phi(
    *_phi_of_options(nonmember_candidates, nonmember_raw, "nonmember"), "non-members"
  )
  return _widened(nonmembers.min(), members.max())


def interval_policy(interval: tuple[float, float] | None) -> RankPolicy:
  """The policy of `defense.select`.

  Args:
    interval: (lo, hi) on phi; None for scenario 3.

  Returns:
    The policy.

  Raises:
    ValueError: the interval is not one.
  """
  rank = interval_rank(interval)
  return RankPolicy(rank, None if interval is None else tuple(map(float, interval)))


def scenario_1(members: Record, nonmembers: Record) -> RankPolicy:
  """Selection with the interval of `fit_interval`."""
  return interval_policy(fit_interval(*_known(members, nonmembers)))


def scenario_2(members: Record, nonmembers: Record) -> RankPolicy:
  """Selection with the interval of `member_interval`; non-members are not looked at."""
  del nonmembers
  return interval_policy(member_interval(members.candidates, members.raw))


def scenario_3(members: Record, nonmembers: Record) -> RankPolicy:
  """The first candidate that keeps the label; nothing is fitted."""
  del members, nonmembers
  return interval_policy(None)


def scenario_3_published(members: Record, nonmembers: Record) -> RankPolicy:
  """Scenario 3 with the interval of the published code, `published_interval`."""
  return interval_policy(published_interval(*_known(members, nonmembers)))


def _widened(lo, hi):
  """The interval with room for the rounding of phi at its ends."""
  slack = [_SLACK * float(np.spacing(np.float32(abs(end)))) for end in (lo, hi)]
  return float(lo) - slack[0], float(hi) + slack[1]


def _known(members, nonmembers):
  return members.candidates, members.raw, nonmembers.candidates, nonmembers.raw


def _phi_of_options(candidates, raw, group):
  """Phi f64[N, M+1] of the candidates, then the raw prediction; and which are valid."""
  candidates = check_answers(candidates, f"{group}_candidates", 3, values=False)
  raw = check_answers(raw, f"{group}_raw", 2)
  if raw.shape != candidates.shape[::2]:
    raise ValueError(
      f"{group}_candidates have shape {list(candidates.shape)} and {group}_raw "
      f"{list(raw.shape)}; expected [N, M, K] and [N, K]."
    )
  candidates, raw = np.asarray(candidates), np.asarray(raw)
  check_logits(raw, f"{group}_raw")
  valid = np.asarray(keeps_label(candidates, raw))
  options = np.concatenate([candidates, raw[:, None]], axis=1)
  phi = np.nan_to_num(np.asarray(scaled_logit(options))).astype(np.float64)
  return phi, np.concatenate([valid, np.ones((len(raw), 1), bool)], axis=1)


def _candidates_phi(phi, valid, group):
  phi = phi[:, :-1][valid[:, :-1]]
  if not phi.size:
    raise ValueError(
      f"No candidate of the known {group} keeps its label, so no interval can be fitted; "
      "lower the purification step or draw more candidates."
    )
  return phi


def _selected_phi(phi, valid, grid, pairs):
  """Phi f64[P,N] that `select` returns for every pair of grid points."""
  first = _first_inside(phi, valid, grid)[pairs[:, 0], pairs[:, 1]]
  # A midpoint depends on the sum of the two grid indices alone. One at a time stays in cache.
  midpoints = np.linspace(grid[0], grid[-1], 2 * len(grid) - 1)
  reachable = np.where(valid, phi, np.inf)
  nearest = np.stack([np.abs(reachable - midpoint).argmin(axis=1) for midpoint in midpoints])
  index = np.where(first < phi.shape[1], first, nearest[pairs.sum(axis=1)])
  return phi[np.arange(len(phi)), index]


def _first_inside(phi, valid, grid):
  """The first valid option from grid point i to j, i32[G,G,N]; M + 1 where there is none."""
  # An option is inside for all i up to one grid point and all j from another one: it is noted
  # there, and spreads. What is outside for all is noted in a last row or column of its own.
  most_i = np.where(valid, np.searchsorted(grid, phi, "right") - 1, -1)
  least_j = np.searchsorted(grid, phi, "left")
  num_samples, num_options = phi.shape
  first = np.full((len(grid) + 1, len(grid) + 1, num_samples), num_options, np.int32)
  for option in reversed(range(num_options)):
    first[most_i[:, option], least_j[:, option], np.arange(num_samples)] = option
  first = np.minimum.accumulate(first[-2::-1, :-1], axis=0)[::-1]
  return np.minimum.accumulate(first, axis=1)
