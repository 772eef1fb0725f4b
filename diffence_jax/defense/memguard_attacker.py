"""The attacker that MemGuard's defender trains: the network, and its training, compiled."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffence_jax.rng import balanced_epoch, own_key

# Layers between the probabilities and the output.
_HIDDEN = (256, 128, 64)


class Attacker(NamedTuple):
  """The parameters of the defender's attacker, a pytree.

  Attributes:
    kernels: f32 [K,256], [256,128], [128,64] and [64,1].
    biases: f32 [256], [128], [64] and [1].
  """

  kernels: tuple[jax.Array, ...]
  biases: tuple[jax.Array, ...]


def output(params: Attacker, logits: jax.Array) -> jax.Array:
  """The log-odds h f32[] of one sample's logits f32[K]; see `memguard.attacker_logit`."""
  x = jax.nn.softmax(jnp.sort(logits))
  for layer, (kernel, bias) in enumerate(zip(*params, strict=True)):
    # On an accelerator the default may round to a few bits, by which a sign could differ.
    x = jnp.dot(x if layer == 0 else jax.nn.relu(x), kernel, precision="highest") + bias
  return x[0]


# h f32[N] of logits f32[N,K].
outputs = jax.jit(jax.vmap(output, in_axes=(None, 0)))


@functools.partial(jax.jit, static_argnames="half")
def train_attacker(
  key: jax.Array,
  members: jax.Array,
  nonmembers: jax.Array,
  epochs: int,
  learning_rate: float,
  *,
  half: int,
) -> Attacker:
  """Trains the attacker, all epochs in one compiled call; see `train_memguard_attacker`.

  Args:
    key: of weights and shuffles.
    members: f32[N,K], their logits.
    nonmembers: f32[N',K], their logits.
    epochs: at least 1.
    learning_rate: of plain gradient descent.
    half: of a batch: members, and as many non-members; at most N and N'.

  Returns:
    The attacker.
  """
  init_key, shuffle_key = jax.random.split(own_key(key))
  sizes = members.shape[1], *_HIDDEN, 1
  layers = zip(jax.random.split(init_key, 4), itertools.pairwise(sizes), strict=True)
  kernels = tuple(jax.nn.initializers.glorot_uniform()(k, shape) for k, shape in layers)
  params = Attacker(kernels, tuple(jnp.zeros(size) for size in sizes[1:]))
  sides = members, nonmembers
  truth = jnp.repeat(jnp.array([1.0, 0.0]), half)

  def loss(params, batch):
    h = outputs(params, batch)
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
