"""Defenses of what is returned: post-inference ones, by name, applied after Diffence."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from diffence_jax.named import Choice, Registry

# `logits f[N,K] -> logits f32[N,K]`, every row by itself.
Finish = Callable[[ArrayLike], np.ndarray]

# `(key, known members' logits f[N,K], known non-members' logits f[N',K]) -> finish`.
FitOutput = Callable[[jax.Array, ArrayLike, ArrayLike], Finish]

# `(key, member logits, nonmember logits, **options) -> finish`.
OUTPUT_DEFENSES = Registry(
  "output defense",
  "defenses",
  {"memguard": "diffence_jax.defense.memguard:fit_memguard"},
  num_args=3,
)


def make_output_defense(defense: Choice | str, **options: Any) -> FitOutput:
  """Builds a defense of the answers.

  Args:
    defense: a choice from `OUTPUT_DEFENSES`; or a name of it, or "module:function" of a
      function of your own, `(key, member_logits, nonmember_logits, **options) -> finish`, which
      is given the predictor's answers to the samples of known membership, and returns a
      function of answers.
    **options: the defense's own, where it is given by name.

  Returns:
    How it is fitted.

  Raises:
    ValueError: there is no such defense or option, or one of ours is out of its range.
  """
  choice = defense if isinstance(defense, Choice) else OUTPUT_DEFENSES.choose(defense, options)
  return functools.partial(OUTPUT_DEFENSES.call, choice)
