"""Classifiers that accept candidates at rates that were measured, whatever their weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffence_jax.predictor import as_argument


class Acceptance(NamedTuple):
  """How many candidates a query needs.

  Attributes:
    never: the share of the images of which no candidate is accepted: all are drawn.
    rate: of each candidate of the others, the chance that it is accepted.
  """

  never: float
  rate: float


# Scenarios 1 to 3 of a run of configs/digits.py, N=30, over its 1,200 queries, which need 12.1,
# 5.1 and 1.17 candidates on average; and scenario 3 of configs/fashion_mnist_small.py, where
# 86% of the candidates keep the label and 3.2% of the images have none that does
# (docs/results.md, N=10: fewer with N=30).
ACCEPTANCE = {
  "early exit, scenario 1": Acceptance(0.167, 0.115),
  "early exit, scenario 2": Acceptance(0.051, 0.263),
  "early exit, scenario 3": Acceptance(0.002, 0.889),
  "early exit, scenario 3, Fashion-MNIST's rates": Acceptance(0.032, 0.889),
}


def accepting(predict, acceptance: Acceptance):
  """Wraps a predictor so that selection without an interval accepts candidates at a rate.

  8-bit images, the raw ones, get the label 0, and so do the re-generations that a hash of
  theirs picks; the others get 1. Dark images are those of which none is ever picked.

  Args:
    predict: the predictor; its answers are computed, and change nothing but roundings.
    acceptance: the rates.

  Returns:
    A predictor, compiled, a pytree: wrappers that differ in rates share their programs.
  """
  return Partial(_accepting, as_argument(predict), acceptance.rate)


@jax.jit
def _accepting(predict, rate, key, images):
  logits = predict(key, images)
  bits = jax.lax.bitcast_convert_type(images, jnp.uint32).reshape(images.shape[0], -1)
  odd = 2 * jax.random.bits(jax.random.key(0), bits.shape[1:], jnp.uint32) + jnp.uint32(1)
  digest = jnp.sum(bits * odd[None], axis=1, dtype=jnp.uint32) >> 8
  picked = digest.astype(jnp.float32) / 2.0**24 < rate
  picked &= jnp.mean(images, axis=(1, 2, 3)) > 0.5
  steps = 255.0 * images
  raw = jnp.all(jnp.abs(steps - jnp.round(steps)) < 1e-3, axis=(1, 2, 3))
  label = jnp.where(raw | picked, 0, 1)
  return jax.nn.one_hot(label, logits.shape[-1]) + 1e-6 * jnp.tanh(logits)


def draw_images(num: int, shape: tuple[int, int, int], never: float) -> np.ndarray:
  """8-bit images f32[N,H,W,C], the share `never` of them dark, at least by rounding."""
  draw = np.random.default_rng(0)
  dark = np.arange(num) < round(never * num)
  middle = np.where(draw.permuted(dark), 64, 192)
  values = middle[:, None, None, None] + draw.integers(-60, 61, (num, *shape))
  return (values / 255.0).astype(np.float32)
