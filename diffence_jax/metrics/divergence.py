"""How different two samples of a score look."""

import numpy as np
import scipy.spatial.distance
from jax.typing import ArrayLike


def jensen_shannon_distance(
  values: ArrayLike, reference: ArrayLike, num_bins: int = 100
) -> float:
  """The Jensen-Shannon distance between two histograms, as the paper measures it.

  Args:
    values: f[N], the members' phi.
    reference: f[N'], the non-members'; the bins span its range, and values outside it are
      left out.
    num_bins: equally wide bins.

  Returns:
    The square root of the divergence in nats, 0 to sqrt(log 2); that largest distance also
    where no value lies within the reference's range.

  Raises:
    ValueError: a sample is empty, not of rank 1 or has NaN in it, or the reference is infinite.
  """
  values, reference = _check_sample(values, "values"), _check_sample(reference, "reference")
  if np.isinf(reference).any():
    raise ValueError(
      f"reference has {np.isinf(reference).sum()} infinite numbers; the bins span its range, "
      "so expected finite ones only."
    )
  counts, edges = np.histogram(reference, bins=num_bins)
  others, _ = np.histogram(values, bins=edges)
  if not others.any():
    return float(np.sqrt(np.log(2.0)))
  return float(scipy.spatial.distance.jensenshannon(others, counts))


def _check_sample(sample, name):
  sample = np.asarray(sample, np.float64)
  if sample.ndim != 1 or not sample.size or np.isnan(sample).any():
    raise ValueError(
      f"{name} has shape {sample.shape} and {np.isnan(sample).sum()} NaN; expected one axis, "
      "not empty, without NaN."
    )
  return sample
