"""Worlds in which classifiers memorize, for attacks that ask about images of their own."""

import jax.numpy as jnp
import numpy as np
from attacks.memorizers import memorizer, networks_of
from attacks.test_lira import wide_interval

from diffence_jax.attacks import ATTACKS, View, run_attack
from diffence_jax.batching import to_float
from diffence_jax.metrics import roc

NUM, MODELS, CLASSES, SHAPE = 300, 8, 3, (5, 5, 1)


def make_world(strength, seed=0):
  """Images of random pixels that a linear rule labels; (images, labels, weights, networks)."""
  rng = np.random.default_rng(seed)
  images = rng.integers(40, 216, (NUM, *SHAPE)).astype(np.uint8)
  weights = 2.0 * rng.normal(size=(25, CLASSES)).astype(np.float32)
  labels = np.argmax(to_float(images).reshape(NUM, -1) @ weights, axis=1)
  half = np.arange(MODELS)[:, None] < MODELS // 2
  membership = rng.permuted(np.repeat(half, NUM, axis=1), axis=0)
  networks = networks_of(weights, images, labels, membership, strength)
  return images, labels, weights, networks


def own_networks(world):
  """Models of a world, each with weights of its own and no memory; (networks, weights)."""
  images, labels, weights, networks = world
  own = [
    weights + np.random.default_rng(s).normal(0, 0.5, weights.shape) for s in range(MODELS)
  ]
  load = lambda s: memorizer(own[s], images, labels, networks.membership[s], 0.0)
  return networks._replace(load=load), own


def scores_of(name, world, member, strength, **options):
  """An attack's scores on a target that memorizes, and for how many labels it asked."""
  images, labels, weights, networks = world
  target, asked = memorizer(weights, images, labels, member, strength), []

  def ask(images):
    asked.append(len(images))
    return jnp.argmax(target(None, images), axis=-1)

  view = View(np.zeros((NUM, 1, CLASSES)), labels, images=images, ask=ask, networks=networks)
  scores = run_attack(ATTACKS.choose(name, options), view)
  return scores, sum(asked)


def members(seed):
  """Who the target was trained with, bool[N]."""
  return np.random.default_rng([7, seed]).random(NUM) < 0.5


def finds_nothing(name, **options):
  """Asserts that an attack is at chance where nobody memorizes."""
  scores, _ = scores_of(name, make_world(0.0), members(1), 0.0, **options)
  result = roc(scores[members(1)], scores[~members(1)])
  low, high = wide_interval(result) if 0.0 < result.auc < 1.0 else (0.0, 1.0)
  assert low < 0.5 < high and high - low < 0.35
