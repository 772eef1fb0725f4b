"""What DP-SGD guarantees, by `dp_accounting`, which comes with jax-privacy: the extra `dp`.

The package is imported only where it is used.
"""

import functools
import math

import numpy as np
import scipy.optimize

# Integers only: fractional orders fail to converge at low noise, and only help there.
_RDP_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024, 2048, 4096)

# What can be counted with.
LEAST_NOISE, MOST_NOISE = 1e-6, 1e6

# Above it the distribution of losses is no longer computed: its buckets would be too wide.
_LARGEST_FOR_PLD = 1e8


@functools.lru_cache(maxsize=64)
def epsilon(noise_multiplier: float, probability: float, num_steps: int, delta: float) -> float:
  """An upper bound on the epsilon of DP-SGD, for one example added or removed.

  By the distribution of the privacy loss, which is tight to rounding (up), or by Renyi
  differential privacy, where that is less or epsilon is in the millions.

  Args:
    noise_multiplier: `LEAST_NOISE` to `MOST_NOISE`.
    probability: of an example to be in a step's batch, in (0, 1].
    num_steps: at least 1.
    delta: in (0, 1).

  Returns:
    Epsilon, at least 0.

  Raises:
    ModuleNotFoundError: jax-privacy, of the extra `dp`, is not installed.
  """
  check_installed()
  if delta >= _chance_to_take_part(probability, num_steps):
    return 0.0  # of all that may happen, what an example changes is less likely than delta
  event = functools.partial(_event, probability=probability, num_steps=num_steps)
  renyi = _renyi_accountant().compose(event(noise_multiplier)).get_epsilon(delta)
  # At 0, where delta alone is enough, there is no scale to compute a distribution on.
  if renyi > _LARGEST_FOR_PLD or renyi <= 0.0:
    return max(0.0, float(renyi))
  # Where exp(-epsilon) nearly underflows, at 710 to 750, the package finds infinity; what is
  # true of a little less noise is true of this.
  for less in (1.0, 0.98, 0.96, 0.94):
    with np.errstate(over="ignore"):
      accountant = _loss_accountant(renyi).compose(event(less * noise_multiplier))
      bound = accountant.get_epsilon(delta)
    if math.isfinite(bound):
      return float(min(bound, renyi))
  return float(renyi)


def _chance_to_take_part(probability: float, num_steps: int) -> float:
  """The chance of an example to be in any batch at all, in (0, 1]."""
  return 1.0 if probability >= 1.0 else -math.expm1(num_steps * math.log1p(-probability))


@functools.lru_cache(maxsize=64)
def noise_for(target_epsilon: float, probability: float, num_steps: int, delta: float) -> float:
  """The least noise multiplier, to 0.1 %, whose `epsilon` is at most the target.

  Args:
    target_epsilon: 0.01 to 1000.
    probability: as in `epsilon`.
    num_steps: as above.
    delta: as above.

  Returns:
    The noise multiplier.

  Raises:
    ModuleNotFoundError: jax-privacy, of the extra `dp`, is not installed.
  """
  check_installed()
  import dp_accounting

  event = functools.partial(_event, probability=probability, num_steps=num_steps)
  # Enough by the looser account, so enough by the tighter one.
  high = dp_accounting.calibrate_dp_mechanism(
    _renyi_accountant, event, target_epsilon, delta, tol=1e-3
  )
  low = high / 2.0
  while epsilon(low, probability, num_steps, delta) <= target_epsilon:
    if low <= LEAST_NOISE:
      return low  # delta alone is enough
    low, high = low / 2.0, low

  def excess(log_noise):
    spent = epsilon(math.exp(log_noise), probability, num_steps, delta)
    return math.log(max(spent, 1e-300) / target_epsilon)

  noise = math.exp(
    scipy.optimize.brentq(excess, math.log(low), math.log(high), xtol=1e-4, rtol=1e-12)
  )
  while epsilon(noise, probability, num_steps, delta) > target_epsilon:
    noise *= 1.0001
  return noise


def _event(noise_multiplier, probability, num_steps):
  import dp_accounting

  gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
  step = dp_accounting.PoissonSampledDpEvent(probability, gaussian)
  return dp_accounting.SelfComposedDpEvent(step, num_steps)


def _renyi_accountant():
  from dp_accounting import NeighboringRelation, rdp

  return rdp.RdpAccountant(_RDP_ORDERS, NeighboringRelation.ADD_OR_REMOVE_ONE)


def _loss_accountant(scale):
  """By the loss's distribution in buckets that fit an epsilon of about `scale`.

  Wide ones are rounded up, and fine ones take long: seconds for 20,000 steps.
  """
  from dp_accounting import NeighboringRelation, pld

  width = min(1e-4 * scale, max(1e-4, 1e-6 * scale))
  return pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, width)


def check_installed() -> None:
  """Raises ModuleNotFoundError, with what to do, where jax-privacy is not installed."""
  try:
    import dp_accounting  # noqa: F401
    import jax_privacy  # noqa: F401
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      "DP-SGD needs the package jax-privacy, which could not be imported. Install it with: "
      "pip install -e '.[dp]'.",
      name="jax_privacy",
    ) from error
