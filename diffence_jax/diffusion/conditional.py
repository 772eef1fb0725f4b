"""Class-conditional denoisers: an image is re-generated under the label that it is given."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.tree_util import Partial

from diffence_jax import models
from diffence_jax.predictor import Denoise, Predict, as_argument, ask, check_function


def under_predicted_label(denoise: Callable[..., jax.Array], predict: Predict) -> Denoise:
  """Makes a denoiser of a class-conditional one: told what a classifier predicts.

  `reconstruct`, `candidate_logits` and `protect` take it as any other. The label is that of the
  image as it comes, not of the noised one; the classifier is asked once more for every
  re-generation. It decides on the re-generation only: which labels are answered is not its
  business.

  Args:
    denoise: `(x_t f32[N,H,W,C] in model units, t i32[N], labels i32[N]) -> predicted noise`, as
      `models.denoiser` binds such a network.
    predict: the classifier, `(key, images f32[N,H,W,C] in [0, 1]) -> logits f[N,K]`, with the
      network's classes in their order; one that JAX can trace, which ignores its key.

  Returns:
    The denoiser, a pytree with both networks' variables as leaves. Without an image, as
    `sample` asks it, it raises TypeError.

  Raises:
    TypeError: one of the two is no such function.
  """
  check_function("denoise", denoise, "x, t, labels")
  check_function("predict", predict, "key, images")
  return Partial(_unlabelled, as_argument(denoise), as_argument(predict))


def denoiser_beside(module: nn.Module, variables: Any, predict: Predict) -> Denoise:
  """Binds a noise-prediction network that re-generates images for a classifier.

  Args:
    module: the network; a class-conditional one is told what the classifier predicts.
    variables: its variables.
    predict: the classifier, as `under_predicted_label` takes it.
  """
  denoise = models.denoiser(module, variables)
  return under_predicted_label(denoise, predict) if models.is_conditional(module) else denoise


def labelled(denoise: Denoise, images: jax.Array) -> Denoise:
  """A denoiser for these images f32[N,H,W,C] in [0, 1]: as it is, or under their labels."""
  if not (isinstance(denoise, Partial) and denoise.func is _unlabelled):
    return denoise
  of_labels, predict = denoise.args
  labels = jnp.argmax(ask(predict, None, images), axis=-1).astype(jnp.int32)
  return lambda x, t: of_labels(x, t, labels)


def _unlabelled(denoise, predict, x, t):
  """Called as a plain denoiser, where there is no image to predict a label of."""
  raise TypeError(
    "The denoiser is told the label of the image that it re-generates, and there is none; bind "
    "labels: lambda x, t: denoise(x, t, labels)."
  )
