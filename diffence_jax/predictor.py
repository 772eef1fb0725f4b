"""The two kinds of function everything is made of; defenses map the first onto itself."""

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import Partial

# `(key, images f32[N,H,W,C] in [0, 1]) -> logits f[N,K]`. A plain classifier ignores its key.
Predict = Callable[[jax.Array | None, jax.Array], jax.Array]

# `(x_t f32[N,H,W,C] in model units, t i32[N]) -> predicted noise f32[N,H,W,C]`.
Denoise = Callable[[jax.Array, jax.Array], jax.Array]


def as_argument(function: Callable[..., Any]) -> Partial:
  """The function as a pytree, which can be an argument of a compiled one.

  What `models.predictor` and `models.denoiser` return has its variables as leaves. Called from
  inside a compiled function instead, they would be constants of its program: copied with every
  compilation, and another program for other weights.
  """
  return function if isinstance(function, Partial) else Partial(function)
