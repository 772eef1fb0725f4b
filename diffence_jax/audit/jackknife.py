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

# With fewer models no pair can be left out.
LEAST_MODELS = 8
# As many models are enough for intervals without it.
ENOUGH_MODELS = 16


class Jackknife(NamedTuple):
  """AUCs without each of the P pairs of models.

  Attributes:
    aucs: attack and group of samples to f64[P].
    chosen: f64[P], of the attack that other models choose, on one of the groups.
  """

  aucs: Mapping[tuple[str, str], np.ndarray]
  chosen: np.ndarray | None

  def of(self, attack: str, group: str) -> np.ndarray | None:
    """The AUCs of an attack on a group; None where they were not found."""
    return self.aucs.get((attack, group))


def without_each_pair(
  ensemble: DefendedEnsemble,
  attacks: Sequence[Choice],
  name: str,
  at: int,
  groups: Mapping[str, np.ndarray],
  *,
  chosen_on: str | None = None,
) -> Jackknife:
  """Runs all attacks with every model in turn anew, without each pair.

  Args:
    ensemble: the shadow models.
    attacks: those that are run.
    name: the policy that the models stand behind.
    at: the place among the numbers of queries.
    groups: name to bool[N], samples that figures are about.
    chosen_on: the group that `chosen_elsewhere` is run on; None for none.

  Returns:
    The AUCs; none with 16 models or more, and where some sample would be left without models
    that were trained on it, or without others: with fewer than 8 models, or a few more that are
    not in complementary pairs.
  """
  if not can_be_left_out(ensemble.membership):
    return Jackknife({}, None)
  pairs, aucs, chosen = pairs_of(ensemble.membership), {}, []
  for pair in np.unique(pairs):
    left = pairs != pair
    scores = scores_in_turn(ensemble, attacks, name, at, left=left)
    for group, samples in groups.items():
      members = ensemble.membership[left][:, samples]
      of_group = {attack: scored[:, samples] for attack, scored in scores.items()}
      for attack, scored in of_group.items():
        auc = metrics.roc(scored[members], scored[~members]).auc
        aucs.setdefault((attack, group), []).append(auc)
      if group == chosen_on:
        row = chosen_elsewhere(name, of_group, members, pairs[left])
        chosen.append(row.auc.value)
  found = {key: np.array(values) for key, values in aucs.items()}
  return Jackknife(found, np.array(chosen) if chosen else None)


def can_be_left_out(membership: np.ndarray) -> bool:
  """Whether there are few models, and enough to attack each without its pair and another.

  Args:
    membership: bool[S,N], of the shadow models.
  """
  pairs = pairs_of(membership)
  if len(pairs) >= ENOUGH_MODELS:
    return False
  for first in np.unique(pairs):
    for second in np.unique(pairs[pairs != first]):
      inside = membership[(pairs != first) & (pairs != second)]
      # A variance needs two of either side, of some samples.
      count = inside.sum(axis=0)
      if not _enough(count) or not _enough(len(inside) - count):
        return False
  return True


def _enough(count):
  return count.min() >= 1 and count.max() >= 2
