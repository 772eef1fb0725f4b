"""Training-time defenses by name."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from diffence_jax import named
from diffence_jax.training.advreg import advreg
from diffence_jax.training.baselines import (
  confidence_penalty,
  early_stopping,
  label_smoothing,
  undefended,
)
from diffence_jax.training.dpsgd import dpsgd
from diffence_jax.training.hamp import hamp
from diffence_jax.training.recipe import Recipe, TrainSettings
from diffence_jax.training.relaxloss import relaxloss
from diffence_jax.training.selena import selena

# `(module, settings, **options) -> recipe`.
DEFENSES: Mapping[str, Callable[..., Recipe]] = {
  "undefended": undefended,
  "early_stopping": early_stopping,
  "label_smoothing": label_smoothing,
  "confidence_penalty": confidence_penalty,
  "advreg": advreg,
  "selena": selena,
  "hamp": hamp,
  "relaxloss": relaxloss,
  "dpsgd": dpsgd,
}
_WHAT = "training-time defense"


def make_recipe(
  name: str, module: nn.Module, settings: TrainSettings, **options: Any
) -> Recipe:
  """Builds the recipe of a training-time defense.

  Args:
    name: a key of `DEFENSES`, or "module:function" of a function of your own of the same kind,
      `(module, settings, **options) -> Recipe`.
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`.
    settings: how it is trained.
    **options: the defense's own.

  Returns:
    The recipe.

  Raises:
    ValueError: there is no such defense or option, or an option is out of its range.
  """
  function = named.find(_WHAT, name, DEFENSES)
  named.check_options(_WHAT, name, function, 2, options)
  recipe = function(module, settings, **options)
  if not isinstance(recipe, Recipe):
    raise ValueError(f"The {_WHAT} {name!r} returned {type(recipe).__name__}, not a Recipe.")
  return recipe


def source_digest(name: str) -> str | None:
  """What tells versions of a user's own defense apart, None for one of ours."""
  return named.digest(name, DEFENSES, _WHAT)
