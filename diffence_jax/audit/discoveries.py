"""How many members an attacker can name, with a bound on how many of those named are none."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from diffence_jax.metrics.discoveries import benjamini_hochberg, conformal_p_values, most_named

LEVELS = (0.05, 0.1)


class Named(NamedTuple):
  """Whom an attacker can name at one level, each the mean over models as targets.

  Attributes:
    named: samples called members with a false discovery rate of at most the level.
    false_share: the share of non-members among them that came of it, 0 where nobody is called.
    surely: samples that can be called so that with a chance of 95% at most this share is false.
  """

  named: float
  false_share: float
  surely: float


@dataclasses.dataclass(frozen=True)
class NamedRow:
  """How many members an attacker can name on one predictor.

  Attributes:
    predictor: as tables write it.
    num_models: S, each as the target in turn.
    num_calibration: non-members that the attacker knows, the mean over models.
    num_members: members among the samples that are judged, the mean over models.
    num_nonmembers: non-members among them.
    at: level to whom it can name.
  """

  predictor: str
  num_models: int
  num_calibration: float
  num_members: float
  num_nonmembers: float
  at: Mapping[str, Named]


def who_can_be_named(
  name: str, scores: np.ndarray, membership: np.ndarray, seed: int
) -> NamedRow:
  """Conformal p-values from known non-members that nothing is fitted to; see `metrics`.

  Of every model a random half of the reported non-members is known to the attacker; all other
  reported samples are judged together.

  Args:
    name: of the predictor.
    scores: f64[S,N] of the reported samples, of every model in turn.
    membership: bool[S,N].
    seed: of the halves.
  """
  draw = np.random.default_rng([2, seed])
  sizes, found = [], {level: [] for level in LEVELS}
  for of_model, members in zip(scores, membership, strict=True):
    known = draw.permutation(np.flatnonzero(~members))[: -(-int((~members).sum()) // 2)]
    judged = np.delete(np.arange(len(members)), known)
    p_values = conformal_p_values(of_model[judged], of_model[known])
    sizes.append((len(known), members.sum(), len(judged) - members.sum()))
    for level, of_level in found.items():
      called = benjamini_hochberg(p_values, level)
      wrong = (called & ~members[judged]).sum()
      sure = most_named(p_values, level)
      of_level.append((called.sum(), wrong / max(called.sum(), 1), sure))
  means = {str(level): np.mean(of_level, axis=0).tolist() for level, of_level in found.items()}
  at = {level: Named(*values) for level, values in means.items()}
  return NamedRow(name, len(scores), *np.mean(sizes, axis=0).tolist(), at)
