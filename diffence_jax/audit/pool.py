"""The samples of an audit: who is a member, and whose membership is known."""

from typing import NamedTuple

import numpy as np

PROTOCOLS = ("disjoint", "paper")


class Pool(NamedTuple):
  """Samples that models are asked about.

  Attributes:
    ids: i64[N], stable ids.
    labels: i[N], the labels that training sees; wrong ones for mislabelled canaries.
    is_member: bool[N], of the target; half of the canaries are, with their wrong labels.
    is_known: bool[N], whose membership of the target is known to attacker and defender.
    is_canary: bool[N].
  """

  ids: np.ndarray
  labels: np.ndarray
  is_member: np.ndarray
  is_known: np.ndarray
  is_canary: np.ndarray

  def take(self, rows: np.ndarray | slice) -> "Pool":
    """Some of the samples, by place or by a mask."""
    return Pool(*(values[rows] for values in self))

  @property
  def natural(self) -> "Pool":
    """The samples that are no canaries."""
    return self.take(~self.is_canary)

  def known(self) -> tuple[np.ndarray, np.ndarray]:
    """Places of the known members and of the known non-members."""
    return (
      np.flatnonzero(self.is_known & self.is_member),
      np.flatnonzero(self.is_known & ~self.is_member),
    )

  def reported(self, protocol: str) -> np.ndarray:
    """bool[N], the samples that figures are about: with "disjoint" those that are not known."""
    return ~self.is_canary if protocol == "paper" else ~self.is_canary & ~self.is_known
