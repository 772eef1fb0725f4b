"""How different two samples of a score look."""

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.checks import check_numbers, check_whole


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
    ValueError: a sample is empty, not of rank 1 or has NaN in it, the reference is infinite, or
      `num_bins` is no whole number from 1.
  """
  check_whole("num_bins", num_bins, 1, 1_000_000)
  values, reference = _check_sample(values, "values"), _check_sample(reference, "reference")
  if np.isinf(reference).any():
    raise ValueError(
      f"reference has {np.isinf(reference).sum()} infinite numbers; the bins span its range, "
      "so expected finite ones only."
    )
  return float(jensen_shannon_distances(values[None], reference[None], num_bins)[0])


def jensen_shannon_distances(
  values: np.ndarray, reference: np.ndarray, num_bins: int = 100
) -> np.ndarray:
  """`jensen_shannon_distance` of P pairs of samples at once.

  Args:
    values: f64[P,N], without NaN.
    reference: f64[P,N'], finite.
    num_bins: equally wide bins.

  Returns:
    f64[P].
  """
  start, stop = reference.min(axis=1), reference.max(axis=1)
  # As numpy.histogram does, the bins around a single value are as wide as 1 together.
  single = 0.5 * (start == stop)
  edges = np.linspace(start - single, stop + single, num_bins + 1, axis=1)
  p, q = (_histograms(sample, edges) for sample in (values, reference))
  middle = 0.5 * (p + q)
  divergence = 0.5 * (_relative_entropy(p, middle) + _relative_entropy(q, middle))
  # Values that all miss the bins are as far away as it gets.
  return np.sqrt(np.where(p.any(axis=1), np.maximum(divergence, 0.0), np.log(2.0)))


def _histograms(values, edges):
  """Normalised histograms f64[P,B] of f64[P,N] in bins with edges f64[P,B+1]."""
  num_pairs, num_bins = edges.shape[0], edges.shape[1] - 1
  start, stop = edges[:, :1], edges[:, -1:]
  inside = (values >= start) & (values <= stop)
  places = (np.where(inside, values, start) - start) / (stop - start) * num_bins
  bins = np.minimum(places, num_bins - 1).astype(np.int64)
  # As numpy.histogram does: the edges decide, not the rounding of the division.
  bins -= (values < np.take_along_axis(edges, bins, axis=1)) & (bins > 0)
  bins += (values >= np.take_along_axis(edges, bins + 1, axis=1)) & (bins < num_bins - 1)
  flat = (bins + num_bins * np.arange(num_pairs)[:, None])[inside]
  counts = np.bincount(flat, minlength=num_pairs * num_bins).reshape(num_pairs, num_bins)
  return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _relative_entropy(p, q):
  return np.sum(p * np.log(np.where(p > 0, p / np.where(q > 0, q, 1.0), 1.0)), axis=1)


def _check_sample(sample, name):
  sample = check_numbers(name, sample).astype(np.float64)
  if sample.ndim != 1 or not sample.size or np.isnan(sample).any():
    raise ValueError(
      f"{name} has shape {sample.shape} and {np.isnan(sample).sum()} NaN; expected one axis, "
      "not empty, without NaN."
    )
  return sample
