"""Training-time defenses by name."""

from typing import Any

from flax import linen as nn

from diffence_jax.named import Choice, Registry
from diffence_jax.training.recipe import Recipe, TrainSettings

# `(module, settings, **options) -> recipe`.
DEFENSES = Registry(
  "training-time defense",
  "defenses",
  {
    "undefended": "diffence_jax.training.baselines:undefended",
    "early_stopping": "diffence_jax.training.baselines:early_stopping",
    "label_smoothing": "diffence_jax.training.baselines:label_smoothing",
    "confidence_penalty": "diffence_jax.training.baselines:confidence_penalty",
    "advreg": "diffence_jax.training.advreg:advreg",
    "selena": "diffence_jax.training.selena:selena",
    "hamp": "diffence_jax.training.hamp:hamp",
    "relaxloss": "diffence_jax.training.relaxloss:relaxloss",
    "ccl": "diffence_jax.training.ccl:ccl",
    "dpsgd": "diffence_jax.training.dpsgd:dpsgd",
    "dpsgd_tuned": "diffence_jax.training.dpsgd_tuned:dpsgd_tuned",
  },
  num_args=2,
)


def make_recipe(
  defense: Choice | str, module: nn.Module, settings: TrainSettings, **options: Any
) -> Recipe:
  """Builds the recipe of a training-time defense.

  Args:
    defense: a choice from `DEFENSES`; or a name of it, or "module:function" of a function of
      your own of the same kind, `(module, settings, **options) -> Recipe`.
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`.
    settings: how it is trained.
    **options: the defense's own, where it is given by name.

  Returns:
    The recipe.

  Raises:
    ValueError: there is no such defense or option, or an option is out of its range.
  """
  choice = defense if isinstance(defense, Choice) else DEFENSES.choose(defense, options)
  recipe = DEFENSES.call(choice, module, settings)
  if not isinstance(recipe, Recipe):
    raise ValueError(
      f"The {DEFENSES.what} {choice.name!r} returned {type(recipe).__name__}, not a Recipe."
    )
  return recipe
