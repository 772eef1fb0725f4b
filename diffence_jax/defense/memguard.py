"""MemGuard (Jia et al., CCS 2019, arXiv:1909.10594): noise on the answer that keeps the label.

The defender trains an attacker of its own and moves every answer until that attacker can no
longer tell, its output having crossed 1/2; then again with more and more weight on moving it
little. The classifier and its inputs are left as they are.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffence_jax.checks import check_positive, check_range, check_whole
from diffence_jax.predictor import Predict
from diffence_jax.rng import balanced_epoch

# The weights of the distortion, tried one after the other.
C3 = (0.1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5)
# Layers between the probabilities and the output.
_HIDDEN = (256, 128, 64)
# As near to 1/2 as this an output is left alone.
_CLOSE = 1e-5
# The length of the compiled search's queue: fewer samples fill it up, more wait for the next.
_QUEUE = 4096
# Iterations between two looks at which samples are finished.
_ROUND = 16


class Attacker(NamedTuple):
  """The parameters of the defender's attacker, a pytree.

  Attributes:
    kernels: f32 [K,256], [256,128], [128,64] and [64,1].
    biases: f32 [256], [128], [64] and [1].
  """

  kernels: tuple[jax.Array, ...]
  biases: tuple[jax.Array, ...]


def attacker_logit(params: Attacker, logits: ArrayLike) -> jax.Array:
  """h, the attacker's log-odds of membership: its output before the sigmoid.

  The network sees the probabilities in ascending order, so not which class has which.

  Args:
    params: the attacker.
    logits: f[N,K].

  Returns:
    f32[N]. The attacker calls a sample a member above 0.

  Raises:
    ValueError: the shape does not fit.
  """
  return _outputs(params, _check_logits(logits, len(params.kernels[0])))


def train_memguard_attacker(
  key: jax.Array,
  member_logits: ArrayLike,
  nonmember_logits: ArrayLike,
  *,
  epochs: int = 400,
  batch_size: int = 64,
  learning_rate: float = 1e-2,
) -> Attacker:
  """Trains the defender's attacker on samples of known membership, in one compiled call.

  Binary cross-entropy and plain gradient descent as published, at ten times the rate of the
  published code, which few samples do not take far in as many epochs. (Trained much further,
  or by Adam, the output is no longer monotone in the confidence, and the steps of
  `memguard_logits` end in local minima.) Half of every batch are members, however many there
  are, so that 1/2 says nothing. An epoch goes through the larger side once, shuffled anew, and
  repeats the smaller one.

  Args:
    key: all randomness follows from it: weights and shuffles.
    member_logits: f[N,K], N at least 1; the largest of every row finite.
    nonmember_logits: f[N',K], likewise.
    epochs: at least 1.
    batch_size: at least 2; half of it, or the smaller side if that is less, of either side.
    learning_rate: above 0.

  Returns:
    The attacker.

  Raises:
    ValueError: no samples, shapes that do not fit, NaN, or a number outside its range.
  """
  check_memguard(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
  members = _check_logits(member_logits)
  nonmembers = _check_logits(nonmember_logits, members.shape[1])
  for side in (members, nonmembers):
    if not len(side):
      raise ValueError("A side has no samples; expected at least one.")
    if not jnp.all(jnp.isfinite(jnp.max(side, axis=1))):
      raise ValueError("Some samples' largest logit is not finite; expected a number.")
  half = min(batch_size // 2, len(members), len(nonmembers))
  return _train(key, members, nonmembers, epochs, learning_rate, half=half)


def memguard_logits(
  params: Attacker,
  logits: ArrayLike,
  *,
  step_size: float = 0.1,
  max_iterations: int = 300,
  c1: float = 1.0,
  c2: float = 10.0,
  chunk_size: int = 256,
) -> jax.Array:
  """Moves the attacker's output on every sample across 1/2, where that can be done.

  From a sample's logits z0, of which y is the largest, steps along the normalised gradient of

      c1 |h(z)| + c2 relu(max_{j != y} z_j - z_y) + c3 |softmax(z) - softmax(z0)|_1

  end when y is the largest and h has not the sign of h(z0). Then it starts again at z0 with
  ten times the c3, from 0.1 to 1e5. When the iterations are used up before, the result of the
  last c3 that succeeded is returned, z0 if there is none.

  Other than published: the attacker sorts at every step, not only at z0; a gradient so small
  that its norm would be 0 still counts; a row with NaN, infinities or two largest logits is
  returned as it is. So is, as in the publication's second phase, one whose result is no nearer
  to 1/2 than z0; that phase's budget of distortion is not here.

  The output ends a little beyond 1/2: of those the attacker was right about, members below and
  non-members above. Who knows the defense can read it the other way round.

  Every sample is searched for on its own; the others in the batch change nothing but rounding.
  Compiled once for every K and `chunk_size`.

  Args:
    params: the defender's attacker.
    logits: f[N,K]. What is said of labels is meant of float32.
    step_size: the length of a step, above 0.
    max_iterations: steps with every c3, at least 1. (The published code makes 299.)
    c1: the weight of the attacker's output, at least 0.
    c2: the weight of the label, at least 0.
    chunk_size: samples that are worked on at a time, at least 1. One that is finished makes
      room for the next, so that none waits for a slow one.

  Returns:
    f32[N,K], with the arg-max of `logits`.

  Raises:
    ValueError: the shape does not fit, or a setting is out of its range.
  """
  logits = _check_logits(logits, len(params.kernels[0]))
  own = {"step_size": step_size, "max_iterations": max_iterations, "c1": c1, "c2": c2}
  check_memguard(**own, chunk_size=chunk_size)
  settings = step_size, max_iterations, c1, c2
  parts = []
  for first in range(0, len(logits), _QUEUE):
    part = logits[first : first + _QUEUE]
    queue = jnp.pad(part, ((0, _QUEUE - len(part)), (0, 0)))
    moved = _search(params, settings, queue, len(part), lanes=min(chunk_size, _QUEUE))
    parts.append(moved[: len(part)])
  return jnp.concatenate(parts) if parts else logits


def memguard(predict: Predict, params: Attacker, **settings: float) -> Predict:
  """Protects a predictor with MemGuard.

  Args:
    predict: the predictor to protect, bare or protected already.
    params: the defender's attacker, trained on answers of `predict`.
    **settings: of `memguard_logits`.

  Returns:
    `guarded(key, images) -> logits f32[N,K]`, with the labels of `predict`. It passes stable
    ids, `ids=`, on to a `predict` that takes them.

  Raises:
    TypeError: an unknown setting.
    ValueError: a setting is out of its range.
  """
  # No samples: this only looks at the settings, before the first query comes.
  memguard_logits(params, jnp.zeros((0, len(params.kernels[0]))), **settings)

  def guarded(key, images, **ids):
    return memguard_logits(params, predict(key, images, **ids), **settings)

  return guarded


def fit_memguard(
  key: jax.Array,
  member_logits: ArrayLike,
  nonmember_logits: ArrayLike,
  *,
  epochs: int = 400,
  batch_size: int = 64,
  learning_rate: float = 1e-2,
  step_size: float = 0.1,
  max_iterations: int = 300,
  c1: float = 1.0,
  c2: float = 10.0,
  chunk_size: int = 256,
) -> Callable[[ArrayLike], np.ndarray]:
  """Trains the defender's attacker on the known samples' answers, and defends with it.

  Args:
    key: this and the next five as `train_memguard_attacker` takes them.
    member_logits: f[N,K].
    nonmember_logits: f[N',K].
    epochs: at least 1.
    batch_size: at least 2.
    learning_rate: above 0.
    step_size: above 0; this and the rest as `memguard_logits` takes them.
    max_iterations: at least 1.
    c1: at least 0.
    c2: at least 0.
    chunk_size: at least 1.

  Returns:
    The defense, `logits f[N,K] -> f32[N,K]`: `memguard_logits` into NumPy.

  Raises:
    ValueError: the logits do not fit, or an option is out of its range.
  """
  training = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
  params = train_memguard_attacker(key, member_logits, nonmember_logits, **training)
  search = {"step_size": step_size, "max_iterations": max_iterations, "c1": c1, "c2": c2}
  guarded = memguard(lambda _, logits: logits, params, chunk_size=chunk_size, **search)
  return lambda logits: np.asarray(guarded(None, logits))


def check_memguard(**options: float) -> None:
  """Raises ValueError unless all options, of `fit_memguard`, are within their ranges."""
  for name, value in options.items():
    if name in ("learning_rate", "step_size"):
      check_positive(name, value)
    elif name in ("c1", "c2"):
      check_range(name, value, 0, None)
    else:
      check_whole(name, value, 2 if name == "batch_size" else 1, None)


fit_memguard.check_options = check_memguard


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


def _output(params, logits):
  """What `attacker_logit` says, for one sample f32[K]."""
  x = jax.nn.softmax(jnp.sort(logits))
  for layer, (kernel, bias) in enumerate(zip(*params, strict=True)):
    # On an accelerator the default may round to a few bits, by which a sign could differ.
    x = jnp.dot(x if layer == 0 else jax.nn.relu(x), kernel, precision="highest") + bias
  return x[0]


_outputs = jax.jit(jax.vmap(_output, in_axes=(None, 0)))


def _lead(logits, is_label):
  """By how much the label's logit is above all others."""
  own = jnp.sum(jnp.where(is_label, logits, 0.0))
  return own - jnp.max(jnp.where(is_label, -jnp.inf, logits))


def _start(sample):
  zero = jnp.int32(0)
  return _State(sample.logits, zero, zero, sample.logits, jnp.bool_(False))


def _choose(condition, yes, no):
  return jax.tree.map(functools.partial(jnp.where, condition), yes, no)


def _advance(params, settings, sample, state):
  """Looks at where one sample is: its c3 has succeeded, or failed, or one more step."""
  step_size, max_iterations, c1, c2 = settings
  # At z0 the distortion has no gradient, and rounding must not give it one.
  c3 = jnp.where(state.step > 0, jnp.array(C3)[state.level], 0.0)

  def loss(z):
    h = _output(params, z)
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
    level=jnp.minimum(level, len(C3) - 1),
    step=jnp.where(succeeded, 0, state.step + 1),
    best=jnp.where(succeeded, state.z, state.best),
    done=state.done | failed | (level == len(C3)),
  )


@functools.partial(jax.jit, static_argnames="lanes")
def _search(params, settings, logits, num, *, lanes):
  """Defends the first `num` of f32[_QUEUE,K], as many at a time as there are lanes."""
  h = _outputs(params, logits)
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
  nearer = jnp.abs(_outputs(params, results)) < jnp.abs(h)
  return jnp.where(nearer[:, None], results, logits)


@functools.partial(jax.jit, static_argnames="half")
def _train(key, members, nonmembers, epochs, learning_rate, *, half):
  """All epochs in one compiled call."""
  init_key, shuffle_key = jax.random.split(key)
  sizes = members.shape[1], *_HIDDEN, 1
  layers = zip(jax.random.split(init_key, 4), itertools.pairwise(sizes), strict=True)
  kernels = tuple(jax.nn.initializers.glorot_uniform()(k, shape) for k, shape in layers)
  params = Attacker(kernels, tuple(jnp.zeros(size) for size in sizes[1:]))
  sides = members, nonmembers
  truth = jnp.repeat(jnp.array([1.0, 0.0]), half)

  def loss(params, batch):
    h = _outputs(params, batch)
    return jnp.mean(jax.nn.softplus(h) - truth * h)

  def step(params, chosen):
    batch = jnp.concatenate([side[rows] for side, rows in zip(sides, chosen, strict=True)])
    gradient = jax.grad(loss)(params, batch)
    return jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient), None

  def one_epoch(epoch, params):
    key = jax.random.fold_in(shuffle_key, epoch)
    chosen = balanced_epoch(key, [len(side) for side in sides], half)
    return jax.lax.scan(step, params, chosen)[0]

  return jax.lax.fori_loop(0, epochs, one_epoch, params)


def _check_logits(logits, num_classes=None):
  logits = jnp.asarray(logits, jnp.float32)
  if logits.ndim != 2 or logits.shape[1] < 2:
    raise ValueError(f"logits have shape {logits.shape}; expected [N, K], K at least 2.")
  if num_classes not in (None, logits.shape[1]):
    raise ValueError(f"logits have {logits.shape[1]} classes; expected {num_classes}.")
  return logits
