"""HopSkipJump: how far an image is from the decision boundary, found from labels alone.

Chen, Jordan, Wainwright (2020), "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack",
untargeted and in L2. Images that a classifier was trained on tend to lie farther from its
boundary (Choquette-Choo et al. 2021), so the distance is a membership score.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from diffence_jax import rng
from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.boundary_walk import Batch, walk_of
from diffence_jax.attacks.label_only import (
  PREDICTOR_ID,
  augmentation_robustness,
  check_samples,
  predictor_of,
)
from diffence_jax.batching import batches, to_float
from diffence_jax.checks import check_whole
from diffence_jax.predictor import Predict, check_ids


class HopSkipJump(NamedTuple):
  """What the attack has found, for every image.

  Attributes:
    distance: f64[N], L2 distance to the nearest misclassified image found, in units of the
      images; 0 where the image itself is misclassified, sqrt(H*W*C), as far as images can be
      apart, where nothing misclassified was found. Higher for likelier members.
    num_queries: i64[N], labels the attack on this image has asked for.
    adversarial: f32[N,H,W,C] in [0, 1], that nearest image; the image itself where the
      distance is 0 or nothing was found.
    is_found: bool[N], False where none of the starting points was misclassified.
  """

  distance: np.ndarray
  num_queries: np.ndarray
  adversarial: np.ndarray
  is_found: np.ndarray


def hop_skip_jump(
  key: jax.Array,
  predict: Predict,
  images: ArrayLike,
  labels: ArrayLike,
  *,
  num_iterations: int = 20,
  initial_evaluations: int = 100,
  max_evaluations: int = 1000,
  init_trials: int = 100,
  ids: ArrayLike | None = None,
  batch_size: int = 256,
) -> HopSkipJump:
  """Searches for the nearest misclassified image around every image.

  From a misclassified starting point it goes to the boundary by bisection towards the image,
  and then, in every iteration, estimates the normal of the boundary from the labels of random
  points around, steps along it and bisects again (paper, Algorithm 2). It differs from the
  paper in that it returns the nearest point on the way, not the last, and in its starting
  points: trial j of T is 1 - j/T of uniform noise, the rest the image, so that a class that
  all noise falls into has a boundary to be found as well.

  The predictor is meant to be deterministic. A defense that changes no label, as Diffence,
  changes no result, so that the raw predictor can be attacked in its place.

  Args:
    key: a JAX random key.
    predict: a predictor, `(key, images f32[n,H,W,C] in [0,1]) -> logits f[n,K]`.
    images: f[N,H,W,C] in [0, 1].
    labels: i[N], true labels.
    num_iterations: 0 to 1,000,000; more only ever shorten the distance.
    initial_evaluations: labels for the gradient estimate of iteration 1; iteration t takes
      sqrt(t) as many.
    max_evaluations: the most labels that an estimate takes.
    init_trials: starting points tried.
    ids: i[N], stable ids of the samples; None for their positions. The draws for sample i
      depend on `key` and `ids[i]` alone: other images, batches and their order change nothing
      but rounding.
    batch_size: images attacked at a time, each with one query at a time, so that the
      predictor is always called on so many images: take many for speed. Memory is that of a
      few such batches.

  Returns:
    Distances, and what led to them.

  Raises:
    TypeError: the images are not floating point.
    ValueError: images, labels or ids are not right, or a setting is out of range.
  """
  own_key = rng.own_key(key)
  predictor_key = jax.random.fold_in(own_key, PREDICTOR_ID)
  device_images, labels = check_samples(predict, images, labels)
  ids = np.asarray(check_ids(ids, len(labels)))
  check_boundary(
    num_iterations=num_iterations,
    initial_evaluations=initial_evaluations,
    max_evaluations=max_evaluations,
    init_trials=init_trials,
  )
  check_whole("batch_size", batch_size, 1)
  right = augmentation_robustness(
    key, predict, device_images, labels, kind="none", chunk_size=batch_size
  ).astype(bool)
  images, labels = np.array(device_images), np.asarray(labels)
  adversarial, is_found, num_queries = images.copy(), ~right, np.ones(len(images), np.int64)
  start, advance = walk_of(predict)
  attacked = np.flatnonzero(right)
  batch_size = min(batch_size, len(attacked))
  for places, _ in batches(len(attacked), max(1, batch_size)):
    rows = attacked[places]
    batch = Batch(
      images[rows],
      labels[rows],
      jax.vmap(lambda i: jax.random.fold_in(own_key, i))(ids[rows]),
      rng.as_given(jax.random.fold_in(predictor_key, ids[rows[0]]), key),
    )
    walk = start(batch, np.int32(init_trials))
    for t in range(1, num_iterations + 1):
      num_draws = int(min(initial_evaluations * np.sqrt(t), max_evaluations))
      walk = advance(batch, walk, np.int32(t), np.int32(num_draws))
    adversarial[rows] = walk.nearest
    is_found[rows] = walk.is_found
    num_queries[rows] = 1 + np.asarray(walk.num_queries, np.int64)
  steps = (adversarial.astype(np.float64) - images).reshape(len(images), -1)
  distance = np.where(is_found, np.linalg.norm(steps, axis=1), np.sqrt(steps.shape[1]))
  return HopSkipJump(distance, num_queries, adversarial, is_found)


def check_boundary(*, num_iterations: int, **evaluations: int) -> None:
  """Raises ValueError where an option of `hop_skip_jump` is out of its range."""
  check_whole("num_iterations", num_iterations, 0, 1_000_000)
  for name, value in evaluations.items():
    check_whole(name, value, 1, 1_000_000)


@attack("HopSkipJump", family="label only", needs=("images", "ask"), in_turn=False,
        many_labels=True, check=check_boundary)  # fmt: skip
def attack_boundary(
  view: View,
  *,
  num_iterations: int = 20,
  initial_evaluations: int = 100,
  max_evaluations: int = 1000,
  init_trials: int = 100,
) -> np.ndarray:
  """The distance that `hop_skip_jump` finds, with its settings."""
  return hop_skip_jump(
    rng.stream(view.seed, "label_only/boundary"),
    predictor_of(view),
    to_float(np.asarray(view.images)),
    view.labels,
    num_iterations=num_iterations,
    initial_evaluations=initial_evaluations,
    max_evaluations=max_evaluations,
    init_trials=init_trials,
    ids=view.ids,
  ).distance
