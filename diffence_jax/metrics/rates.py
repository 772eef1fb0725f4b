"""The TPR at a FPR, with an interval that allows for the threshold's own sampling.

The threshold of a FPR is estimated from the non-members, so an interval that takes it as given
is too narrow. Here every threshold t is a candidate. At t the non-members say how likely it is
that the true FPR is the limit, and the members what the TPR at t may be; the interval of the
TPR is the union over all t, with one budget for both deviations: with z the normal scores of
the two rates' errors, z_errors^2 + z_hits^2 <= 1.96^2. (The likelihood of the TPR, profiled
over the threshold; Claeskens et al. 2003, "Empirical likelihood confidence regions for
comparison distributions and ROC curves".) Normal scores are from Jeffreys' intervals of a
proportion (Brown, Cai and DasGupta 2001), which stay right where few errors are expected.
"""

import numpy as np
import scipy.special

from diffence_jax.metrics.two_way import Design

# With more counts of errors within the budget, so many of them, evenly spaced.
_MAX_COUNTS = 256


def rate_interval(
  hits: np.ndarray, errors: np.ndarray, limit: float, design: Design | None = None
) -> tuple[float, float]:
  """The 95% interval of the rate of hits at a rate of errors of `limit`.

  Args:
    hits: i[T], at thresholds from the strictest, which has none, to the last, which has all.
    errors: i[T], as above.
    limit: the rate of errors, in [0, 1].
    design: of scores that are not independent; None where all are.

  Returns:
    (low, high), in [0, 1].
  """
  shared = design or Design()
  num_hits, num_errors = hits[-1] / shared.hits, errors[-1] / shared.errors
  counts, first = np.unique(errors, return_index=True)
  score = _score(counts / shared.errors, num_errors, limit)
  inside = np.flatnonzero(np.abs(score) <= shared.quantile)
  inside = inside[_spaced(len(inside))]
  # The rule's own threshold is always one of them: where scores are tied, perhaps the only one.
  chosen = hits[np.flatnonzero(errors <= limit * errors[-1] + 1e-9)[-1]]
  score = np.append(score[inside], 0.0)
  fewest = np.append(hits[first[inside]], chosen)
  most = np.append(hits[np.append(first[1:], len(errors))[inside] - 1], chosen)
  left = np.sqrt((1.0 - shared.correlation**2) * (shared.quantile**2 - score**2))
  middle = shared.correlation * score
  low = _jeffreys(fewest / shared.hits, num_hits, scipy.special.ndtr(-(middle + left)))
  high = _jeffreys(most / shared.hits, num_hits, scipy.special.ndtr(-(middle - left)))
  # None, or all, can always be chance.
  low, high = np.where(fewest > 0, low, 0.0), np.where(most < hits[-1], high, 1.0)
  return float(low.min()), float(high.max())


def _score(counts, num, rate):
  """The normal scores of having so many errors where the rate is `rate`."""
  # The same functions as in scipy.stats, whose checks take ten times as long.
  return -scipy.special.ndtri(scipy.special.betainc(counts + 0.5, num - counts + 0.5, rate))


def _jeffreys(counts, num, tail):
  return scipy.special.betaincinv(counts + 0.5, num - counts + 0.5, tail)


def _spaced(num):
  """All of so many places, or some of them with both ends."""
  return np.linspace(0, max(num - 1, 0), min(num, _MAX_COUNTS)).round().astype(int)
