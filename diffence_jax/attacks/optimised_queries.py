"""Queries that tell members apart better than the sample itself: optimised against the models.

Wen et al. (2023), "Canary in a Coalmine: Better Membership Inference with Ensembled Adversarial
Queries" (arXiv:2210.10750): near a sample there may be an image that models with the sample in
their training set and models without it answer more differently. A defense that re-generates
images is answered by expectation over transformation (Athalye et al. 2018): the gradient goes
through the re-generation, and is a mean over fresh noise.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import rng
from diffence_jax.batching import batches, even_size, to_bytes, to_float
from diffence_jax.checks import check_whole
from diffence_jax.defense.select import scaled_logit
from diffence_jax.progress import progress_bar

# Samples that are optimised together. They share their noise: queries through a re-generation
# depend on it.
TOGETHER = 32
# Steps together may go so many radii: signed steps reach any corner (Madry et al. 2018).
_REACH = 2.5


@dataclasses.dataclass(frozen=True)
class OptimisedSettings:
  """How queries are optimised.

  Attributes:
    num_models: shadow models whose answers they are optimised for, an even number, at least 2;
      these are then not among those that a score compares with, to which the queries would
      owe more than to models they have not seen.
    num_steps: signed gradient steps.
    num_draws: re-generations, each of fresh noise, that a step's gradient is the mean of.
    radius: by how many of 255 levels a query may differ from its sample, in every pixel.
  """

  num_models: int = 16
  num_steps: int = 40
  num_draws: int = 4
  radius: int = 8

  def __post_init__(self):
    check_whole("num_models", self.num_models, 2, 10_000)
    check_whole("num_steps", self.num_steps, 1, 1_000_000)
    check_whole("num_draws", self.num_draws, 1, 10_000)
    check_whole("radius", self.radius, 1, 255)
    if self.num_models % 2:
      raise ValueError(
        f"num_models is {self.num_models}; expected an even number, as shadow models come in "
        "pairs."
      )


def optimise_queries(
  key: jax.Array,
  answer: Callable[[jax.Array, jax.Array], jax.Array],
  images: np.ndarray,
  labels: np.ndarray,
  membership: np.ndarray,
  *,
  num_steps: int,
  num_draws: int,
  radius: int,
  start: int = 0,
  stop: int | None = None,
  description: str = "optimised queries",
) -> np.ndarray:
  """Images near the samples to which models with and without a sample answer differently.

  By signed gradient ascent of, for sample i,

    E[mean of phi_i over the models with i - mean of phi_i over those without],

  phi the scaled logit of the true label, the expectation over what `answer` draws.

  Args:
    key: a JAX random key, for what is drawn.
    answer: `(key, images f32[n,H,W,C] in [0,1]) -> logits f[n,S,K]` of S models, to be
      differentiated; a pytree, as `jax.tree_util.Partial` makes one.
    images: u8[N,H,W,C], the samples.
    labels: i[N], their true labels.
    membership: bool[S,N], which model was trained on which sample.
    num_steps: as in `OptimisedSettings`.
    num_draws: the same.
    radius: the same.
    start: the first of the samples to be done, a multiple of how many are optimised together:
      `even_size(N, TOGETHER)`.
    stop: the sample after the last one, such a multiple too or N; None for N. A part of the
      queries is the same as among all of them.
    description: for the progress bar.

  Returns:
    u8[stop-start,H,W,C], each within the radius of its sample.

  Raises:
    ValueError: a sample is a member of all models or of none.
  """
  count = membership.sum(axis=0)
  if (one_sided := (count == 0) | (count == len(membership))).any():
    raise ValueError(
      f"{one_sided.sum()} samples are members of all models or of none, the first at index "
      f"{np.argmax(one_sided)}; expected models of both kinds."
    )
  weights = np.where(membership, 1.0 / count, -1.0 / (len(membership) - count)).T
  stop = len(images) if stop is None else stop
  queries = np.empty_like(images[start:stop])
  together = list(batches(stop, even_size(len(images), TOGETHER), start))
  with progress_bar(len(together) * num_steps, description, "step") as bar:
    for rows, num in together:
      sample = query = to_float(np.asarray(images[rows]))
      given = labels[rows], weights[rows].astype(np.float32)
      for step in range(num_steps):
        drawn = jax.random.fold_in(jax.random.fold_in(rng.own_key(key), int(rows[0])), step)
        slope = _slope(answer, drawn, query, *given, num_draws=num_draws)
        size = _REACH * radius / num_steps / 255.0
        query = query + size * np.sign(np.asarray(slope))
        query = np.clip(query, sample - radius / 255.0, sample + radius / 255.0)
        query = np.clip(query, 0.0, 1.0)
        bar.update()
      queries[rows[:num] - start] = to_bytes(query)[:num]
  return queries


@functools.partial(jax.jit, static_argnames="num_draws")
def _slope(answer, key, images, labels, weights, *, num_draws):
  """The objective's gradient f32[n,H,W,C], times the number of draws: its sign matters."""

  def gap(images):
    logits = answer(key, jnp.repeat(images, num_draws, axis=0))
    true = jnp.repeat(labels, num_draws)[:, None]
    phi = scaled_logit(logits, jnp.broadcast_to(true, logits.shape[:-1]))
    return jnp.sum(phi * jnp.repeat(weights, num_draws, axis=0))

  return jax.grad(gap)(images)
