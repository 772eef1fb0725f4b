"""Who is in which shadow model's training set, and all shadow models as one that answers.

Shadow models are trained as the target is, on training sets that are known: which example is
in which of them is drawn, and recorded, before any is trained, by `training.ensemble`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffence_jax import models, rng
from diffence_jax.checks import check_whole
from diffence_jax.compiling import shared


def membership_of(numbers: Sequence[int], num_examples: int, seed: int) -> np.ndarray:
  """Rows bool[len(numbers),N] of `membership_matrix`, of models by their numbers from 0 on."""
  # A pair follows from its number only, so as many pairs as it takes are drawn.
  num_models = 2 * (max(numbers) // 2 + 1)
  return membership_matrix(num_models, num_examples, seed)[list(numbers)]


def membership_matrix(num_models: int, num_examples: int, seed: int) -> np.ndarray:
  """Draws who is in which model's training set: every example in exactly half of the models.

  Models come in pairs, a random half of the examples and the other half. A pair depends on the
  seed and its own number only, so more models can be added and those there are stay right.

  Args:
    num_models: S, even, at least 2.
    num_examples: N, at least 2.
    seed: of the draw.

  Returns:
    bool[S,N]; every row has N/2 members (for odd N rounded up and down in turn).

  Raises:
    ValueError: an odd number of models, or too few models or examples.
  """
  check_whole("num_models", num_models, 2)
  check_whole("num_examples", num_examples, 2)
  check_whole("seed", seed, 0)
  if num_models % 2:
    raise ValueError(f"num_models is {num_models}; expected an even number, at least 2.")
  membership = np.zeros((num_models, num_examples), bool)
  for pair in range(num_models // 2):
    draw = np.random.default_rng(rng.numpy_seed(seed, f"shadow/membership/{pair}"))
    half = draw.permutation(num_examples)[: -(-num_examples // 2)]
    membership[2 * pair, half] = True
    membership[2 * pair + 1] = ~membership[2 * pair]
  return membership


# The same function for the same ensemble, so that a program that is given it is found again.
@shared(16)
def ensemble_logits(
  answering: nn.Module | Callable[..., jax.Array], models_at_once: int
) -> Callable[..., jax.Array]:
  """A function of the images that all models of an ensemble answer, in evaluation mode.

  Args:
    answering: the classifier, as `models.predictor` takes it.
    models_at_once: how many answer at once; the rest follow one after another.

  Returns:
    `(variables with first axis S, images f32[n,H,W,C]) -> logits f32[n,S*K]`, model by model:
    for `models.predictor`, so that an ensemble goes through a defense as one classifier does.
  """

  def apply(variables, images):
    answer = lambda of_model: models.predictor(answering, of_model)(None, images)
    # Inside a device a loop over models; forward passes are not slow in loops.
    logits = jax.lax.map(answer, variables, batch_size=models_at_once)
    return jnp.moveaxis(logits, 0, 1).reshape(len(images), -1)

  return apply
