"""Ways to answer protected queries, to be timed beside one another, and what they compute."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import measuring
import numpy as np
from accepted import Acceptance, accepting, draw_images
from random_networks import Networks

import diffence_jax as dj
from diffence_jax.defense import make_early_selection
from diffence_jax.defense.pairs import pair_logits
from diffence_jax.predictor import Denoise, Predict

# The predictor, the denoiser and the noise schedule.
Bound = tuple[Predict, Denoise, dj.Schedule]


class Way(NamedTuple):
  """A way to answer queries.

  Attributes:
    images: of a call.
    evaluations: of the diffusion network, an image.
    run: one call.
  """

  images: int
  evaluations: float
  run: Callable[[], Any]


def all_drawn(bound: Bound, images: np.ndarray, **settings: Any) -> Way:
  """`dj.protect` that draws all candidates; settings as it takes them."""
  protected, key = dj.protect(*bound, **settings), jax.random.key(1)
  return Way(len(images), settings["num_candidates"], lambda: protected(key, images))


def early_exit(
  bound: Bound, shape: tuple[int, int, int], num: int, acceptance: Acceptance, **settings: Any
) -> Way:
  """`dj.protect` with early exit, candidates accepted at the rates of `acceptance`."""
  predict, *others = bound
  images, accept = draw_images(num, shape, acceptance.never), accepting(predict, acceptance)
  key = jax.random.key(1)
  select = make_early_selection(accept, *others, **settings)
  evaluations = select(key, images, np.arange(num), accept(key, images)).evaluations
  early = dj.protect(accept, *others, constant_time=False, **settings)
  return Way(num, evaluations / num, lambda: early(key, images))


def published(networks: Networks, theirs: Any, images: np.ndarray, **settings: Any) -> Way:
  """The published procedure in PyTorch; settings as `published_procedure` takes them."""
  import torch_networks

  ask = torch_networks.published_procedure(
    *theirs, np.asarray(networks.schedule.alpha_bar), **settings
  )
  return Way(len(images), 2 * settings["num_candidates"], lambda: ask(images))


class QueryFlops(NamedTuple):
  """FLOPs by XLA: of a candidate, of a raw answer, and of the diffusion network."""

  candidate: float
  raw: float
  denoiser: float

  def of(self, evaluations: float, num_candidates: int) -> float:
    """Of a query; as published, a candidate takes the diffusion network twice."""
    once = min(evaluations, num_candidates)
    return self.raw + once * self.candidate + (evaluations - once) * self.denoiser


def query_flops(bound: Bound, shape: tuple[int, int, int], step: int) -> QueryFlops:
  """What a query computes.

  Args:
    bound: the predictor, the denoiser and the schedule.
    shape: of an image.
    step: diffusion steps.

  Returns:
    The FLOPs.
  """
  image, one, key = jnp.zeros((1, *shape)), jnp.zeros(1, jnp.int32), jax.random.key(0)
  draw = functools.partial(pair_logits, step=step)
  return QueryFlops(
    measuring.flops(draw, key, *bound, image, one, one),
    measuring.flops(bound[0], key, image),
    measuring.flops(bound[1], image, one),
  )
