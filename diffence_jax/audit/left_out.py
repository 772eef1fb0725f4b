"""What attacks find without each pair of models, where there are few of them.

Few models that are attacked in turn hang together: each is most of what the others are
attacked with. How far a figure would move with other models is then seen only if all attacks
are run anew without each pair (`metrics.clustered_roc`). With many it costs much and adds
nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from diffence_jax import metrics
from diffence_jax.audit.answers import DefendedEnsemble
from diffence_jax.audit.chosen import chosen_elsewhere
from diffence_jax.audit.in_turn import pairs_of, scores_in_turn
from diffence_jax.named import Choice

# As many models are enough for intervals without it.
ENOUGH_MODELS = 16
# With fewer, a target would be attacked with a single pair.
_FEWEST = 8


class LeftOut(NamedTuple):
  """AUCs without each of the P pairs of models.

  Attributes:
    aucs: attack and group of samples to f64[P].
    chosen: group to f64[P], of the attack that other models choose.
  """

  aucs: Mapping[tuple[str, str], np.ndarray]
  chosen: Mapping[str, np.ndarray]

  def of(self, attack: str, group: str) -> np.ndarray | None:
    """The AUCs of an attack on a group; None where they were not found."""
    return self.aucs.get((attack, group))


def without_each_pair(
  ensemble: DefendedEnsemble,
  attacks: Sequence[Choice],
  name: str,
  at: int,
  groups: Mapping[str, np.ndarray],
) -> LeftOut:
  """Runs all attacks with every model in turn anew, without each pair.

  Args:
    ensemble: the shadow models.
    attacks: those that are run.
    name: the policy that the models stand behind.
    at: the place among the numbers of queries.
    groups: name to bool[N], samples that figures are about.

  Returns:
    The AUCs; none with 16 models or more, and with fewer than 8.
  """
  pairs = pairs_of(ensemble.membership)
  if not _FEWEST <= len(pairs) < ENOUGH_MODELS:
    return LeftOut({}, {})
  aucs, chosen = {}, {}
  for pair in np.unique(pairs):
    left = pairs != pair
    scores = scores_in_turn(ensemble, attacks, name, at, left=left)
    for group, samples in groups.items():
      members = ensemble.membership[left][:, samples]
      of_group = {attack: scored[:, samples] for attack, scored in scores.items()}
      for attack, scored in of_group.items():
        auc = metrics.roc(scored[members], scored[~members]).auc
        aucs.setdefault((attack, group), []).append(auc)
      row = chosen_elsewhere(name, of_group, members, pairs[left])
      chosen.setdefault(group, []).append(row.auc.value)
  as_arrays = lambda found: {key: np.array(values) for key, values in found.items()}
  return LeftOut(as_arrays(aucs), as_arrays(chosen))
