"""Several attacks as one: trees over their scores.

The attacker owns the shadow models, and knows whom it trained them with. So each of them can be
attacked by the others as the target is, and which scores together tell members is learnt on
that: stacking (Wolpert 1992), by gradient-boosted trees (Friedman 2001).
"""

from collections.abc import Iterator

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from diffence_jax.attacks.attack import ATTACKS, View, attack, run_attack
from diffence_jax.checks import check_whole

# Those whose scores the trees see, each as `audit.attacks` runs it without options.
MEMBERS = (
  "confidence",
  "lira_online",
  "bavaria_online",
  "rmia_online",
  "bavaria_offline",
  "rmia_offline",
  "multi_signal",
)
# Breaks ties within a leaf, by the score of this one of them.
_BREAKS_TIES = "bavaria_online"
_TIE = 1e-6


def check_boosted(*, num_targets: int) -> None:
  """Raises ValueError where an option of `attack_boosted` is out of its range."""
  check_whole("num_targets", num_targets, 1, 10_000)


@attack("boosted trees over attacks", family="several signals", needs=("shadows", "known"),
        in_turn=False, check=check_boosted)  # fmt: skip
@threadpool_limits.wrap(limits=1)
def attack_boosted(view: View, *, num_targets: int = 16) -> np.ndarray:
  """Gradient-boosted trees over the scores of `MEMBERS`, trained on shadow models as targets.

  A shadow model is attacked by all others but those whose members are exactly the samples that
  it was not trained with: such a partner would give the answer away. Nothing is learnt on the
  attacked model; the known samples serve RMIA as a population, as ever. The higher a score, the
  likelier a member: the trees keep to that. Equal sums of leaves are told apart by BaVarIA.

  Not run with every model in turn: it runs every attack `num_targets` times.

  Args:
    view: what is seen.
    num_targets: shadow models that are attacked, evenly spaced; at most all are.

  Returns:
    f64[N], log odds, higher for likelier members.

  Raises:
    ValueError: as the attacks: too few shadow models for some example, or NaN.
  """
  targets = list(_shadow_targets(view, num_targets))
  features = np.concatenate([_scores(target) for target, _ in targets])
  trees = HistGradientBoostingClassifier(
    max_iter=100,
    max_leaf_nodes=15,
    min_samples_leaf=20,
    l2_regularization=1.0,
    monotonic_cst=[1] * len(MEMBERS),
    early_stopping=False,
    random_state=0,
  )
  trees.fit(features, np.concatenate([members for _, members in targets]))
  asked = View(
    lambda: view.logits,
    view.labels,
    statistic=view.statistic,
    is_member=view.is_member,
    shadows=view.shadow_logits,
    **_shared(view),
  )
  features = _scores(asked)
  ties = np.arctan(features[:, MEMBERS.index(_BREAKS_TIES)])
  return trees.decision_function(features) + _TIE * ties


def _shadow_targets(view: View, num_targets: int) -> Iterator[tuple[View, np.ndarray]]:
  """Shadow models as targets of the others, and whom they were trained with bool[N]."""
  shadows, membership = view.shadow_logits, view.membership
  chosen = np.linspace(0, len(shadows), min(num_targets, len(shadows)), endpoint=False)
  for model in chosen.astype(int):
    others = ~np.all(membership == ~membership[model], axis=1)
    others[model] = False
    yield (
      View(
        lambda model=model: shadows[model],
        view.labels,
        statistic=lambda function, model=model: shadows.statistic(function)[model],
        is_member=membership[model],
        shadows=shadows.take(others),
        **_shared(view),
      ),
      membership[model],
    )


def _shared(view):
  """What all views have in common."""
  return {name: getattr(view, name) for name in ("versions", "is_known", "ids", "seed", "name")}


def _scores(view):
  """The scores f64[N,F] of all of `MEMBERS`."""
  return np.stack([run_attack(ATTACKS.choose(name), view) for name in MEMBERS], axis=-1)
