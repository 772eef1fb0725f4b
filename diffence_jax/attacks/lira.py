"""The likelihood ratio attack: every example against models with and without it.

Carlini et al. 2022, "Membership Inference Attacks From First Principles". The test statistic
phi of a prediction is fitted by a Gaussian over the shadow models that were trained with the
example (IN) and by another over those that were not (OUT); the target model's phi is then
judged by the two.
"""

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.shadow_phi import Side, fit_sides, variance_prior
from diffence_jax.attacks.signals import phi_and_log_p
from diffence_jax.checks import check_choice, check_type

VARIANCES = ("per_example", "global", "shrunk")


def lira(
  target_phi: ArrayLike,
  shadow_phi: ArrayLike,
  membership: ArrayLike,
  *,
  online: bool = True,
  variance: str = "per_example",
) -> np.ndarray:
  """The likelihood ratio attack (Carlini et al. 2022, algorithm 1).

  Online, the score of one query is log N(phi; mu_in, var_in) - log N(phi; mu_out, var_out).
  Offline it is log((1 - p) / p) of the one-sided p-value p = Pr[Z > phi], Z ~ N(mu_out,
  var_out): in the order of the paper's 1 - p, but telling apart what lies far out on either
  side, where 1 - p and the logarithm of p or of 1 - p round to a constant.

  Several queries count as independent given the model, and their scores are averaged. Online
  this is the log-likelihood ratio of Gaussians with diagonal covariances divided by Q, in the
  order of their sum; offline it is the logit method of combining p-values (Mudholkar & George
  1979). With one query it changes nothing.

  The variance of phi over models is, on each side and for each query:

  * "per_example": unbiased, every example's own. Wants many models.
  * "global": one for all examples, of residuals from every example's own mean, divided by
    their degrees of freedom. The paper's choice for few models.
  * "shrunk": the mean of the example's own variance and a prior one, weighted by their degrees
    of freedom; the prior's are estimated from the spread of the log variances over examples
    (Smyth 2004, "Linear models and empirical Bayes methods", section 6.2). It is the global
    variance where that spread is no more than sampling makes it.

  A variance is at least 1e-12 of the global one (1e-12 where that is 0). An infinite phi, of a
  probability that is 0 or 1, is taken for the largest finite `|phi|` of all models and
  examples, with its sign.

  Args:
    target_phi: f[N] or f[N,Q], of the model under attack.
    shadow_phi: f[S,N] or f[S,N,Q], of the shadow models; an `np.memmap` is read in blocks of
      examples.
    membership: bool[S,N], True where a shadow model was trained with the example.
    online: compares IN with OUT models; False uses OUT models only.
    variance: one of `VARIANCES`.

  Returns:
    f64[N], finite, higher for likelier members.

  Raises:
    ValueError: the shapes do not fit, membership is not boolean, a phi is NaN, none is finite
      or a finite one is beyond 1e150, `online` is no bool,
      the variance is unknown, or a side in use has too few models: it needs one for each
      example, "per_example" two, and the others two for some example.
  """
  check_variance(variance)
  check_type("online", online, bool)
  least = 2 if variance == "per_example" else 1
  target, outside, inside = fit_sides(
    target_phi, shadow_phi, membership, online=online, least=least
  )
  mean_out, variance_out = gaussian(outside, variance)
  deviations_out = (target - mean_out) / np.sqrt(variance_out)
  if not online:
    log_ndtr = scipy.special.log_ndtr
    return np.mean(log_ndtr(deviations_out) - log_ndtr(-deviations_out), axis=-1)
  mean_in, variance_in = gaussian(inside, variance)
  deviations_in = (target - mean_in) / np.sqrt(variance_in)
  log_ratios = np.log(variance_out / variance_in) + deviations_out**2 - deviations_in**2
  return np.mean(log_ratios / 2.0, axis=-1)


def _on(view: View, **settings) -> np.ndarray:
  """The scores of a view, of all versions of an image jointly."""
  target = view.statistic(phi_and_log_p)[..., 0]
  return lira(target, view.shadow_logits.statistic(phi_and_log_p)[..., 0], view.membership,
              **settings)  # fmt: skip


def check_variance(variance: str) -> None:
  """Raises ValueError unless this is a way to estimate the variance."""
  check_choice("variance", variance, VARIANCES)


@attack("LiRA online", family="LiRA", needs=("shadows",), check=check_variance)
def lira_online(view: View, *, variance: str = "global") -> np.ndarray:
  """`lira` with IN and OUT models; `variance` is one of `VARIANCES`."""
  return _on(view, online=True, variance=variance)


@attack("LiRA online, variance per example", family="LiRA", needs=("shadows",), in_turn=False)
def lira_online_per_example(view: View) -> np.ndarray:
  """`lira` with IN and OUT models, each example with a variance of its own."""
  return _on(view, online=True, variance="per_example")


@attack("LiRA online, variance shrunk", family="LiRA", needs=("shadows",), in_turn=False)
def lira_online_shrunk(view: View) -> np.ndarray:
  """`lira` with IN and OUT models, the examples' variances drawn to a common one."""
  return _on(view, online=True, variance="shrunk")


@attack("LiRA offline", family="LiRA", needs=("shadows",), check=check_variance)
def lira_offline(view: View, *, variance: str = "global") -> np.ndarray:
  """`lira` with OUT models only; `variance` is one of `VARIANCES`."""
  return _on(view, online=False, variance=variance)


@attack("LiRA offline, variance per example", family="LiRA", needs=("shadows",), in_turn=False)
def lira_offline_per_example(view: View) -> np.ndarray:
  """`lira` with OUT models only, each example with a variance of its own."""
  return _on(view, online=False, variance="per_example")


@attack("LiRA offline, variance shrunk", family="LiRA", needs=("shadows",), in_turn=False)
def lira_offline_shrunk(view: View) -> np.ndarray:
  """`lira` with OUT models only, the examples' variances drawn to a common one."""
  return _on(view, online=False, variance="shrunk")


def gaussian(side: Side, variance: str) -> tuple[np.ndarray, np.ndarray]:
  """The Gaussian of one side: mean and variance f64[N,Q], which is one of `VARIANCES`."""
  variances = side.variances
  if variance == "global":
    variances = np.broadcast_to(side.pooled, variances.shape)
  if variance == "shrunk":
    freedom = side.freedom[:, 0]
    columns = zip(variances.T, side.pooled, strict=True)
    variances = np.stack([_shrink(each, freedom, pooled) for each, pooled in columns], axis=-1)
  return side.means, side.bounded(variances)


def _shrink(variances, freedom, pooled):
  """Variances f64[N] drawn to their prior; those without degrees of freedom are the prior."""
  prior, prior_freedom = variance_prior(variances, freedom, pooled)
  weights = freedom / (freedom + prior_freedom)
  return weights * variances + (1.0 - weights) * prior
