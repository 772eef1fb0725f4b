"""From a model and its variables to plain functions, and back to how many numbers it has."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffence_jax.batching import in_batches, to_float
from diffence_jax.data import Images
from diffence_jax.predictor import Denoise, Predict
from diffence_jax.rng import own_key


def predictor(module_or_apply: nn.Module | Callable[..., jax.Array], variables: Any) -> Predict:
  """Binds a classifier to its variables.

  Args:
    module_or_apply: a Flax module on images f32[N,H,W,C] in [0, 1], applied in evaluation mode
      (`train=False` where it has such an argument), or a function
      `apply(variables, images) -> logits f32[N,K]`.
    variables: the module's variables, all collections; or what `apply` takes.

  Returns:
    `predict(key, images) -> logits`, compiled, which ignores its key. It is a pytree with the
    variables as leaves, so that a compiled function can be given it as an argument.

  Raises:
    TypeError: `module_or_apply` is neither.
  """
  apply = _evaluated(module_or_apply)
  return Partial(jax.jit(lambda variables, key, images: apply(variables, images)), variables)


@functools.lru_cache(maxsize=16)
def compiled_predictor(
  module_or_apply: nn.Module | Callable[..., jax.Array],
) -> Callable[[Any, jax.Array], jax.Array]:
  """Compiles a classifier for any variables, once for each.

  Args:
    module_or_apply: as `predictor` takes it.

  Returns:
    `(variables, images f32[N,H,W,C]) -> logits f32[N,K]`.
  """
  return jax.jit(_evaluated(module_or_apply))


def answer_images(
  module_or_apply: nn.Module | Callable[..., jax.Array],
  variables: Any,
  images: Images,
  batch_size: int,
) -> np.ndarray:
  """A classifier's logits f32[N,K] of images u8[N,H,W,C], in batches of one size."""
  answer = compiled_predictor(module_or_apply)
  of_rows = lambda rows: answer(variables, to_float(images[rows]))
  return in_batches(of_rows, len(images), batch_size)


def denoiser(module_or_apply: nn.Module | Callable[..., jax.Array], variables: Any) -> Denoise:
  """Binds a noise-prediction network to its variables.

  Args:
    module_or_apply: a Flax module on (x_t f32[N,H,W,C] in model units, t i32[N]), applied in
      evaluation mode (`train=False` where it has such an argument), or a function
      `apply(variables, x_t, t) -> predicted noise f32[N,H,W,C]`.
    variables: the module's variables, all collections; or what `apply` takes.

  Returns:
    `denoise(x_t, t) -> predicted noise`; `denoise(x_t, t, labels i32[N])` where the network
    is class-conditional. It is a pytree with the variables as leaves.

  Raises:
    TypeError: `module_or_apply` is neither.
  """
  return Partial(_evaluated(module_or_apply), variables)


def init(module: nn.Module, key: jax.Array, image_shape: tuple[int, int, int]) -> Any:
  """Draws a module's first variables.

  Args:
    module: a classifier, called on images, or a denoiser, called on images and steps and, where
      it is class-conditional, labels.
    key: a JAX random key.
    image_shape: (H, W, C) of the images it is for.

  Returns:
    Its variables: "params" and, for a classifier with batch normalisation, "batch_stats".
  """
  inputs = [jnp.zeros((1, *image_shape), jnp.float32)]
  if len(_required_arguments(module)) > 1:
    inputs.append(jnp.zeros((1,), jnp.int32))
  conditional = "labels" in inspect.signature(module.__call__).parameters
  if conditional and module.num_classes is not None:
    inputs.append(jnp.zeros((1,), jnp.int32))
  # Compiled, the forward pass is dropped and only the draws are left.
  return jax.jit(module.init)(own_key(key), *inputs)


def num_parameters(variables: Any) -> int:
  """Counts the numbers in "params", or in all of `variables` where there is no such collection.

  Args:
    variables: arrays, or the shapes that `jax.eval_shape` gives.

  Returns:
    The count; running statistics are not parameters.
  """
  if isinstance(variables, dict) and "params" in variables:
    variables = variables["params"]
  return sum(leaf.size for leaf in jax.tree.leaves(variables))


def _evaluated(
  module_or_apply: nn.Module | Callable[..., jax.Array],
) -> Callable[..., jax.Array]:
  """The function of the variables and the inputs, in evaluation mode."""
  if isinstance(module_or_apply, nn.Module):
    accepts_train = "train" in inspect.signature(module_or_apply.__call__).parameters
    mode = {"train": False} if accepts_train else {}
    return functools.partial(module_or_apply.apply, **mode)
  if callable(module_or_apply):
    return module_or_apply
  raise TypeError(
    f"Got a {type(module_or_apply).__name__}; expected a Flax linen module, or a function "
    "apply(variables, inputs). An apply function that has its variables bound already needs no "
    "binding."
  )


def _required_arguments(module: nn.Module) -> list[str]:
  """The inputs a module's `__call__` has to be given by position."""
  return [
    parameter.name
    for parameter in inspect.signature(module.__call__).parameters.values()
    if parameter.default is parameter.empty
    and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
  ]
