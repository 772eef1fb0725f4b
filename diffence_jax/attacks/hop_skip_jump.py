"""HopSkipJump: how far an image is from the decision boundary, found from labels alone.

Chen, Jordan, Wainwright (2020), "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack",
untargeted and in L2. Images that a classifier was trained on tend to lie farther from its
boundary (Choquette-Choo et al. 2021), so the distance is a membership score.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffence_jax import rng
from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.label_only import (
  PREDICTOR_ID,
  augmentation_robustness,
  check_at_least_one,
  check_samples,
  draw_like,
  predictor_of,
)
from diffence_jax.batching import batches, to_float
from diffence_jax.predictor import Predict, check_ids

# How far the first gradient estimate looks, in units of the images, as the published code.
_FIRST_RADIUS = 0.1
# After these halvings a step is too short to matter; the published code has no limit.
_MAX_STEPS = 20


class HopSkipJump(NamedTuple):
  """What the attack found, for every image.

  Attributes:
    distance: f64[N], L2 distance to the nearest misclassified image found, in units of the
      images; 0 where the image itself is misclassified, sqrt(H*W*C), as far as images can be
      apart, where nothing misclassified was found. Higher for likelier members.
    num_queries: i64[N], labels the attack on this image has asked for.
    adversarial: f32[N,H,W,C] in [0, 1], that nearest image; the image itself where the
      distance is 0 or nothing was found.
    found: bool[N], False where none of the starting points was misclassified.
  """

  distance: np.ndarray
  num_queries: np.ndarray
  adversarial: np.ndarray
  found: np.ndarray


class _Batch(NamedTuple):
  """Images under attack, all classified rightly; the `keys` are one for each image."""

  images: jax.Array
  labels: jax.Array
  keys: jax.Array
  predictor_key: jax.Array


class _Walk(NamedTuple):
  """Where the attack stands.

  `point` f32[B,H,W,C] is misclassified and next to the boundary, `radius` f32[B] how far
  around it the gradient is looked for, `nearest` the nearest point so far, at `distance`
  f32[B] (infinite where `found` is False).
  """

  point: jax.Array
  radius: jax.Array
  nearest: jax.Array
  distance: jax.Array
  found: jax.Array
  num_queries: jax.Array


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
  """Searches the nearest misclassified image around every image.

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
    num_iterations: at least 0; more only ever shorten the distance.
    initial_evaluations: labels for the gradient estimate of iteration 1; iteration t takes
      sqrt(t) as many.
    max_evaluations: at most so many.
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
  device_images, labels = check_samples(predict, images, labels)
  ids = np.asarray(check_ids(ids, len(labels)))
  if num_iterations < 0:
    raise ValueError(f"num_iterations is {num_iterations}; expected at least 0.")
  check_at_least_one(
    initial_evaluations=initial_evaluations,
    max_evaluations=max_evaluations,
    init_trials=init_trials,
    batch_size=batch_size,
  )
  right = augmentation_robustness(
    key, predict, device_images, labels, kind="none", chunk_size=batch_size
  ).astype(bool)
  images, labels = np.array(device_images), np.asarray(labels)
  adversarial, found, num_queries = images.copy(), ~right, np.ones(len(images), np.int64)
  start, advance = _compile(predict)
  attacked = np.flatnonzero(right)
  batch_size = min(batch_size, len(attacked))
  for places, _ in batches(len(attacked), max(1, batch_size)):
    rows = attacked[places]
    batch = _Batch(
      images[rows],
      labels[rows],
      jax.vmap(lambda i: jax.random.fold_in(key, i))(ids[rows]),
      jax.random.fold_in(jax.random.fold_in(key, PREDICTOR_ID), ids[rows[0]]),
    )
    walk = start(batch, np.int32(init_trials))
    for t in range(1, num_iterations + 1):
      num_draws = int(min(initial_evaluations * np.sqrt(t), max_evaluations))
      walk = advance(batch, walk, np.int32(t), np.int32(num_draws))
    adversarial[rows] = walk.nearest
    found[rows] = walk.found
    num_queries[rows] = 1 + np.asarray(walk.num_queries, np.int64)
  steps = (adversarial.astype(np.float64) - images).reshape(len(images), -1)
  distance = np.where(found, np.linalg.norm(steps, axis=1), np.sqrt(steps.shape[1]))
  return HopSkipJump(distance, num_queries, adversarial, found)


@attack("HopSkipJump", family="label only", needs=("images", "ask"), in_turn=False)
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


# A few, so that an attack in several calls is compiled once, and no old weights pile up.
@functools.lru_cache(maxsize=4)
def _compile(predict: Predict) -> tuple[Callable, Callable]:
  """The attack's two compiled functions: to the boundary, and one iteration along it."""

  def is_misclassified(batch, key, number, points):
    logits = predict(jax.random.fold_in(key, number), points)
    return jnp.argmax(logits, axis=-1) != batch.labels

  def bisect(batch, key, outside):
    """From misclassified points to the boundary; returns the misclassified side of it."""

    def halve(number, ends):
      inside, outside = ends
      middle = 0.5 * (inside + outside)
      wrong = is_misclassified(batch, key, number, middle)
      return _pick(wrong, inside, middle), _pick(wrong, middle, outside)

    steps = _num_bisections(batch.images)
    return jax.lax.fori_loop(0, steps, halve, (batch.images, outside))[1]

  @jax.jit
  def start(batch, num_trials):
    trial_key, bisect_key = jax.random.split(jax.random.fold_in(batch.predictor_key, 0))
    keys = _fold(batch.keys, 0)

    def try_noise(state):
      number, points, found, num_queries = state
      noise = draw_like(jax.random.uniform, _fold(keys, number), batch.images)
      weight = 1.0 - (number / num_trials).astype(jnp.float32)
      blended = batch.images + weight * (noise - batch.images)
      wrong = is_misclassified(batch, trial_key, number, blended)
      points = _pick(wrong & ~found, blended, points)
      return number + 1, points, found | wrong, num_queries + jnp.where(found, 0, 1)

    _, points, found, num_queries = jax.lax.while_loop(
      lambda state: (state[0] < num_trials) & ~jnp.all(state[2]),
      try_noise,
      (jnp.int32(0), batch.images, *_zeros(batch, bool, jnp.int32)),
    )
    points = bisect(batch, bisect_key, points)
    return _Walk(
      point=points,
      radius=jnp.full(len(points), _FIRST_RADIUS, jnp.float32),
      nearest=points,
      distance=jnp.where(found, _norm(points - batch.images), jnp.inf),
      found=found,
      num_queries=num_queries + jnp.where(found, _num_bisections(batch.images), 0),
    )

  def estimate_normal(batch, key, walk, keys, num_draws):
    """Unit vectors from the boundary into the misclassified side, f32[B,H,W,C]."""

    def draw(number, sums):
      total, signed, balance = sums
      noise = draw_like(jax.random.normal, _fold(keys, number), walk.point)
      noise = _scale(walk.radius / _norm(noise), noise)
      points = jnp.clip(walk.point + noise, 0.0, 1.0)
      # What [0, 1] has cut off a draw did not take part in its label.
      moved = _scale(1.0 / walk.radius, points - walk.point)
      wrong = is_misclassified(batch, key, number, points)
      sign = jnp.where(wrong, 1.0, -1.0)
      return total + moved, signed + _scale(sign, moved), balance + sign

    zeros = jnp.zeros_like(walk.point), jnp.zeros_like(walk.point), jnp.zeros_like(walk.radius)
    total, signed, balance = jax.lax.fori_loop(0, num_draws, draw, zeros)
    mean = balance / num_draws.astype(jnp.float32)
    # The mean is a baseline that cuts the variance; where all labels agree it would leave 0.
    baseline = jnp.where(jnp.abs(mean) < 1.0, mean, 0.0)
    estimate = signed - _scale(baseline, total)
    return _scale(1.0 / jnp.maximum(_norm(estimate), jnp.finfo(jnp.float32).tiny), estimate)

  @jax.jit
  def advance(batch, walk, t, num_draws):
    draw_key, step_key, bisect_key = jax.random.split(
      jax.random.fold_in(batch.predictor_key, t), 3
    )
    keys = _fold(batch.keys, t)
    normal = estimate_normal(batch, draw_key, walk, keys, num_draws)

    def try_step(state):
      number, length, goal, done, num_queries = state
      points = jnp.clip(walk.point + _scale(length, normal), 0.0, 1.0)
      wrong = is_misclassified(batch, step_key, number, points)
      goal = _pick(wrong & ~done, points, goal)
      return number + 1, 0.5 * length, goal, done | wrong, num_queries + jnp.where(done, 0, 1)

    # Where every step fails the point stays.
    length = _norm(walk.point - batch.images) / jnp.sqrt(t.astype(jnp.float32))
    _, _, goal, _, num_queries = jax.lax.while_loop(
      lambda state: (state[0] < _MAX_STEPS) & ~jnp.all(state[3] | ~walk.found),
      try_step,
      (jnp.int32(0), length, walk.point, *_zeros(batch, bool, jnp.int32)),
    )
    point = bisect(batch, bisect_key, goal)
    distance = _norm(point - batch.images)
    nearer = distance < walk.distance
    num_queries = num_queries + num_draws + _num_bisections(batch.images)
    dimension = batch.images[0].size
    # Below the lower limit float32 pixels would hardly move.
    radius = jnp.maximum(_norm(goal - batch.images) / dimension, 2.0**-22 * dimension**0.5)
    return _Walk(
      point=point,
      radius=radius,
      nearest=_pick(nearer & walk.found, point, walk.nearest),
      distance=jnp.where(nearer & walk.found, distance, walk.distance),
      found=walk.found,
      num_queries=walk.num_queries + jnp.where(walk.found, num_queries, 0),
    )

  return start, advance


def _num_bisections(images):
  """Down to d**-1.5 of the line, as the paper, at most 1e-3 of it, and as float32 allows."""
  threshold = np.clip(images[0].size ** -1.5, 1e-6, 1e-3)
  return int(np.ceil(-np.log2(threshold)))


def _zeros(batch, *dtypes):
  return [jnp.zeros(len(batch.images), dtype) for dtype in dtypes]


def _fold(keys, number):
  return jax.vmap(lambda k: jax.random.fold_in(k, number))(keys)


def _norm(images):
  return jnp.sqrt(jnp.sum(images**2, axis=(1, 2, 3)))


def _scale(factors, images):
  return factors[:, None, None, None] * images


def _pick(condition, images, others):
  return jnp.where(condition[:, None, None, None], images, others)
