"""PMIA: the likelihood ratio with proxies on the side for which there are no models.

Du et al. 2025, "Cascading and Proxy Membership Inference Attacks" (arXiv:2507.21412). An
attacker whose shadow models were trained before he knew whom to ask about has OUT models only.
How a model would answer if it had been trained with a sample, he reads off other samples, the
proxies, in the models that were trained with them.
"""

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.lira import check_variance, gaussian
from diffence_jax.attacks.shadow_phi import Side, fit_sides, largest_finite
from diffence_jax.attacks.signals import phi_and_log_p
from diffence_jax.checks import check_choice, check_numbers, check_whole

PROXIES = ("behaviour", "class", "global")


def pmia(
  target_phi: ArrayLike,
  shadow_phi: ArrayLike,
  membership: ArrayLike,
  labels: ArrayLike | None = None,
  *,
  proxies: str = "behaviour",
  num_proxies: int = 20,
  variance: str = "shrunk",
) -> np.ndarray:
  """The log odds of membership with the IN side taken from proxies.

  The score of one query is log N(phi; a, A) - log N(phi; b, B), with even prior odds; the mean
  over queries. b and B are `lira`'s mean and variance of the example's OUT models. a and A are
  mean and unbiased variance of the phi of all its proxies, each in the models that were trained
  with the proxy; they hold how far the proxies lie apart as well. Of the models only those that
  were *not* trained with the example itself are looked at, on either side, so that nothing is
  read that an attacker without IN models has not. Proxies of an example are

  * "global": all other examples;
  * "class": those of its label;
  * "behaviour": the `num_proxies` next to it in the order of the mean phi over OUT models, half
    of them on either side, and more on one side at the ends of the order.

  An example whose proxies are in fewer than two places of these models has all others instead.

  The paper's are the idea, the posterior odds test, and proxies that are all samples, those of
  the class, or alike. Of it we have the abstract and the authors' program, which takes medians
  where we take means, the OUT side's variance of every example's own, and for alike the image
  that is nearest by CLIP. Ours are the order by phi, the drawing together of variances, and
  that models are left out (theirs never saw an example that is asked about).

  Args:
    target_phi: f[N] or f[N,Q], of the model under attack.
    shadow_phi: f[S,N] or f[S,N,Q], of the shadow models; an `np.memmap` is read in parts.
    membership: bool[S,N], True where a shadow model was trained with the example.
    labels: i[N], true labels; looked at with "class" only.
    proxies: one of `PROXIES`.
    num_proxies: of "behaviour", 1 or more; all others where there are fewer.
    variance: of the OUT side, one of `lira.VARIANCES`.

  Returns:
    f64[N], finite, higher for likelier members.

  Raises:
    ValueError: as `lira` offline; an option is out of its range; or the models without an
      example were trained with fewer than two others, counted once a model.
  """
  check_pmia(proxies=proxies, num_proxies=num_proxies, variance=variance)
  least = 2 if variance == "per_example" else 1
  target, outside, _ = fit_sides(target_phi, shadow_phi, membership, online=False, least=least)
  membership, shadow = np.asarray(membership), check_numbers("shadow_phi", shadow_phi)
  shadow = shadow.reshape(*membership.shape, -1)
  if proxies == "class":
    windows = _classes(_check_labels(labels, len(target)))
  elif proxies == "global":
    windows = np.arange(len(target)), 0, len(target)
  else:
    windows = _neighbours(outside.means.mean(axis=1), num_proxies)
  inside = _fit(shadow, membership, largest_finite(target, shadow), windows)
  mean_out, variance_out = gaussian(outside, variance)
  variance_in = inside.bounded(inside.variances)
  log_ratios = np.log(variance_out / variance_in)
  log_ratios += (target - mean_out) ** 2 / variance_out
  log_ratios -= (target - inside.means) ** 2 / variance_in
  return np.mean(log_ratios / 2.0, axis=-1)


def check_pmia(*, proxies: str, num_proxies: int, variance: str) -> None:
  """Raises ValueError where an option of `pmia` is out of its range."""
  check_choice("proxies", proxies, PROXIES)
  check_whole("num_proxies", num_proxies, 1, 1_000_000)
  check_variance(variance)


@attack("PMIA", family="LiRA", needs=("shadows",), check=check_pmia)
def attack_pmia(
  view: View,
  *,
  proxies: str = "behaviour",
  num_proxies: int = 20,
  variance: str = "shrunk",
) -> np.ndarray:
  """`pmia` of all versions of an image jointly; the options are its own."""
  return pmia(
    view.statistic(phi_and_log_p)[..., 0],
    view.shadow_logits.statistic(phi_and_log_p)[..., 0],
    view.membership,
    view.labels,
    proxies=proxies,
    num_proxies=num_proxies,
    variance=variance,
  )


def _check_labels(labels, num):
  """Returns labels i[N]."""
  if labels is None:
    raise ValueError("Proxies by class need labels; got none.")
  labels = check_numbers("labels", labels)
  if labels.shape != (num,) or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f"labels is {labels.dtype}{list(labels.shape)}; expected whole numbers, [{num}]."
    )
  return labels


# An order of the examples, and of every one its proxies' places there: from the first to before
# the last. The example itself may be among them, for of it no model is looked at.


def _classes(labels):
  order = np.argsort(labels, kind="stable")
  first, last = (np.searchsorted(labels[order], labels, side) for side in ("left", "right"))
  return order, first, last


def _neighbours(values, num_proxies):
  order = np.argsort(values, kind="stable")
  place = np.empty(len(values), np.int64)
  place[order] = np.arange(len(values))
  width = min(num_proxies + 1, len(values))
  first = np.clip(place - num_proxies // 2, 0, len(values) - width)
  return order, first, first + width


def _fit(shadow, membership, limit, windows) -> Side:
  """The phi of every example's proxies, by differences of running sums, model by model."""
  order, first, last = windows
  first, last = (np.broadcast_to(ends, len(order)) for ends in (first, last))
  num_in = np.array([np.append(0, np.cumsum(inside[order])) for inside in membership])
  counts = np.sum((num_in[:, last] - num_in[:, first]) * ~membership, axis=0)
  first, last = np.where(counts < 2, 0, first), np.where(counts < 2, len(order), last)
  # Sums of squares are of what is about 0, so that they do not cancel.
  centre = np.mean([np.clip(row, -limit, limit).mean(axis=0) for row in shadow], axis=0)
  sums = np.zeros((membership.shape[1], 1 + 2 * shadow.shape[2]))
  for row, inside in zip(shadow, membership, strict=True):
    values = np.clip(np.asarray(row, np.float64), -limit, limit) - centre
    values = np.concatenate([np.ones((len(values), 1)), values, values**2], axis=1)
    running = np.cumsum((values * inside[:, None])[order], axis=0)
    running = np.concatenate([np.zeros_like(running[:1]), running])
    sums += np.where(inside[:, None], 0.0, running[last] - running[first])
  counts, sums, squares = np.split(sums, [1, 1 + shadow.shape[2]], axis=1)
  few = np.flatnonzero(counts[:, 0] < 2)
  if few.size:
    raise ValueError(
      f"{few.size} of {len(counts)} examples have fewer than two proxies in the models without "
      f"them, the first at index {few[0]}; expected more shadow models."
    )
  variances = np.maximum(squares - sums**2 / counts, 0.0) / (counts - 1.0)
  return Side(counts, centre + sums / counts, variances, variances.mean(axis=0))
