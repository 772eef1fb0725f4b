"""The neural-network attack of the Diffence paper (after Nasr et al. 2018).

A network learns from samples of known membership, answered *through the defense*, to tell
members by the returned probabilities, the true label and the loss together.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special
from jax.typing import ArrayLike

from diffence_jax import rng
from diffence_jax.attacks.attack import View, attack
from diffence_jax.checks import check_instance, check_positive, check_whole
from diffence_jax.compiling import compiled_quickly
from diffence_jax.metrics.predictions import check_predictions
from diffence_jax.models.perceptron import dense, relu_layers
from diffence_jax.rng import balanced_epoch

# The published loss takes the logarithm of no probability below 1e-31.
MAX_LOSS = -np.log(1e-31)

_MOST_EPOCHS = 1_000_000


class Group(NamedTuple):
  """The answers to some samples.

  Attributes:
    logits: f[N,K].
    labels: i[N], true labels.
  """

  logits: ArrayLike
  labels: ArrayLike


class Inputs(NamedTuple):
  """What the network sees of N samples.

  Attributes:
    probabilities: f32[N,K], softmax of the logits, in the order of the classes.
    one_hot: f32[N,K], the true label.
    loss: f32[N,1], cross-entropy of the true label, 0 to `MAX_LOSS`.
  """

  probabilities: ArrayLike
  one_hot: ArrayLike
  loss: ArrayLike


def network_inputs(group: Group) -> Inputs:
  """The network's inputs, from logits in float64.

  Args:
    group: logits f[N,K] and true labels i[N].

  Returns:
    `Inputs`, float32.

  Raises:
    ValueError: the shapes do not fit, a logit is NaN, or a sample's largest is infinite.
  """
  check_instance("A group", group, tuple)
  logits, labels = check_predictions(*group)
  log_p = scipy.special.log_softmax(logits, axis=-1)
  loss = np.minimum(-log_p[np.arange(len(labels)), labels], MAX_LOSS)
  one_hot = labels[:, None] == np.arange(logits.shape[-1])
  arrays = np.exp(log_p), one_hot, loss[:, None]
  return Inputs(*(array.astype(np.float32) for array in arrays))


class AttackNetwork(nn.Module):
  """Three branches for probabilities, label and loss, joined by a fourth perceptron.

  All weights are drawn from N(0, 0.01^2), all biases are 0.

  Attributes:
    num_classes: K.
  """

  num_classes: int

  @nn.compact
  def __call__(self, inputs: Inputs) -> jax.Array:
    """Maps `Inputs` of N samples to f32[N], the logit whose sigmoid is the output."""
    branches = [
      relu_layers(inputs.probabilities, 1024, 512, 64),
      relu_layers(inputs.one_hot, 128, 64),
      relu_layers(inputs.loss, self.num_classes, 64),
    ]
    joined = relu_layers(jnp.concatenate(branches, axis=-1), 256, 128, 64)
    return dense(1)(joined)[:, 0]


def learning_rate(steps_per_epoch: int) -> optax.Schedule:
  """Maps a step to the learning rate: 5e-4, and a tenth of it from epoch 100 (of 0, 1, ...)."""
  return optax.piecewise_constant_schedule(5e-4, {100 * steps_per_epoch: 0.1})


@dataclasses.dataclass(frozen=True, eq=False)
class NNAttack:
  """A trained attack.

  Attributes:
    params: the `AttackNetwork`'s, after the chosen epoch.
    epoch: the chosen epoch, from 0.
    auc: its AUC on the samples it was chosen on; optimistic, as it is the best of all epochs.
  """

  params: Any
  epoch: int
  auc: float

  def score(self, logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Scores samples, each by its own answer alone.

    Args:
      logits: f[N,K].
      labels: i[N], true labels.

    Returns:
      f64[N], the log-odds of membership: the network's output before the sigmoid, which would
      round certain ones to ties. The network itself calls a sample a member above 0.

    Raises:
      ValueError: the shapes do not fit.
    """
    return np.asarray(_apply(self.params, network_inputs(Group(logits, labels))), np.float64)


# Optax raises floats to integer powers, which strict promotion refuses.
@jax.numpy_dtype_promotion("standard")
def train_nn_attack(
  key: jax.Array,
  known_members: Group,
  known_nonmembers: Group,
  *,
  choose_on: tuple[Group, Group] | None = None,
  epochs: int = 200,
  batch_size: int = 64,
  held_out: float = 0.2,
) -> NNAttack:
  """Trains the network and keeps the epoch with the highest AUC on samples it did not see.

  Mean squared error against 1 for members and 0 for non-members, Adam. Every epoch shuffles
  anew; its batches are full, so some samples are seen twice in it. Among epochs of equal AUC
  the last is kept. (The published code compares accuracies at an output of 1/2, which on few
  samples tie more often.)

  Args:
    key: all randomness follows from it: weights, shuffles, held-out samples.
    known_members: at least 2 if `choose_on` is None, else at least 1.
    known_nonmembers: as above.
    choose_on: (members, non-members) that choose the epoch; None holds out known samples.
    epochs: 1 to 1,000,000.
    batch_size: members in a batch, and non-members; the smaller side of the training samples
      if that has fewer.
    held_out: the share of each side of the known samples, in (0, 1), that is held out.

  Returns:
    The attack.

  Raises:
    ValueError: too few samples, numbers outside their ranges, or shapes that do not fit.
  """
  check_epochs(epochs)
  check_whole("batch_size", batch_size, 1)
  check_positive("held_out", held_out)
  if held_out >= 1.0:
    raise ValueError(f"held_out is {held_out}; expected a share, below 1.")
  training = [network_inputs(group) for group in (known_members, known_nonmembers)]
  init_key, split_key, shuffle_key = jax.random.split(rng.own_key(key), 3)
  if choose_on is None:
    keys = jax.random.split(split_key)
    parts = [_split(k, side, held_out) for k, side in zip(keys, training, strict=True)]
    training, choosing = zip(*parts, strict=True)
  else:
    if len(choose_on) != 2:
      raise ValueError(
        f"choose_on has {len(choose_on)} groups; expected two, (members, non-members)."
      )
    choosing = [network_inputs(group) for group in choose_on]
  if len({side.one_hot.shape[-1] for side in (*training, *choosing)}) > 1:
    raise ValueError("The groups' logits differ in the number of classes; expected one.")
  batch_size = min(batch_size, *(len(side.loss) for side in training))
  with compiled_quickly():
    params = _init(init_key, training[0].one_hot.shape[-1])
  params, epoch, auc = _train(
    params, shuffle_key, *training, *choosing, epochs, batch_size=batch_size
  )
  return NNAttack(params, int(epoch), float(auc))


def check_epochs(epochs: int) -> None:
  """Raises ValueError unless so many epochs can be trained."""
  check_whole("epochs", epochs, 1, _MOST_EPOCHS)


def _published(view: View, *, epochs: int = 200) -> np.ndarray:
  """Trains on all known samples and keeps the epoch that is best on the others."""
  return _train_and_score(view, epochs, choose_on=_sides(view, ~view.is_known))


@attack("NN", family="trained on known samples", needs=("known",), least_known=2, in_turn=False,
        trains_on_known=True, published=_published, check=check_epochs)  # fmt: skip
def attack_nn(view: View, *, epochs: int = 200) -> np.ndarray:
  """Trains on the known samples, some of them held out to choose the epoch, and scores all.

  The known samples' own scores are those of a network that was trained on most of them: they
  separate better than others'. The network's own threshold is 0.

  Args:
    view: of answers through the defense; the first of several queries is learnt from.
    epochs: 1 to 1,000,000.

  Returns:
    f64[N]; see `NNAttack.score`.

  Raises:
    ValueError: too few samples, or shapes that do not fit.
  """
  return _train_and_score(view, epochs)


def _train_and_score(view, epochs, choose_on=None):
  key = rng.stream(view.seed, f"nn/{view.name}")
  known = _sides(view, view.is_known)
  return view.mean_over_queries(
    train_nn_attack(key, *known, epochs=epochs, choose_on=choose_on).score
  )


def _sides(view, rows):
  """Members and non-members among some rows, with the answers to the first query."""
  logits = view.logits[:, 0]
  return tuple(
    Group(logits[side], view.labels[side])
    for side in (rows & view.is_member, rows & ~view.is_member)
  )


def _split(key, inputs, held_out):
  num = len(inputs.loss)
  if num < 2:
    raise ValueError(f"A side has {num} known samples; expected at least 2, to hold out one.")
  num_held_out = min(max(round(held_out * num), 1), num - 1)
  order = np.asarray(jax.random.permutation(key, num))
  take = lambda chosen: Inputs(*(array[chosen] for array in inputs))
  return take(order[num_held_out:]), take(order[:num_held_out])


@functools.partial(jax.jit, static_argnames="num_classes")
def _init(key, num_classes):
  shapes = jnp.zeros((1, num_classes)), jnp.zeros((1, num_classes)), jnp.zeros((1, 1))
  return AttackNetwork(num_classes).init(key, Inputs(*shapes))["params"]


@jax.jit
def _apply(params, inputs):
  return AttackNetwork(inputs.one_hot.shape[-1]).apply({"params": params}, inputs)


@functools.partial(jax.jit, static_argnames="batch_size")
def _train(
  params,
  shuffle_key,
  members,
  nonmembers,
  chosen_members,
  chosen_nonmembers,
  epochs,
  *,
  batch_size,
):
  """All epochs in one compiled call: (parameters of the best epoch, its number, its AUC)."""
  network = AttackNetwork(members.one_hot.shape[-1])
  sides = members, nonmembers
  sizes = [len(side.loss) for side in sides]
  steps = -(-max(sizes) // batch_size)
  optimizer = optax.adam(learning_rate(steps))
  truth = jnp.repeat(jnp.array([1.0, 0.0]), batch_size)

  def loss(params, batch):
    return jnp.mean((nn.sigmoid(network.apply({"params": params}, batch)) - truth) ** 2)

  def step(carry, chosen):
    params, opt_state = carry
    batch = jax.tree.map(lambda a, b: jnp.concatenate([a[chosen[0]], b[chosen[1]]]), *sides)
    updates, opt_state = optimizer.update(jax.grad(loss)(params, batch), opt_state)
    return (optax.apply_updates(params, updates), opt_state), None

  def one_epoch(epoch, carry):
    state, best = carry
    chosen = balanced_epoch(jax.random.fold_in(shuffle_key, epoch), sizes, batch_size)
    state, _ = jax.lax.scan(step, state, chosen)
    auc = _auc(*(_apply(state[0], side) for side in (chosen_members, chosen_nonmembers)))
    keep = functools.partial(jnp.where, auc >= best[2])
    return state, jax.tree.map(keep, (state[0], epoch, auc), best)

  carry = (params, optimizer.init(params)), (params, jnp.int32(0), jnp.float32(0.0))
  return jax.lax.fori_loop(0, epochs, one_epoch, carry)[1]


def _auc(members, nonmembers):
  """The chance that a member scores above a non-member, ties half."""
  ranked = jnp.sort(nonmembers)
  below = [jnp.searchsorted(ranked, members, side) for side in ("left", "right")]
  return jnp.mean(sum(below).astype(jnp.float32)) / (2.0 * len(nonmembers))
