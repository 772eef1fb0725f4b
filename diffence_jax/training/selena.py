"""SELENA (Tang et al., USENIX Security 2022): a classifier that learns from models that never
saw the example it learns.

Split-AI: many teachers, each example left out of some of them, whose mean answer is the
example's soft label. Self-distillation: the classifier learns the soft labels.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special
from flax import linen as nn

from diffence_jax.checks import check_whole
from diffence_jax.training.baselines import undefended
from diffence_jax.training.recipe import Recipe, Teachers, TrainSettings, with_loss


def selena(
  module: nn.Module, settings: TrainSettings, *, num_teachers: int = 25, num_left_out: int = 10
) -> Recipe:
  """Self-distillation by KL from the teachers that were trained without the example.

  Args:
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`; teachers are like it.
    settings: how it and each of its teachers are trained.
    num_teachers: K in the publication, 2 to 10,000.
    num_left_out: L, of how many teachers an example is left out, 1 to `num_teachers` - 1.

  Returns:
    The recipe.

  Raises:
    ValueError: a number is out of its range.
  """
  check_whole("num_teachers", num_teachers, 2, 10_000)
  check_whole("num_left_out", num_left_out, 1, num_teachers - 1)
  share = 1.0 - num_left_out / num_teachers
  num_taught = max(1, round(share * settings.num_members))
  taught = dataclasses.replace(settings, num_members=num_taught)
  teachers = Teachers(
    recipe=undefended(module, taught),
    membership=lambda num, seed: ~left_out(num, num_teachers, num_left_out, seed),
    soft_labels=soft_labels,
  )
  return with_loss(module, settings, distillation)._replace(teachers=teachers)


def left_out(num_examples: int, num_teachers: int, num_left_out: int, seed: list[int]):
  """Draws which examples each teacher does not see.

  Args:
    num_examples: n.
    num_teachers: T.
    num_left_out: L, 1 to T - 1.
    seed: of the draw.

  Returns:
    bool[T,n]; every column has exactly L true ones, a uniform choice.
  """
  order = np.argsort(np.random.default_rng(seed).random((num_teachers, num_examples)), axis=0)
  return order < num_left_out


def soft_labels(logits: np.ndarray, membership: np.ndarray) -> np.ndarray:
  """The mean probabilities of the teachers that did not see the example.

  Args:
    logits: f32[T,n,K], every teacher's answers.
    membership: bool[T,n], who was trained on what; no example is in all.

  Returns:
    f32[n,K], sums are 1.
  """
  weights = ~membership / np.sum(~membership, axis=0)
  probabilities = scipy.special.softmax(logits.astype(np.float64), axis=-1)
  return np.einsum("tn,tnk->nk", weights, probabilities).astype(np.float32)


def distillation(logits: jax.Array, examples: Mapping[str, jax.Array]) -> jax.Array:
  """The mean Kullback-Leibler divergence of the prediction from the "soft_labels" f32[B,K]."""
  log_p = jax.nn.log_softmax(logits, axis=-1)
  return jnp.mean(optax.kl_divergence(log_p, examples["soft_labels"]))
