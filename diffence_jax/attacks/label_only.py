"""Attacks that see labels only: how well the true label survives changes to the image.

After Choquette-Choo et al. (2021), "Label-Only Membership Inference Attacks": a classifier
keeps the label of what it was trained on under changes that turn other images' labels. The
attacker knows the true labels and looks at the arg-max of the logits alone. A defense that
changes no label, as Diffence, therefore changes no score: the raw predictor can be attacked in
its place, at a fraction of the work.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffence_jax import rng
from diffence_jax.data.augment import augment
from diffence_jax.defense.candidates import check_ids
from diffence_jax.defense.checks import check_images
from diffence_jax.predictor import Predict

# No id of a sample, so its stream is free for the predictor's own randomness.
PREDICTOR_ID = rng.MAX_ID + 1


def augmentation_robustness(
  key: jax.Array,
  predict: Predict,
  images: ArrayLike,
  labels: ArrayLike,
  *,
  kind: str = "flip_shifts",
  chunk_size: int = 1024,
) -> np.ndarray:
  """The share of an image's augmented versions that get the true label.

  The paper trains a model on which versions do; the share needs no training. `kind="none"` is
  the gap attack.

  Args:
    key: a JAX random key, for a predictor that is random itself.
    predict: a predictor, `(key, images f32[n,H,W,C] in [0,1]) -> logits f[n,K]`.
    images: f[N,H,W,C] in [0, 1].
    labels: i[N], true labels.
    kind: the versions, a kind of `data.augment.augment`.
    chunk_size: versions that go through the predictor at a time, as a multiple of the number
      of an image's versions, once at least. It changes nothing, but for a predictor that is
      random itself: that one gets a key for each chunk.

  Returns:
    f64[N], in [0, 1].

  Raises:
    TypeError: the images are not floating point.
    ValueError: images or labels are not right, there is no such kind, or the size is below 1.
  """
  images, labels = check_samples(predict, images, labels)
  check_at_least_one(chunk_size=chunk_size)
  num_versions = augment(np.zeros((1, 1, 1, 1)), kind).shape[1]

  @jax.jit
  def count_kept(images, labels, rows):
    versions = augment(images[rows], kind)
    own_key = jax.random.fold_in(jax.random.fold_in(key, PREDICTOR_ID), rows[0])
    logits = predict(own_key, versions.reshape(-1, *images.shape[1:]))
    kept = jnp.argmax(logits, axis=-1).reshape(-1, num_versions) == labels[rows][:, None]
    return jnp.sum(kept, axis=-1)

  counts = _in_chunks(
    lambda rows: count_kept(images, labels, rows),
    len(images),
    max(1, chunk_size // num_versions),
  )
  return counts / num_versions


def noise_robustness(
  key: jax.Array,
  predict: Predict,
  images: ArrayLike,
  labels: ArrayLike,
  *,
  sigma: float = 0.05,
  num_draws: int = 64,
  ids: ArrayLike | None = None,
  chunk_size: int = 1024,
) -> np.ndarray:
  """The share of an image's noisy copies that get the true label.

  A cheap stand-in for the distance to the decision boundary, which `hop_skip_jump` measures.

  Args:
    key: a JAX random key, for the noise.
    predict: a predictor, `(key, images f32[n,H,W,C] in [0,1]) -> logits f[n,K]`.
    images: f[N,H,W,C] in [0, 1].
    labels: i[N], true labels.
    sigma: standard deviation of the Gaussian noise, in units of the images, at least 0; noisy
      copies are clipped to [0, 1].
    num_draws: copies of an image, at least 1.
    ids: i[N], stable ids of the samples; None for their positions. The noise of draw j of
      sample i depends on `key`, `ids[i]` and j alone.
    chunk_size: copies that go through the predictor at a time. It changes nothing, but for a
      predictor that is random itself: that one gets a key for each chunk.

  Returns:
    f64[N], in [0, 1].

  Raises:
    TypeError: the images are not floating point.
    ValueError: images, labels or ids are not right, or a setting is out of range.
  """
  images, labels = check_samples(predict, images, labels)
  ids = check_ids(ids, len(images))
  check_at_least_one(num_draws=num_draws, chunk_size=chunk_size)
  if not 0.0 <= sigma < np.inf:
    raise ValueError(f"sigma is {sigma}; expected a finite number, at least 0.")

  @jax.jit
  def is_kept(images, labels, ids, samples, draws):
    keys = rng.candidate_keys(key, ids[samples], draws)
    noise = draw_like(jax.random.normal, keys, images[samples])
    noisy = jnp.clip(images[samples] + sigma * noise, 0.0, 1.0)
    # Neither the noise's key nor another chunk's: a predictor may be randomised itself.
    predictor_key = jax.random.fold_in(key, PREDICTOR_ID)
    own_key = rng.candidate_keys(predictor_key, ids[samples[:1]], draws[:1])[0]
    return jnp.argmax(predict(own_key, noisy), axis=-1) == labels[samples]

  kept = _in_chunks(
    lambda positions: is_kept(images, labels, ids, *np.divmod(positions, num_draws)),
    len(images) * num_draws,
    chunk_size,
  )
  return kept.reshape(-1, num_draws).mean(axis=1)


def check_samples(
  predict: Predict, images: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array]:
  """Checks images and labels against each other and against what the predictor returns.

  Args:
    predict: a predictor; traced, not run.
    images: f[N,H,W,C] in [0, 1].
    labels: i[N].

  Returns:
    f32[N,H,W,C] and i32[N].

  Raises:
    TypeError: the images are not floating point.
    ValueError: wrong shapes, values not finite or out of range.
  """
  images, labels = check_images(images), np.asarray(labels)
  if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f"labels are {labels.dtype}{list(labels.shape)}; expected integers, [{len(images)}]."
    )
  logits = jax.eval_shape(predict, jax.random.key(0), images[:1])
  if len(logits.shape) != 2:
    raise ValueError(
      f"The predictor returns shape {logits.shape} for one image; expected (1, K)."
    )
  num_classes = logits.shape[1]
  if labels.min() < 0 or labels.max() >= num_classes:
    raise ValueError(
      f"labels range from {labels.min()} to {labels.max()}; expected 0 to {num_classes - 1}."
    )
  return images, jnp.asarray(labels, jnp.int32)


def check_at_least_one(**settings: int) -> None:
  """Raises ValueError unless every setting is at least 1."""
  for name, value in settings.items():
    if value < 1:
      raise ValueError(f"{name} is {value}; expected at least 1.")


def draw_like(
  distribution: Callable[..., jax.Array], keys: jax.Array, images: jax.Array
) -> jax.Array:
  """One draw of `jax.random.<distribution>` for each key, in the shape of the images.

  Args:
    distribution: `(key, shape, dtype) -> draws`.
    keys: keys[N].
    images: f32[N,H,W,C]; only the shape counts.

  Returns:
    f32[N,H,W,C], what every key gives for the shape (H, W, C).
  """
  # Drawn flat, which compiles in a third of the time.
  shape = (images[0].size,)
  draws = jax.vmap(lambda k: distribution(k, shape, jnp.float32))(keys)
  return draws.reshape(images.shape)


def _in_chunks(
  function: Callable[[np.ndarray], jax.Array], total: int, chunk_size: int
) -> np.ndarray:
  """`function` of all positions up to `total`, always called on the same number of them."""
  chunk_size = min(chunk_size, total)
  # The last chunk is filled up with repetitions of the last position, cut off again.
  parts = [
    function(np.minimum(np.arange(first, first + chunk_size), total - 1))
    for first in range(0, total, chunk_size)
  ]
  return np.concatenate(jax.device_get(parts))[:total]
