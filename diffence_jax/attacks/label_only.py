"""Attacks that see labels only: how well the true label survives changes to the image.

After Choquette-Choo et al. (2021), "Label-Only Membership Inference Attacks": a classifier
keeps the label of what it was trained on under changes that turn other images' labels. The
attacker knows the true labels and looks at the arg-max of the logits alone. A defense that
changes no label, as Diffence, therefore changes no score: the raw predictor can be attacked in
its place, at a fraction of the work.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffence_jax import rng
from diffence_jax.attacks.attack import View, attack
from diffence_jax.batching import in_batches, to_float
from diffence_jax.checks import (
  check_choice,
  check_labels,
  check_numbers,
  check_range,
  check_whole,
)
from diffence_jax.data.augment import KINDS, augment
from diffence_jax.predictor import (
  Predict,
  are_finite,
  ask,
  check_function,
  check_ids,
  check_images,
  runs_on_host,
)

# No id of a sample, so its stream is free for the predictor's own randomness.
PREDICTOR_ID = rng.MAX_ID + 1

# Stands for a count where the predictor gives no numbers, whose arg-max is no label.
_NO_LABEL = -1


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
  check_whole("chunk_size", chunk_size, 1)
  num_versions = augment(np.zeros((1, 1, 1, 1)), kind).shape[1]

  def count_kept(images, labels, rows):
    versions = augment(images[rows], kind)
    predictor_key = jax.random.fold_in(rng.own_key(key), PREDICTOR_ID)
    own_key = jax.random.fold_in(predictor_key, rows[0])
    versions = versions.reshape(-1, *images.shape[1:])
    logits = ask(predict, rng.as_given(own_key, key), versions)
    kept = jnp.argmax(logits, axis=-1).reshape(-1, num_versions) == labels[rows][:, None]
    finite = jnp.all(are_finite(logits).reshape(-1, num_versions), axis=-1)
    return jnp.where(finite, jnp.sum(kept, axis=-1), _NO_LABEL)

  count_kept = _compiled(predict, count_kept)
  counts = in_batches(
    lambda rows: count_kept(images, labels, rows),
    len(images),
    max(1, chunk_size // num_versions),
  )
  return _check_labels_given(counts) / num_versions


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
    num_draws: copies of an image, 1 to 1,000,000.
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
  check_noise(sigma=sigma, num_draws=num_draws)
  check_whole("chunk_size", chunk_size, 1)

  def is_kept(images, labels, ids, samples, draws):
    keys = rng.candidate_keys(key, ids[samples], draws)
    noise = draw_like(jax.random.normal, keys, images[samples])
    noisy = jnp.clip(images[samples] + sigma * noise, 0.0, 1.0)
    # Neither the noise's key nor another chunk's: a predictor may be randomised itself.
    predictor_key = jax.random.fold_in(rng.own_key(key), PREDICTOR_ID)
    own_key = rng.candidate_keys(predictor_key, ids[samples[:1]], draws[:1])[0]
    logits = ask(predict, rng.as_given(own_key, key), noisy)
    kept = jnp.argmax(logits, axis=-1) == labels[samples]
    return jnp.where(are_finite(logits), kept.astype(jnp.int32), _NO_LABEL)

  is_kept = _compiled(predict, is_kept)
  kept = in_batches(
    lambda positions: is_kept(images, labels, ids, *np.divmod(positions, num_draws)),
    len(images) * num_draws,
    chunk_size,
  )
  return _check_labels_given(kept).reshape(-1, num_draws).mean(axis=1)


def predictor_of(view: View) -> Predict:
  """A predictor that tells the labels that the attacked model gives, and nothing else."""
  num_classes = view.logits.shape[-1]
  predict = lambda key, images: jax.nn.one_hot(view.ask(images), num_classes)
  predict.runs_on_host = runs_on_host(view.ask)
  return predict


def check_kind(kind: str) -> None:
  """Raises ValueError unless this is a kind of `data.augment.augment`."""
  check_choice("kind", kind, KINDS)


def check_noise(*, sigma: float, num_draws: int) -> None:
  """Raises ValueError where an option of `noise_robustness` is out of its range."""
  check_range("sigma", sigma, 0.0, None)
  check_whole("num_draws", num_draws, 1, 1_000_000)


@attack("augmentation robustness", family="label only", needs=("images", "ask"), in_turn=False,
        check=check_kind)  # fmt: skip
def attack_augmentation(view: View, *, kind: str = "flip_shifts") -> np.ndarray:
  """`augmentation_robustness`."""
  key = rng.stream(view.seed, "label_only/augmentation")
  images = to_float(np.asarray(view.images))
  return augmentation_robustness(key, predictor_of(view), images, view.labels, kind=kind)


@attack("noise robustness", family="label only", needs=("images", "ask"), in_turn=False,
        check=check_noise)  # fmt: skip
def attack_noise(view: View, *, sigma: float = 0.05, num_draws: int = 64) -> np.ndarray:
  """`noise_robustness`."""
  key = rng.stream(view.seed, "label_only/noise")
  asked = predictor_of(view), to_float(np.asarray(view.images)), view.labels
  return noise_robustness(key, *asked, sigma=sigma, num_draws=num_draws, ids=view.ids)


def check_samples(
  predict: Predict, images: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array]:
  """Checks images and labels against each other and against what the predictor returns.

  Args:
    predict: a predictor; traced, not run, unless it runs on the host: then it is asked about
      the first image.
    images: f[N,H,W,C] in [0, 1].
    labels: i[N].

  Returns:
    f32[N,H,W,C] and i32[N].

  Raises:
    TypeError: the images are not floating point.
    ValueError: wrong shapes, values not finite or out of range.
  """
  images, labels = check_images(images), check_numbers("labels", labels)
  if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f"labels are {labels.dtype}{list(labels.shape)}; expected integers, [{len(images)}]."
    )
  check_function("predict", predict, "key, images")
  answer = lambda x: ask(predict, rng.seed_key(0), x)
  # Only traced: not run, and so nothing is known but the shape.
  traced = answer if runs_on_host(predict) else functools.partial(jax.eval_shape, answer)
  check_labels("labels", labels, traced(images[:1]).shape[1])
  return images, jnp.asarray(labels, jnp.int32)


def _compiled(predict, function):
  """A function that asks the predictor, compiled unless that runs on the host."""
  return function if runs_on_host(predict) else jax.jit(function)


def _check_labels_given(counts):
  """Returns counts i[...]; raises ValueError where there was no label to count."""
  if missing := np.sum(counts == _NO_LABEL):
    raise ValueError(
      f"{missing} of {counts.size} of predict's answers to changed images have NaN, +inf, or "
      "are all -inf; expected numbers. Check the predictor."
    )
  return counts


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
