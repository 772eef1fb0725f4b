"""BASE: a sample's loss against what it is over all models that the attacker would train.

Lassila, Östman, Ngo & Graell i Amat 2025, "Practical Bayes-Optimal Membership Inference
Attacks" (arXiv:2505.24089).
"""

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.rmia import check_shapes, mean_probabilities
from diffence_jax.attacks.shadow_phi import check_membership
from diffence_jax.attacks.signals import log_mean, phi_and_log_p
from diffence_jax.checks import check_range, check_type


def base(
  target_log_p: ArrayLike,
  shadow_log_p: ArrayLike,
  membership: ArrayLike,
  *,
  online: bool = True,
  scale: float = 0.33,
) -> np.ndarray:
  """The Bayes-optimal score, its threshold for each sample taken from shadow models.

  Of models drawn with a density of exp(-loss), as the score assumes, the log odds of membership
  are the negative loss of the target less the logarithm of the mean of exp(-loss) over models,
  up to a constant of the prior. With cross-entropy exp(-loss) is the true label's probability:

    online   log p(target) - log(mean p over all shadow models)
    offline  log p(target) - scale * log(mean p over the OUT models)

  Online this is the logarithm of the ratio that `rmia` compares with a population's: with as
  many IN as OUT models both have the same order, once ties are broken, and this one needs no
  population. Of the paper we have the abstract; equations and scale are those of the program
  LeakPro (`mia_attacks/base.py`), whose temperature of 2 is not used.

  A probability below the smallest normal float64, 2.2e-308, counts as that one.

  Args:
    target_log_p: f[N], log-probability of the true label by the model under attack.
    shadow_log_p: f[S,N], by the shadow models; an `np.memmap` is read model by model.
    membership: bool[S,N], True where a shadow model was trained with the example.
    online: uses IN and OUT models; False uses OUT models only.
    scale: of the offline threshold, in [0, 1], since IN models, were they there, would raise
      the mean; online has none.

  Returns:
    f64[N], finite, higher for likelier members.

  Raises:
    ValueError: the shapes do not fit, membership is not boolean, a log-probability is NaN or
      above 0, `scale` is out of range, or an example has no OUT model, or no IN model online.
  """
  check_base(scale=scale)
  check_type("online", online, bool)
  target, shadow = check_shapes(target_log_p, shadow_log_p)
  membership = check_membership(membership, shadow.shape, online=online)
  if online:
    return target - np.log(mean_probabilities(shadow, None)[0])
  return target - scale * np.log(mean_probabilities(shadow, membership)[1])


def _on(view: View, **settings) -> np.ndarray:
  """The scores of a view, on the mean probability over all queries."""
  target, shadow = (
    log_mean(source.statistic(phi_and_log_p)[..., 1]) for source in (view, view.shadow_logits)
  )
  return base(target, shadow, view.membership, **settings)


def check_base(*, scale: float = 0.0) -> None:
  """Raises ValueError where an option of `base` is out of its range."""
  check_range("scale", scale, 0.0, 1.0)


@attack("BASE online", family="RMIA", needs=("shadows",))
def base_online(view: View) -> np.ndarray:
  """`base` with IN and OUT models."""
  return _on(view, online=True)


@attack("BASE offline", family="RMIA", needs=("shadows",), check=check_base)
def base_offline(view: View, *, scale: float = 0.33) -> np.ndarray:
  """`base` with OUT models only; `scale` is that of its threshold."""
  return _on(view, online=False, scale=scale)
