"""Quantile-regression attack (Bertran et al. 2023): no shadow models, no known members.

What phi would a non-member like this sample have? The answer is regressed on known
non-members, and a sample is suspected for how far its own phi lies above it.
"""

from collections.abc import Callable

import numpy as np
import scipy.stats
from jax.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeCV
from sklearn.metrics.pairwise import euclidean_distances
from threadpoolctl import threadpool_limits

from diffence_jax.attacks.attack import View, attack
from diffence_jax.checks import check_numbers, check_whole
from diffence_jax.metrics.predictions import true_label_phi

# Landmarks of the kernel: with fewer known samples than this it is exact.
_NUM_LANDMARKS = 400
# Kernel widths, in units of the median squared distance, and ridge penalties: both are chosen
# by the leave-one-out error. The largest penalty leaves the mean of all known samples.
_WIDTHS = (0.25, 1.0, 4.0)
_PENALTIES = np.logspace(-3.0, 5.0, 17)
# Sums of squares of larger numbers are infinite in float64.
_LARGEST = 1e150
# The matrices are small: more threads gain little, and on a busy machine wait for each other.
_one_thread = threadpool_limits.wrap(limits=1)


@_one_thread
def quantile_scores(
  known_features: ArrayLike,
  known_phi: ArrayLike,
  features: ArrayLike,
  phi: ArrayLike,
  *,
  seed: int = 0,
) -> np.ndarray:
  """How far phi lies above that of non-members alike, in conditional standard deviations.

  phi given the features is taken as Gaussian, one of the paper's two models: the mean and the
  logarithm of the scale come from kernel ridge regression. A few hundred samples tell these
  two, but not a tail quantile by the pinball loss; leave-one-out errors in closed form choose
  the penalty, so useless features leave phi as it is, up to its units; and the score has no
  highest level at which samples would tie. From 400 known digits or Fashion-MNIST images the
  Gaussian kernel explains 68 to 83% of the variance of a small classifier's phi, linear ridge
  regression 9 to 37%, gradient boosting 34 to 48%.

  Args:
    known_features: f[n,F] of known non-members, n at least 4, on one common scale.
    known_phi: f[n], their phi, see `attacks.confidence`; finite.
    features: f[N,F] of the samples to score, none of them among the known ones.
    phi: f[N], finite.
    seed: of the choice of landmarks, where there are more known samples than landmarks.

  Returns:
    f64[N], z; increasing in a sample's phi. `Phi(z)` is its level among non-members alike.

  Raises:
    ValueError: too few known samples, numbers that are not finite, shapes that do not fit.
  """
  check_whole("seed", seed, 0, 2**32 - 1)
  known_features, known_phi = _check(known_features, known_phi, "known ")
  features, phi = _check(features, phi, "")
  if len(known_phi) < 4 or known_features.shape[1] != features.shape[1]:
    raise ValueError(
      f"Got features of {known_features.shape} known non-members and of {features.shape} "
      "samples; expected [n, F] with n >= 4, and [N, F]."
    )
  fits = [_fit_mean(known_features, known_phi, width, seed) for width in _WIDTHS]
  kernel, mean, errors = min(fits, key=lambda fit: np.mean(fit[2] ** 2))
  # An error that is 0 by chance must not count as endlessly certain.
  typical = np.median(np.abs(errors))
  if typical <= 1e-12 * np.abs(known_phi).max():
    return phi - mean.predict(kernel.transform(features))
  log_errors = np.log(np.hypot(errors, 0.1 * typical))
  scale = RidgeCV(_PENALTIES).fit(kernel.transform(known_features), log_errors)
  log_scales = [scale.predict(kernel.transform(f)) for f in (known_features, features)]
  # Half of the known samples' errors shall lie where half of a Gaussian's do.
  unit = np.median(np.abs(errors) / np.exp(log_scales[0])) / scipy.stats.norm.ppf(0.75)
  return (phi - mean.predict(kernel.transform(features))) / (unit * np.exp(log_scales[1]))


def image_features(
  images: ArrayLike,
  labels: ArrayLike,
  *,
  num_classes: int,
  num_components: int = 32,
  seed: int = 0,
) -> Callable[[ArrayLike, ArrayLike], np.ndarray]:
  """Fits features of images: their principal components, and the label.

  Args:
    images: u8[n,H,W,C], or f[n,H,W,C] of 0 to 255, of known non-members only.
    labels: i[n].
    num_classes: K.
    num_components: components P at most; there are no more than n - 1 and than H*W*C.
    seed: of the randomized solver that large images take.

  Returns:
    `(images u8[N,H,W,C], labels i[N]) -> f64[N,P+K]`, the components in units of the first
    one's standard deviation and the label as one-hot.

  Raises:
    ValueError: too few images, or the shapes, the dtypes or the labels' range do not fit; on
      calling it as well.
  """
  pixels, _ = _check_images(images, labels, num_classes)
  size = np.shape(images)[1:]
  check_whole("num_components", num_components, 1)
  if len(pixels) < 2:
    raise ValueError("Got one image; expected at least 2.")
  pca = PCA(min(num_components, len(pixels) - 1, pixels.shape[1]), random_state=seed)
  with np.errstate(invalid="ignore"):  # images that are all the same
    unit = np.std(pca.fit_transform(pixels)[:, 0]) or 1.0

  def features(images, labels):
    pixels, one_hot = _check_images(images, labels, num_classes)
    if np.shape(images)[1:] != size:
      raise ValueError(
        f"images are of size {list(np.shape(images)[1:])}; expected {list(size)}, as of those "
        "that the features were fitted to."
      )
    return np.concatenate([pca.transform(pixels) / unit, one_hot], axis=1)

  return features


def check_quantile(*, num_components: int, num_folds: int) -> None:
  """Raises ValueError where an option of `attack_quantile` is out of its range."""
  check_whole("num_components", num_components, 1, 1_000_000)
  check_whole("num_folds", num_folds, 2, 1_000_000)


@attack("quantile regression", family="trained on known samples", needs=("known", "images"),
        least_known=5, in_turn=False, check=check_quantile)  # fmt: skip
@_one_thread
def attack_quantile(view: View, *, num_components: int = 32, num_folds: int = 5) -> np.ndarray:
  """Scores all samples by what the known non-members tell.

  No sample is judged by a model fitted to it: each fold of the known non-members is scored by
  a model of the other folds. So a threshold may be learnt on the known samples' scores.

  Args:
    view: what is seen.
    num_components: see `image_features`.
    num_folds: at least 2, and no more than there are known non-members; at least 4 of them
      are outside every fold.

  Returns:
    f64[N]; see `quantile_scores`.

  Raises:
    ValueError: too few samples, or shapes that do not fit.
  """
  phi = view.mean_over_queries(true_label_phi)
  fitted_on = np.flatnonzero(view.is_known & ~view.is_member)
  others = np.flatnonzero(~view.is_known | view.is_member)
  num, num_classes = len(fitted_on), view.logits.shape[-1]
  if not 2 <= num_folds <= num or num - -(-num // num_folds) < 4:
    raise ValueError(
      f"num_folds is {num_folds} of {num} known non-members; expected at least 2 folds, no "
      "more than samples, and at least 4 samples outside each."
    )
  images = np.asarray(view.images)

  def judge(rows, judged):
    """The scores of some rows by a model of others."""
    features = image_features(
      images[rows],
      view.labels[rows],
      num_classes=num_classes,
      num_components=num_components,
      seed=view.seed,
    )
    known, asked = (features(images[of], view.labels[of]) for of in (rows, judged))
    return quantile_scores(known, phi[rows], asked, phi[judged], seed=view.seed)

  scores = np.empty(len(phi))
  scores[others] = judge(fitted_on, others)
  for fold in np.array_split(np.random.default_rng(view.seed).permutation(num), num_folds):
    scores[fitted_on[fold]] = judge(np.delete(fitted_on, fold), fitted_on[fold])
  return scores


def _fit_mean(features, phi, width, seed):
  """The kernel's map, ridge regression of phi on it, and the leave-one-out errors f64[n]."""
  num = min(_NUM_LANDMARKS, len(phi))
  distances = euclidean_distances(features[:_NUM_LANDMARKS], squared=True)
  typical = np.median(distances[np.triu_indices(num, 1)]) or 1.0
  kernel = Nystroem(gamma=1.0 / (width * typical), n_components=num, random_state=seed)
  mapped = kernel.fit_transform(features)
  ridge = RidgeCV(_PENALTIES, store_cv_results=True).fit(mapped, phi)
  squares = ridge.cv_results_[:, ridge.alpha_ == _PENALTIES][:, 0]
  return kernel, ridge, np.sqrt(squares)


def _check(features, phi, kind):
  features = check_numbers(f"{kind}features", features).astype(np.float64)
  phi = check_numbers(f"{kind}phi", phi).astype(np.float64)
  if features.ndim != 2 or phi.shape != features.shape[:1] or not features.size:
    raise ValueError(
      f"Got {kind}features {list(features.shape)} and {kind}phi {list(phi.shape)}; expected "
      "[N, F] and [N], none of them 0."
    )
  if not all(np.all(np.abs(values) <= _LARGEST) for values in (features, phi)):
    raise ValueError(
      f"Some {kind}features or {kind}phi are not finite, or beyond {_LARGEST:.0e}; expected "
      "numbers whose squares are numbers."
    )
  return features, phi


def _check_images(images, labels, num_classes):
  """Pixels in [0, 1], f64[N,H*W*C], and one-hot labels f64[N,K]."""
  images, labels = check_numbers("images", images), check_numbers("labels", labels)
  is_scaled = images.dtype.kind == "f" and images.max(initial=0.0) > 1.0
  if (
    images.ndim != 4
    or not (images.dtype == np.uint8 or is_scaled)
    or labels.shape != images.shape[:1]
  ):
    raise ValueError(
      f"Got images {images.dtype}{list(images.shape)} and labels {list(labels.shape)}; "
      "expected uint8[N, H, W, C], or floats of 0 to 255, and [N]."
    )
  check_whole("num_classes", num_classes, 1)
  is_whole = np.issubdtype(labels.dtype, np.integer)
  if not is_whole or labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
    raise ValueError(f"Some labels are not integers from 0 to {num_classes - 1}.")
  one_hot = labels[:, None] == np.arange(num_classes)  # of these rows only: K may be large
  return images.reshape(len(images), -1) / 255.0, one_hot.astype(np.float64)
