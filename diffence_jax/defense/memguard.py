"""MemGuard (Jia et al., CCS 2019, arXiv:1909.10594): noise on the answer that keeps the label.

The defender trains an attacker of its own and moves every answer until that attacker can no
longer tell, its output having crossed 1/2; then again with more and more weight on moving it
little. The classifier and its inputs are left as they are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffence_jax.checks import check_positive, check_range, check_whole
from diffence_jax.defense.memguard_attacker import Attacker, outputs, train_attacker
from diffence_jax.defense.memguard_search import search
from diffence_jax.predictor import Predict, check_classes

# The length of the compiled search's queue: fewer samples fill it up, more wait for the next.
_QUEUE = 4096


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
  return outputs(params, _check_logits(logits, len(params.kernels[0])))


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
    nonmember_logits: f[N',K]; the same holds of them.
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
  return train_attacker(key, members, nonmembers, epochs, learning_rate, half=half)


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

  From a sample's logits z0, of which y is the largest, steps along the normalised gradient of::

      c1 |h(z)| + c2 relu(max_{j != y} z_j - z_y) + c3 |softmax(z) - softmax(z0)|_1

  end when y is the largest and h has not the sign of h(z0). Then it starts again at z0 with
  ten times the c3, from 0.1 to 1e5. Where the iterations run out before, the result of the
  last c3 that succeeded is returned, z0 if there is none.

  Other than published: the attacker sorts at every step, not only at z0; a gradient so small
  that its norm would be 0 still counts; a row with NaN, infinities or two largest logits is
  returned as it is. So is, as in the publication's second phase, one whose result is no nearer
  to 1/2 than z0; that phase's budget of distortion is not here.

  The output ends a little beyond 1/2: of those the attacker was right about, members below and
  non-members above. Whoever knows the defense can read it the other way round.

  Every sample has a search of its own; the others in the batch change nothing but rounding.
  Compiled once for every K and `chunk_size`.

  Args:
    params: the defender's attacker.
    logits: f[N,K]. What is said of labels holds in float32.
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
  settings = {"step_size": step_size, "max_iterations": max_iterations, "c1": c1, "c2": c2}
  check_memguard(**settings, chunk_size=chunk_size)
  lanes = min(chunk_size, _QUEUE)
  parts = []
  for first in range(0, len(logits), _QUEUE):
    part = logits[first : first + _QUEUE]
    queue = jnp.pad(part, ((0, _QUEUE - len(part)), (0, 0)))
    moved = search(params, tuple(settings.values()), queue, len(part), lanes=lanes)
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

  # The host counts the rounds of the search.
  guarded.runs_on_host = True
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
  settings = {"step_size": step_size, "max_iterations": max_iterations, "c1": c1, "c2": c2}
  guarded = memguard(lambda _, logits: logits, params, chunk_size=chunk_size, **settings)
  return lambda logits: np.asarray(guarded(None, logits))


def check_memguard(**options: float) -> None:
  """Raises ValueError unless all options, of `fit_memguard`, are within their ranges."""
  for name, value in options.items():
    if name in ("learning_rate", "step_size"):
      check_positive(name, value)
    elif name in ("c1", "c2"):
      check_range(name, value, 0, None)
    else:
      check_whole(name, value, 2 if name == "batch_size" else 1, 1_000_000)


fit_memguard.check_options = check_memguard


def _check_logits(logits, num_classes=None):
  logits = jnp.asarray(logits, jnp.float32)
  if logits.ndim != 2:
    raise ValueError(f"logits have shape {logits.shape}; expected [N, K].")
  check_classes(logits.shape[1])
  if num_classes not in (None, logits.shape[1]):
    raise ValueError(f"logits have {logits.shape[1]} classes; expected {num_classes}.")
  return logits
