"""The robust attack with few shadow models: examples judged against a population.

Zarifzadeh, Liu & Shokri 2024, "Low-Cost High-Power Membership Inference Attacks" (ICML). An
example is likely a member if training on it raised its probability more than it raised that of
most samples of the population.
"""

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.shadow_phi import check_membership
from diffence_jax.attacks.signals import log_mean, phi_and_log_p
from diffence_jax.checks import check_numbers, check_positive, check_range, check_type

# Probabilities below the smallest normal number, 0 among them, count as that number.
_LEAST_LOG_P = np.log(np.finfo(np.float64).tiny)
# float32 log-probabilities may be positive by as much.
_ROUNDING = 1e-5
# Log ratios no further apart are equal: sums over models, and logarithms, round.
_TIE = 1e-12


def rmia(
  target_log_p: ArrayLike,
  shadow_log_p: ArrayLike,
  membership: ArrayLike,
  population_target_log_p: ArrayLike,
  population_shadow_log_p: ArrayLike,
  population_membership: ArrayLike | None = None,
  *,
  online: bool = True,
  interpolation: float = 0.3,
  gamma: float = 1.0,
  break_ties: bool = False,
) -> np.ndarray:
  """The relative membership inference attack (Zarifzadeh et al. 2024, equations 2 and 3).

  The score of x is the share of population samples z with

    (p(x | target) / p(x)) / (p(z | target) / p(z)) >= gamma,

  p(x) being the mean probability over models. Online that is (mean over IN models + mean over
  OUT models) / 2. Offline the IN models are not there, their mean is taken to be
  a * (mean over OUT models) + 1 - a, a line through (1, 1), so that

    p(x) = ((1 + a) * (mean over OUT models) + 1 - a) / 2,

  as in the paper's appendix and the authors' program. (Their program counts ratios > gamma
  only; here equality counts, as in equation 3.)

  Ratios are compared as logarithms, and equal ones within 1e-12, since they round. A
  probability below the smallest normal float64, 2.2e-308, counts as that one.

  Args:
    target_log_p: f[N], log-probability of the true label by the model under attack.
    shadow_log_p: f[S,N], by the shadow models; an `np.memmap` is read model by model.
    membership: bool[S,N], True where a shadow model was trained with the example.
    population_target_log_p: f[Z], as `target_log_p`, of samples that are no members.
    population_shadow_log_p: f[S,Z], as `shadow_log_p`, by the same models.
    population_membership: bool[S,Z], as `membership`. None: no shadow model was trained with
      any of them; p(z) is then the mean over all models, offline interpolated as for x.
    online: uses IN and OUT models; False uses OUT models only.
    interpolation: the `a` of the offline p, in [0, 1]; lower where models fit their members
      more closely. Online has none.
    gamma: above 0, the least ratio that counts.
    break_ties: adds less than 1 / Z to the share, the more the larger the ratio of x. The
      share depends on x by that ratio only and grows with it, so this keeps the order and
      tells apart those above, below or between the same z: few z do not limit how low an FPR
      can be told.

  Returns:
    f64[N], in [0, 1], higher for likelier members; a multiple of 1 / Z. In [0, 1 + 1 / Z) and
    no multiple where ties are broken.

  Raises:
    ValueError: the shapes do not fit, membership is not boolean, a log-probability is NaN or
      above 0, `gamma` or `interpolation` is out of range, or an example has no OUT model, or
      no IN model online.
  """
  check_rmia(gamma=gamma, interpolation=interpolation)
  check_type("online", online, bool)
  check_type("break_ties", break_ties, bool)
  target, shadow = check_shapes(target_log_p, shadow_log_p)
  population = check_shapes(population_target_log_p, population_shadow_log_p, "population_")
  if len(shadow) != len(population[1]):
    raise ValueError(
      f"Got {len(shadow)} shadow models of the examples and {len(population[1])} of the "
      "population; expected the same ones."
    )
  membership = check_membership(membership, shadow.shape, online=online)
  if population_membership is not None:
    population_membership = check_membership(
      population_membership, population[1].shape, online=online, name="population_membership"
    )

  def log_ratios(target, shadow, membership):
    p_in, p_out = mean_probabilities(shadow, membership)
    if not online:
      p_in = interpolation * p_out + (1.0 - interpolation)
    return target - np.log((p_in + p_out) / 2.0)

  least = np.sort(log_ratios(*population, population_membership)) + np.log(gamma)
  ratios = log_ratios(target, shadow, membership)
  counts = np.searchsorted(least, ratios + _TIE, side="right")
  if break_ties:
    counts = counts + 0.5 + np.arctan(ratios) / np.pi
  return counts / len(least)


def _on(view: View, **settings) -> np.ndarray:
  """The scores of a view, against its known non-members, with ties broken."""
  target = log_mean(view.statistic(phi_and_log_p)[..., 1])
  shadow = log_mean(view.shadow_logits.statistic(phi_and_log_p)[..., 1])
  z = view.is_known & ~view.is_member
  population = target[z], shadow[:, z], view.membership[:, z]
  return rmia(target, shadow, view.membership, *population, break_ties=True, **settings)


def check_rmia(*, gamma: float, interpolation: float = 0.0) -> None:
  """Raises ValueError where an option of `rmia` is out of its range."""
  check_positive("gamma", gamma)
  check_range("interpolation", interpolation, 0.0, 1.0)


@attack("RMIA online", family="RMIA", needs=("shadows", "known"), check=check_rmia)
def rmia_online(view: View, *, gamma: float = 1.0) -> np.ndarray:
  """`rmia` with IN and OUT models, on the mean probability over all queries."""
  return _on(view, online=True, gamma=gamma)


@attack("RMIA offline", family="RMIA", needs=("shadows", "known"), check=check_rmia)
def rmia_offline(view: View, *, interpolation: float = 0.3, gamma: float = 1.0) -> np.ndarray:
  """`rmia` with OUT models only, on the mean probability over all queries."""
  return _on(view, online=False, interpolation=interpolation, gamma=gamma)


def mean_probabilities(shadow: np.ndarray, membership: np.ndarray | None) -> np.ndarray:
  """Means over the IN and over the OUT models, f64[2,N]; without membership over all, twice.

  Args:
    shadow: f[S,N], log-probabilities, read model by model.
    membership: bool[S,N], or None.

  Raises:
    ValueError: a log-probability is NaN or above 0.
  """
  sums = np.zeros((2, shadow.shape[1]))
  for model, row in enumerate(shadow):
    p = np.exp(_check_log_p(row, "A shadow model's log-probability"))
    sums[0] += p if membership is None else np.where(membership[model], p, 0.0)
    sums[1] += p if membership is None else np.where(membership[model], 0.0, p)
  if membership is None:
    return sums / len(shadow)
  num_in = membership.sum(axis=0)
  # Offline nobody looks at the mean of an example without IN models.
  return sums / np.stack([np.maximum(num_in, 1), len(shadow) - num_in])


def check_shapes(
  target: ArrayLike, shadow: ArrayLike, prefix: str = ""
) -> tuple[np.ndarray, np.ndarray]:
  """Returns target f64[N], checked, and shadow f[S,N], not yet read.

  Raises:
    ValueError: the shapes do not fit, or a log-probability of the target is NaN or above 0;
      names the arguments with the prefix.
  """
  target = check_numbers(f"{prefix}target_log_p", target)
  shadow = check_numbers(f"{prefix}shadow_log_p", shadow)
  if target.ndim != 1 or shadow.shape[1:] != target.shape or 0 in shadow.shape:
    raise ValueError(
      f"Got {prefix}target_log_p {list(target.shape)} and {prefix}shadow_log_p "
      f"{list(shadow.shape)}; expected [N] and [S, N], neither of them 0."
    )
  return _check_log_p(target, f"{prefix}target_log_p"), shadow


def _check_log_p(log_p, name):
  """Returns f64, within the bounds of probabilities."""
  log_p = np.asarray(log_p, np.float64)
  if not np.all(log_p <= _ROUNDING):
    raise ValueError(
      f"{name} has NaN or values above 0; expected log-probabilities, such as those of "
      "log_probability."
    )
  return np.clip(log_p, _LEAST_LOG_P, 0.0)
