"""From a model and its variables to plain functions, and back to how many numbers it has."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import nnx
from jax.tree_util import Partial

from diffence_jax.batching import in_batches, to_float
from diffence_jax.compiling import compiled_quickly, shared
from diffence_jax.data import Images
from diffence_jax.predictor import Denoise, Predict, num_required, runs_on_host
from diffence_jax.rng import own_key


class _Held:
  """Stands for variables that a model holds itself."""


_HELD = _Held()


def predictor(
  module_or_apply: nn.Module | nnx.Module | Callable[..., jax.Array],
  variables: Any = _HELD,
  *,
  per_image: bool = False,
) -> Predict:
  """Binds a classifier to its variables.

  Args:
    module_or_apply: a Flax linen module on images f32[N,H,W,C] in [0, 1], applied in evaluation
      mode (`train=False` where it has such an argument), or a function
      `apply(variables, images) -> logits f32[N,K]`. Without `variables`, a model that holds
      them: a Flax NNX module, asked in evaluation mode, which it is not itself set to; or any
      callable `model(images) -> logits` that is a pytree, such as Equinox's modules, whose
      mode is the caller's (`eqx.nn.inference_mode`). A predictor that runs on the host is
      returned as it is.
    variables: the module's variables, all collections; or what `apply` takes.
    per_image: whether it takes one image f32[H,W,C] and gives f32[K], and is to be mapped.

  Returns:
    `predict(key, images) -> logits`, compiled, which ignores its key. It is a pytree with the
    variables as leaves, so that a compiled function can be given it as an argument.

  Raises:
    TypeError: `module_or_apply` is none of these, or a linen module without its variables.
  """
  if runs_on_host(module_or_apply):
    return module_or_apply
  apply, variables = _with_variables(module_or_apply, variables)
  if per_image:
    apply = jax.vmap(apply, in_axes=(None, 0))
  is_kept = isinstance(module_or_apply, nn.Module) and not per_image
  compile_answer = _compile_answer if is_kept else _compile_answer.__wrapped__
  return Partial(compile_answer(apply), variables)


@shared(64)
def _compile_answer(apply):
  """Compiled once for equal modules, as is then what takes such a predictor as an argument."""
  return jax.jit(lambda variables, key, images: apply(variables, images))


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
  if runs_on_host(module_or_apply):
    return module_or_apply  # ignores its key, and so what is given for variables
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


def denoiser(
  module_or_apply: nn.Module | nnx.Module | Callable[..., jax.Array], variables: Any = _HELD
) -> Denoise:
  """Binds a noise-prediction network to its variables.

  Args:
    module_or_apply: a Flax module on (x_t f32[N,H,W,C] in model units, t i32[N]), applied in
      evaluation mode (`train=False` where it has such an argument), or a function
      `apply(variables, x_t, t) -> predicted noise f32[N,H,W,C]`. Without `variables`, a model
      that holds them, as `predictor` takes it.
    variables: the module's variables, all collections; or what `apply` takes.

  Returns:
    `denoise(x_t, t) -> predicted noise`; `denoise(x_t, t, labels i32[N])` where the network
    is class-conditional. It is a pytree with the variables as leaves.

  Raises:
    TypeError: as `predictor` does.
  """
  return Partial(*_with_variables(module_or_apply, variables))


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
  inputs = [np.zeros((1, *image_shape), np.float32)]
  if num_inputs(module) > 1:
    inputs.append(np.zeros(1, np.int32))
  if is_conditional(module):
    inputs.append(np.zeros(1, np.int32))
  with compiled_quickly():
    return _compiled_init(module)(own_key(key), *inputs)


@functools.lru_cache(maxsize=64)
def _compiled_init(module):
  """Compiled, the forward pass is dropped, the draws are left; equal modules share it."""
  return jax.jit(module.init)


def is_conditional(module: nn.Module) -> bool:
  """Whether a denoiser is class-conditional: takes `labels`, and has a number of classes."""
  takes_labels = "labels" in inspect.signature(module.__call__).parameters
  return takes_labels and getattr(module, "num_classes", None) is not None


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


def training_mode(module: nn.Module) -> dict[str, bool]:
  """What a module's `apply` is given to train: nothing where it knows no such mode."""
  return _mode(module, True)


def _mode(module, train):
  accepts = "train" in inspect.signature(module.__call__).parameters
  return {"train": train} if accepts else {}


def _with_variables(module_or_apply, variables):
  """A function of the variables and the inputs, in evaluation mode; and the variables."""
  if variables is not _HELD:
    return _evaluated(module_or_apply), variables
  if isinstance(module_or_apply, nn.Module):
    raise TypeError(
      f"{type(module_or_apply).__name__} is a Flax linen module, which holds no variables; "
      "expected them as the second argument."
    )
  if isinstance(module_or_apply, nnx.Module):
    graph, state = nnx.split(module_or_apply)
    # A copy of the state: its variables are the module's own, which may be trained on.
    return functools.partial(_merged, graph), jax.tree.map(lambda leaf: leaf, state)
  if not callable(module_or_apply):
    return _evaluated(module_or_apply), variables  # which raises
  leaves, structure = jax.tree.flatten(module_or_apply)
  is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
  fixed = [None if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]

  def apply(arrays, *inputs):
    left = iter(arrays)
    filled = [next(left) if a else leaf for leaf, a in zip(fixed, is_array, strict=True)]
    return jax.tree.unflatten(structure, filled)(*inputs)

  return apply, [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]


def _merged(graph, state, *inputs):
  module = nnx.merge(graph, state)
  module.eval()  # a copy: the caller's stays in its mode
  return module(*inputs)


def _evaluated(
  module_or_apply: nn.Module | Callable[..., jax.Array],
) -> Callable[..., jax.Array]:
  """The function of the variables and the inputs, in evaluation mode."""
  if isinstance(module_or_apply, nn.Module):
    return _apply_of(module_or_apply)
  if callable(module_or_apply):
    return module_or_apply
  raise TypeError(
    f"Got a {type(module_or_apply).__name__}; expected a Flax module, linen with its variables "
    "or NNX without, a function apply(variables, inputs), or a callable pytree."
  )


@shared(64)
def _apply_of(module):
  """The same function for equal modules, so that a program that is given it is found again."""
  return functools.partial(module.apply, **_mode(module, False))


def num_inputs(module: nn.Module) -> int:
  """How many inputs a module's `__call__` has to be given by position."""
  return num_required(module.__call__)
