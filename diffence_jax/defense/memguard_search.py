"""MemGuard's search for every sample's new logits, compiled.

Many samples are searched for side by side, in lanes. A sample that is finished makes room for
the next one of the queue.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffence_jax.defense.memguard_attacker import Attacker, output, outputs

# The weights of the distortion, tried one after the other.
_C3 = (0.1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5)
# As near to 1/2 as this an output is left alone.
_CLOSE = 1e-5
# Iterations between two looks at which samples are finished.
_ROUND = 16


class _Sample(NamedTuple):
  """What stays the same of a sample."""

  logits: jax.Array  # f32[K], z0.
  probabilities: jax.Array  # f32[K], its softmax.
  is_label: jax.Array  # bool[K].
  h: jax.Array  # f32[], h(z0).


class _State(NamedTuple):
  """Where the search for a sample stands."""

  z: jax.Array  # f32[K], the current logits.
  level: jax.Array  # i32[], the place of the current c3.
  step: jax.Array  # i32[], steps made with it.
  best: jax.Array  # f32[K], where the last c3 that succeeded ended, z0 before.
  done: jax.Array  # bool[].


def _lead(logits, is_label):
  """By how much the label's logit is above all others."""
  labels_logit = jnp.sum(jnp.where(is_label, logits, 0.0))
  return labels_logit - jnp.max(jnp.where(is_label, -jnp.inf, logits))


def _start(sample):
  zero = jnp.int32(0)
  return _State(sample.logits, zero, zero, sample.logits, jnp.bool_(False))


def _choose(condition, yes, no):
  return jax.tree.map(functools.partial(jnp.where, condition), yes, no)


def _advance(params, settings, sample, state):
  """Looks at where one sample stands: its c3 has succeeded or failed, or it steps on."""
  step_size, max_iterations, c1, c2 = settings
  # At z0 the distortion has no gradient, and rounding must not give it one.
  c3 = jnp.where(state.step > 0, jnp.array(_C3)[state.level], 0.0)

  def loss(z):
    h = output(params, z)
    label_lost = jax.nn.relu(-_lead(z, sample.is_label))
    distortion = jnp.sum(jnp.abs(jax.nn.softmax(z) - sample.probabilities))
    return c1 * jnp.abs(h) + c2 * label_lost + c3 * distortion, h

  gradient, h = jax.grad(loss, has_aux=True)(state.z)
  # For a very sure answer it is so small that its squares would vanish.
  largest = jnp.max(jnp.abs(gradient))
  gradient = gradient / jnp.where(largest > 0.0, largest, 1.0)
  length = jnp.maximum(jnp.linalg.norm(gradient), 1.0)  # Below 1 only where it is 0.
  crossed = jnp.isfinite(h) & ((h == 0.0) | ((h > 0.0) != (sample.h > 0.0)))
  succeeded = crossed & (_lead(state.z, sample.is_label) > 0.0)
  succeeded &= (state.step > 0) & ~state.done
  level = state.level + succeeded.astype(jnp.int32)
  failed = ~succeeded & (state.step >= max_iterations)
  return _State(
    z=jnp.where(succeeded, sample.logits, state.z - step_size * gradient / length),
    level=jnp.minimum(level, len(_C3) - 1),
    step=jnp.where(succeeded, 0, state.step + 1),
    best=jnp.where(succeeded, state.z, state.best),
    done=state.done | failed | (level == len(_C3)),
  )


@functools.partial(jax.jit, static_argnames="lanes")
def search(
  params: Attacker,
  settings: tuple[float, int, float, float],
  logits: jax.Array,
  num: int,
  *,
  lanes: int,
) -> jax.Array:
  """Defends the first `num` samples of a queue; see `memguard.memguard_logits`.

  Args:
    params: the defender's attacker.
    settings: step size, iterations with every c3, c1 and c2.
    logits: f32[Q,K].
    num: at most Q; the rest only fill the queue up.
    lanes: samples that are worked on at a time.

  Returns:
    f32[Q,K].
  """
  h = outputs(params, logits)
  is_label = jax.nn.one_hot(jnp.argmax(logits, axis=1), logits.shape[1], dtype=bool)
  samples = _Sample(logits, jax.nn.softmax(logits), is_label, h)
  wanted = (jnp.arange(len(logits)) < num) & jnp.all(jnp.isfinite(logits), axis=1)
  wanted &= jax.vmap(_lead)(logits, is_label) > 0.0
  wanted &= jnp.isfinite(h) & (jnp.abs(jax.nn.sigmoid(h) - 0.5) > _CLOSE)
  queue = jnp.argsort(~wanted, stable=True)
  waiting = jnp.sum(wanted, dtype=jnp.int32)
  advance = jax.vmap(functools.partial(_advance, params, settings))

  def at(places):
    # Beyond the end, lanes go on with the last one; nothing is written for them.
    rows = queue[jnp.minimum(places, len(queue) - 1)]
    return rows, jax.tree.map(lambda array: array[rows], samples)

  def one_round(carry):
    results, taken, places, state = carry
    rows, sample = at(places)
    state = jax.lax.fori_loop(0, _ROUND, lambda _, state: advance(sample, state), state)
    finished = jnp.where(state.done & (places < waiting), rows, len(results))
    results = results.at[finished].set(state.best, mode="drop")
    places = jnp.where(state.done, taken - 1 + jnp.cumsum(state.done), places)
    fresh = jax.vmap(_start)(at(places)[1])
    taken += jnp.sum(state.done, dtype=jnp.int32)
    return results, taken, places, jax.vmap(_choose)(state.done, fresh, state)

  places = jnp.arange(lanes, dtype=jnp.int32)
  carry = logits, jnp.int32(lanes), places, jax.vmap(_start)(at(places)[1])
  results = jax.lax.while_loop(lambda carry: jnp.any(carry[2] < waiting), one_round, carry)[0]
  nearer = jnp.abs(outputs(params, results)) < jnp.abs(h)
  return jnp.where(nearer[:, None], results, logits)
