"""Defenses of what is returned: post-inference ones, by name, applied after Diffence."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from diffence_jax import named
from diffence_jax.defense.memguard import check_memguard, fit_memguard

# `logits f[N,K] -> logits f32[N,K]`, every row by itself.
Finish = Callable[[ArrayLike], np.ndarray]

# `(key, known members' logits f[N,K], known non-members' logits f[N',K]) -> finish`.
FitOutput = Callable[[jax.Array, ArrayLike, ArrayLike], Finish]

# `(key, member logits, nonmember logits, **options) -> finish`.
OUTPUT_DEFENSES: Mapping[str, Callable[..., Finish]] = {"memguard": fit_memguard}
# Name to what checks the values of its options.
_CHECKS = {"memguard": check_memguard}
_WHAT = "output defense"


def make_output_defense(name: str, **options: Any) -> FitOutput | None:
  """Builds a defense of the answers.

  Args:
    name: a key of `OUTPUT_DEFENSES`; "none"; or "module:function" of a function of your own,
      `(key, member_logits, nonmember_logits, **options) -> finish`, which is given the
      predictor's answers to the samples of known membership, and returns a function of answers.
    **options: the defense's own.

  Returns:
    How it is fitted, or None for none.

  Raises:
    ValueError: there is no such defense or option, or one of ours is out of its range.
  """
  if name == "none":
    return None
  function = named.find(_WHAT, name, OUTPUT_DEFENSES)
  named.check_options(_WHAT, name, function, 3, options)
  if name in _CHECKS:
    _CHECKS[name](**options)
  return functools.partial(function, **options)


def source_digest(name: str) -> str | None:
  """What tells versions of a user's own defense apart, None for one of ours."""
  return None if name == "none" else named.digest(name, OUTPUT_DEFENSES, _WHAT)
