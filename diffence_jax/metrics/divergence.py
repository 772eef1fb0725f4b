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
  """
  counts, edges = np.histogram(np.asarray(reference, np.float64), bins=num_bins)
  others, _ = np.histogram(np.asarray(values, np.float64), bins=edges)
  if not others.any():
    return float(np.sqrt(np.log(2.0)))
  return float(scipy.spatial.distance.jensenshannon(others, counts))
