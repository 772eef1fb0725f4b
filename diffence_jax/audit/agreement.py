"""How far attacks agree on whom they find."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from diffence_jax.attacks.attack import declaration_of

# The FPR at which an attack's members are found.
LIMIT = 0.01


@dataclasses.dataclass(frozen=True)
class AgreementRow:
  """Whom the attacks on one predictor find, each at a FPR of at most `LIMIT`.

  Attributes:
    predictor: as tables write it.
    num_members: reported ones.
    titles: the attacks that were run on all reported samples, as reports write them.
    both: for every two attacks the members that both find; the diagonal has those of one.
    by_any: members that at least one attack finds.
    by_half: members that at least half of the attacks find.
  """

  predictor: str
  num_members: int
  titles: tuple[str, ...]
  both: tuple[tuple[int, ...], ...]
  by_any: int
  by_half: int


def agreement(
  scores: Iterable[tuple[str, str, np.ndarray]], is_member: np.ndarray, reported: np.ndarray
) -> tuple[AgreementRow, ...]:
  """A row for every predictor.

  Args:
    scores: predictor, attack and f64[N], NaN for samples that it was not run on; such attacks
      are left out.
    is_member: bool[N].
    reported: bool[N], the samples that figures are about.
  """
  hits: dict[str, dict[str, np.ndarray]] = {}
  members, others = reported & is_member, reported & ~is_member
  for predictor, attack, values in scores:
    of_predictor = hits.setdefault(predictor, {})
    if not np.isnan(values[reported]).any():
      of_predictor[attack] = found(values[members], values[others])
  return tuple(_row(predictor, of_attacks) for predictor, of_attacks in hits.items())


def found(member_scores: np.ndarray, nonmember_scores: np.ndarray) -> np.ndarray:
  """Which members bool[m] are found where at most a share `LIMIT` of n non-members is."""
  num = len(nonmember_scores)
  as_high = num - np.searchsorted(np.sort(nonmember_scores), member_scores, "left")
  return as_high <= LIMIT * num + 1e-9


def _row(predictor, of_attacks):
  hits = np.array(list(of_attacks.values()), int)
  times = hits.sum(axis=0)
  return AgreementRow(
    predictor=predictor,
    num_members=hits.shape[1],
    titles=tuple(declaration_of(attack).title for attack in of_attacks),
    both=tuple(map(tuple, (hits @ hits.T).tolist())),
    by_any=int((times > 0).sum()),
    by_half=int((2 * times >= len(hits)).sum()),
  )
