"""HAMP (Chen & Pattabiraman, NDSS 2024): high-entropy labels, and entropy as a reward.

Its second half, at test time, replaces the values of a prediction by those of a random image's
and keeps the order of the classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from diffence_jax import models, rng
from diffence_jax.checks import check_range
from diffence_jax.training.baselines import entropy
from diffence_jax.training.recipe import Recipe, TrainSettings, with_loss

# The top class gives up probability in steps of this.
_STEP = 0.01


def hamp(
  module: nn.Module,
  settings: TrainSettings,
  *,
  gamma: float = 0.8,
  alpha: float = 0.001,
  random_outputs: bool = False,
) -> Recipe:
  """Learns soft labels of high entropy, by KL, and is rewarded for entropy of its own.

  The divergence is averaged over the batch and the classes, as published.

  Args:
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`.
    settings: how it is trained.
    gamma: entropy of the labels as a share of the most there can be, 0 to 1. The Diffence
      paper's: 0.8, 0.8 and 0.95 for CIFAR-10, CIFAR-100 and SVHN.
    alpha: weight of the prediction's mean entropy, at least 0; 0.001, 0.0005 and 0.005 there.
    random_outputs: whether to answer with `random_outputs` too: no confidence means anything
      then, so the paper's comparison leaves it off, and so does this by default.

  Returns:
    The recipe.

  Raises:
    ValueError: a setting is out of its range.
  """
  check_range("gamma", gamma, 0.0, 1.0)
  check_range("alpha", alpha, 0.0, None)
  if not isinstance(random_outputs, bool):
    raise ValueError(f"random_outputs is {random_outputs!r}; expected True or False.")

  def loss(logits: jax.Array, examples: Mapping[str, jax.Array]) -> jax.Array:
    num_classes = logits.shape[-1]
    top = top_probability(num_classes, gamma)
    one_hot = jax.nn.one_hot(examples["labels"], num_classes)
    soft_labels = one_hot * top + (1.0 - one_hot) * (1.0 - top) / (num_classes - 1)
    divergence = optax.kl_divergence(jax.nn.log_softmax(logits, axis=-1), soft_labels)
    return jnp.mean(divergence) / num_classes - alpha * jnp.mean(entropy(logits))

  recipe = with_loss(module, settings, loss)
  return recipe._replace(answer=answer_at_random(module)) if random_outputs else recipe


def top_probability(num_classes: int, gamma: float) -> float:
  """The probability of the label itself in HAMP's soft labels (section IV.A).

  Lowered from 1 in steps of 0.01 until the entropy, with the rest spread evenly over the other
  classes, is at least `gamma` log K.

  Args:
    num_classes: K, at least 2.
    gamma: 0 to 1.

  Returns:
    From 1 down to 1 / K.
  """
  tops = np.append(np.arange(100, 100 // num_classes, -1) * _STEP, 1.0 / num_classes)
  rest = (1.0 - tops) / (num_classes - 1)
  with np.errstate(divide="ignore", invalid="ignore"):
    terms = [tops * np.log(tops), (num_classes - 1) * rest * np.log(rest)]
  entropies = -np.sum(np.nan_to_num(terms), axis=0)
  # Evenly spread labels reach the whole of it only to rounding.
  reached = entropies >= gamma * np.log(num_classes) - 1e-12
  return float(tops[np.argmax(reached)])


def answer_at_random(module: nn.Module) -> Callable[[Any, jax.Array], jax.Array]:
  """HAMP at test time (section IV.C): the classes keep their order, and nothing else.

  The random image of evenly drawn pixels follows from the image's own logits, rounded to 0.01,
  so that the same image is answered alike in any batch, unless one of its logits is so near to
  an edge that the batch's rounding moves it over. To foretell it takes the classifier.

  Args:
    module: the classifier.

  Returns:
    `(variables, images f32[N,H,W,C]) -> logits f32[N,K]`, sorted as the module's are.
  """

  def apply(variables, images):
    predict = models.predictor(module, variables)
    logits = predict(None, images).astype(jnp.float32)
    bits = jnp.round(jnp.clip(logits, -1e6, 1e6) * 100.0).astype(jnp.int32)
    fold = lambda key, number: (jax.random.fold_in(key, number), None)
    keys = jax.vmap(lambda row: jax.lax.scan(fold, rng.seed_key(0), row)[0])(bits)
    draw = lambda key: jax.random.uniform(key, images.shape[1:])
    values = jnp.sort(predict(None, jax.vmap(draw)(keys)).astype(jnp.float32), axis=-1)
    ranks = jnp.argsort(jnp.argsort(logits, axis=-1), axis=-1)
    answers = jnp.take_along_axis(values, ranks, axis=-1)
    # Ties, of either prediction, must not change the label.
    same = jnp.argmax(answers, axis=-1) == jnp.argmax(logits, axis=-1)
    return jnp.where(same[:, None], answers, logits)

  return apply
