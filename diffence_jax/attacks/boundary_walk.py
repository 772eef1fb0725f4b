"""The walk along a classifier's decision boundary that `hop_skip_jump` takes, compiled.

Chen, Jordan, Wainwright (2020), algorithm 2: to the boundary by bisection towards the image;
there, the normal of the boundary from the labels of random points around, a step along it, and
again. Every function asks the classifier for labels and nothing else. Where it runs on the
host, the loops do too.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import rng
from diffence_jax.attacks.label_only import draw_like
from diffence_jax.predictor import Predict, ask, runs_on_host

# How far the first gradient estimate looks, in units of the images, as the published code.
_FIRST_RADIUS = 0.1
# After these halvings a step is too short to matter; the published code has no limit.
_MAX_STEPS = 20


class Batch(NamedTuple):
  """Images under attack, all classified rightly.

  Attributes:
    images: f32[B,H,W,C] in [0, 1].
    labels: i[B], the true ones.
    keys: keys[B], of the draws for each image.
    predictor_key: for a predictor that is random itself, which gets its keys of the same form.
  """

  images: jax.Array
  labels: jax.Array
  keys: jax.Array
  predictor_key: jax.Array


class Walk(NamedTuple):
  """Where the attack on every image stands.

  Attributes:
    point: f32[B,H,W,C], misclassified and next to the boundary.
    radius: f32[B], how far around it the normal is looked for.
    nearest: f32[B,H,W,C], the nearest point so far.
    distance: f32[B], of it from the image; infinite where `is_found` is False.
    is_found: bool[B], whether a starting point was misclassified.
    num_queries: i32[B], labels asked for since the walk began.
  """

  point: jax.Array
  radius: jax.Array
  nearest: jax.Array
  distance: jax.Array
  is_found: jax.Array
  num_queries: jax.Array


def walk_of(predict: Predict) -> tuple[Callable, Callable]:
  """The walk for one predictor, compiled unless that runs on the host.

  Args:
    predict: a predictor, `(key, images f32[B,H,W,C] in [0,1]) -> logits f[B,K]`.

  Returns:
    `start(batch, num_trials i32[]) -> walk`, from the first of so many starting points that is
    misclassified to the boundary; and `advance(batch, walk, t i32[], num_draws i32[]) -> walk`,
    iteration t, with so many draws for the normal.
  """
  if runs_on_host(predict):
    return functools.partial(_start, predict), functools.partial(_advance, predict)
  # Its call is known by the object's identity: objects with a call may have no hash.
  return _compile(predict.__call__)


# A few, so that an attack in several calls is compiled once, and no old weights pile up.
@functools.lru_cache(maxsize=4)
def _compile(predict):
  return tuple(jax.jit(functools.partial(f, predict)) for f in (_start, _advance))


def _start(predict: Predict, batch: Batch, num_trials: jax.Array) -> Walk:
  """Goes from a misclassified starting point to the boundary."""
  predictor_key = rng.own_key(batch.predictor_key)
  trial_key, bisect_key = jax.random.split(jax.random.fold_in(predictor_key, 0))
  points, is_found, num_queries = _try_noise(
    _Asking(predict, batch, trial_key), batch, num_trials
  )
  points = _bisect(_Asking(predict, batch, bisect_key), batch, points)
  return Walk(
    point=points,
    radius=jnp.full(len(points), _FIRST_RADIUS, jnp.float32),
    nearest=points,
    distance=jnp.where(is_found, _norm(points - batch.images), jnp.inf),
    is_found=is_found,
    num_queries=num_queries + jnp.where(is_found, _num_bisections(batch.images), 0),
  )


def _advance(
  predict: Predict, batch: Batch, walk: Walk, t: jax.Array, num_draws: jax.Array
) -> Walk:
  """Estimates the boundary's normal, steps along it and bisects again."""
  predictor_key = rng.own_key(batch.predictor_key)
  draw_key, step_key, bisect_key = jax.random.split(jax.random.fold_in(predictor_key, t), 3)
  keys = _fold(batch.keys, t)
  normal = _estimate_normal(_Asking(predict, batch, draw_key), keys, walk, num_draws)
  goal, num_queries = _try_steps(_Asking(predict, batch, step_key), batch, walk, normal, t)
  point = _bisect(_Asking(predict, batch, bisect_key), batch, goal)
  distance = _norm(point - batch.images)
  nearer = distance < walk.distance
  num_queries = num_queries + num_draws + _num_bisections(batch.images)
  dimension = batch.images[0].size
  # Below the lower limit float32 pixels would hardly move.
  radius = jnp.maximum(_norm(goal - batch.images) / dimension, 2.0**-22 * dimension**0.5)
  return Walk(
    point=point,
    radius=radius,
    nearest=_pick(nearer & walk.is_found, point, walk.nearest),
    distance=jnp.where(nearer & walk.is_found, distance, walk.distance),
    is_found=walk.is_found,
    num_queries=walk.num_queries + jnp.where(walk.is_found, num_queries, 0),
  )


class _Asking(NamedTuple):
  """Asks the predictor; query n of these has the key `fold_in(key, n)`."""

  predict: Predict
  batch: Batch
  key: jax.Array

  def is_misclassified(self, number: jax.Array, points: jax.Array) -> jax.Array:
    """bool[B], of points f32[B,H,W,C]: all that the attack learns."""
    own_key = jax.random.fold_in(self.key, number)
    logits = ask(self.predict, rng.as_given(own_key, self.batch.predictor_key), points)
    return jnp.argmax(logits, axis=-1) != self.batch.labels

  def while_loop(self, condition: Callable, body: Callable, state: tuple) -> tuple:
    """`jax.lax.while_loop` round questions."""
    if not runs_on_host(self.predict):
      return jax.lax.while_loop(condition, body, state)
    while condition(state):
      state = body(state)
    return state

  def fori_loop(self, num: int | jax.Array, body: Callable, state: tuple) -> tuple:
    """`jax.lax.fori_loop` from 0, round questions."""
    if not runs_on_host(self.predict):
      return jax.lax.fori_loop(0, num, body, state)
    for number in range(num):
      state = body(jnp.int32(number), state)
    return state


def _try_noise(asking, batch, num_trials):
  """The first misclassified of the starting points, whether there is one, and the queries."""
  keys = _fold(batch.keys, 0)

  def try_next(state):
    number, points, is_found, num_queries = state
    noise = draw_like(jax.random.uniform, _fold(keys, number), batch.images)
    weight = 1.0 - (number / num_trials).astype(jnp.float32)
    blended = batch.images + weight * (noise - batch.images)
    wrong = asking.is_misclassified(number, blended)
    points = _pick(wrong & ~is_found, blended, points)
    return number + 1, points, is_found | wrong, num_queries + jnp.where(is_found, 0, 1)

  return asking.while_loop(
    lambda state: (state[0] < num_trials) & ~jnp.all(state[2]),
    try_next,
    (jnp.int32(0), batch.images, *_zeros(batch, bool, jnp.int32)),
  )[1:]


def _bisect(asking, batch, outside):
  """From misclassified points to the boundary; returns the misclassified side of it."""

  def halve(number, ends):
    inside, outside = ends
    middle = 0.5 * (inside + outside)
    wrong = asking.is_misclassified(number, middle)
    return _pick(wrong, inside, middle), _pick(wrong, middle, outside)

  steps = _num_bisections(batch.images)
  return asking.fori_loop(steps, halve, (batch.images, outside))[1]


def _estimate_normal(asking, keys, walk, num_draws):
  """Unit vectors from the boundary into the misclassified side, f32[B,H,W,C]."""

  def draw(number, sums):
    total, signed, balance = sums
    noise = draw_like(jax.random.normal, _fold(keys, number), walk.point)
    noise = _scale(walk.radius / _norm(noise), noise)
    points = jnp.clip(walk.point + noise, 0.0, 1.0)
    # What [0, 1] has cut off a draw did not take part in its label.
    moved = _scale(1.0 / walk.radius, points - walk.point)
    sign = jnp.where(asking.is_misclassified(number, points), 1.0, -1.0)
    return total + moved, signed + _scale(sign, moved), balance + sign

  zeros = jnp.zeros_like(walk.point), jnp.zeros_like(walk.point), jnp.zeros_like(walk.radius)
  total, signed, balance = asking.fori_loop(num_draws, draw, zeros)
  mean = balance / num_draws.astype(jnp.float32)
  # The mean is a baseline that cuts the variance; where all labels agree it would leave 0.
  baseline = jnp.where(jnp.abs(mean) < 1.0, mean, 0.0)
  estimate = signed - _scale(baseline, total)
  return _scale(1.0 / jnp.maximum(_norm(estimate), jnp.finfo(jnp.float32).tiny), estimate)


def _try_steps(asking, batch, walk, normal, t):
  """The longest step along the normal, halved until it is misclassified; and the queries."""

  def try_next(state):
    number, length, goal, done, num_queries = state
    points = jnp.clip(walk.point + _scale(length, normal), 0.0, 1.0)
    wrong = asking.is_misclassified(number, points)
    goal = _pick(wrong & ~done, points, goal)
    return number + 1, 0.5 * length, goal, done | wrong, num_queries + jnp.where(done, 0, 1)

  # Where every step fails the point stays.
  length = _norm(walk.point - batch.images) / jnp.sqrt(t.astype(jnp.float32))
  _, _, goal, _, num_queries = asking.while_loop(
    lambda state: (state[0] < _MAX_STEPS) & ~jnp.all(state[3] | ~walk.is_found),
    try_next,
    (jnp.int32(0), length, walk.point, *_zeros(batch, bool, jnp.int32)),
  )
  return goal, num_queries


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
