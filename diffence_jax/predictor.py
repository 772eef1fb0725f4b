"""Predictors and denoisers, the two kinds of function all is made of; and what they take."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.errors import FlaxError
from jax.tree_util import Partial

from diffence_jax import rng

# `(key, images f32[N,H,W,C] in [0, 1]) -> logits f[N,K]`. A plain classifier ignores its key.
Predict = Callable[[jax.Array | None, jax.Array], jax.Array]

# `(x_t f32[N,H,W,C] in model units, t i32[N]) -> predicted noise f32[N,H,W,C]`.
Denoise = Callable[[jax.Array, jax.Array], jax.Array]


class Bound(NamedTuple):
  """A module, or a function `apply(variables, images)`, and its variables or their shapes."""

  module: nn.Module | Callable[..., jax.Array]
  variables: Any


def as_argument(function: Callable[..., Any]) -> Partial:
  """The function as a pytree, which can be an argument of a compiled one.

  What `models.predictor` and `models.denoiser` return has its variables as leaves. Called from
  inside a compiled function instead, they would be constants of its program: copied with every
  compilation, and another program for other weights. What has no hash is known by its
  identity: to compare two of them is not a matter of course, as of what holds arrays.
  """
  if isinstance(function, Partial):
    return function
  try:
    hash(function)
  except TypeError:
    function = function.__call__
  return Partial(function)


def check_function(name: str, function: Any, arguments: str) -> None:
  """Raises TypeError unless a function takes what it will be given.

  Args:
    name: of the argument that it is, for errors.
    function: what should be a function.
    arguments: what it is called with, such as "key, images".
  """
  if not callable(function):
    raise TypeError(
      f"{name} is a {type(function).__name__}; expected a function of ({arguments})."
    )
  try:
    signature = inspect.signature(function)
  except (TypeError, ValueError):  # some that are built in have none
    return
  try:
    signature.bind(*arguments.split(", "))
  except TypeError as error:
    raise TypeError(
      f"{name} takes {signature}; expected a function of ({arguments})."
    ) from error


def num_required(function: Callable[..., Any]) -> int:
  """How many arguments a function has to be given by position.

  Raises:
    TypeError, ValueError: it has no signature, as some that are built in.
  """
  return sum(
    parameter.default is parameter.empty
    and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    for parameter in inspect.signature(function).parameters.values()
  )


def runs_on_host(predict: Predict) -> bool:
  """Whether a predictor has to see its images, and so is asked between compiled programs.

  True of what `models.host_predictor` makes and of what is made of that: of those that say so
  by an attribute of this name.
  """
  return bool(getattr(predict, "runs_on_host", False))


def refuse_traced(predict: Predict, *given: Any) -> None:
  """Raises TypeError for a predictor that runs on the host, under a caller's `jit`."""
  # Where all are known and the rest is being traced, so is what is made of nothing.
  if any(isinstance(array, jax.core.Tracer) for array in (*given, jnp.zeros(()))):
    raise TypeError(
      f"{getattr(predict, 'name', 'predict')} runs on the host, so it cannot be jitted, "
      "mapped, differentiated or exported; call it outside. A function of JAX needs no "
      "host_predictor."
    )


def ask(predict: Predict, key: jax.Array | None, images: jax.Array) -> jax.Array:
  """A predictor's logits f[N,K], their shape and dtype checked, but not their values.

  Raises:
    TypeError: what it returns are no logits, or it cannot be called so.
    ValueError: as above, of a wrong shape.
  """
  if runs_on_host(predict):  # which says itself what is wrong
    logits = predict(key, images)
  else:
    with asked(f"predict cannot answer images of shape {list(images.shape)}"):
      logits = predict(key, images)
  logits = check_answers(logits, "predict's answers", num_axes=2, values=False)
  if logits.shape[0] != images.shape[0]:
    raise ValueError(
      f"predict's answers have shape {list(logits.shape)} for images {list(images.shape)}; "
      "expected a row for every image."
    )
  return logits


@contextlib.contextmanager
def asked(failure: str) -> Iterator[None]:
  """Says what was being done where a caller's network fails in its own words."""
  try:
    yield
  except (TypeError, ValueError, FlaxError) as error:
    kind = TypeError if isinstance(error, TypeError) else ValueError
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    raise kind(
      f"{failure}: {reason}. Expected what JAX can trace, for images of this size: "
      "predict(key, images) -> logits [N, K], denoise(x_t, t) -> noise like x_t, not swapped. "
      "A classifier of NumPy or another framework goes through dj.host_predictor."
    ) from error


def check_answers(
  logits: Any, name: str = "logits", num_axes: int | None = None, *, values: bool = True
) -> jax.Array:
  """Returns logits as a JAX array; raises on what are none.

  Values are looked at only where they are known: not under a caller's `jit`.

  Args:
    logits: f[...,K], K at least 2. -inf stands for a probability of 0.
    name: of the argument, for errors.
    num_axes: how many axes there are; None for any number.
    values: whether the values are looked at, where they are known.

  Returns:
    The same logits.

  Raises:
    TypeError: no array of floating-point numbers.
    ValueError: a wrong shape, or rows without a finite largest logit.
  """
  logits = to_array(logits, name)
  if not jnp.issubdtype(logits.dtype, jnp.floating):
    raise TypeError(
      f"{name} are {logits.dtype}{list(logits.shape)}; expected floating-point logits, a "
      "number for every class, not labels."
    )
  if not logits.ndim or num_axes not in (None, logits.ndim):
    axes = ["N", "M", "K"] if num_axes == 3 else ["N", "K"]
    raise ValueError(f"{name} have shape {list(logits.shape)}; expected [{', '.join(axes)}].")
  check_classes(logits.shape[-1], name)
  if values and logits.size and not isinstance(logits, jax.core.Tracer):
    check_largest(np.max(np.asarray(logits), axis=-1), name)
  return logits


def check_classes(num_classes: int, name: str = "logits") -> None:
  """Raises ValueError unless there are two classes at least: phi and labels need two."""
  if num_classes < 2:
    raise ValueError(
      f"{name} have {num_classes} column; expected at least 2 classes in the last axis. Make "
      "two columns of a sigmoid's z: jnp.concatenate([jnp.zeros_like(z), z], axis=-1)."
    )


def are_finite(logits: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
  """bool[...]: whether the largest of logits f[...,K] is finite, as that of any answer is.

  NaN is largest, and -inf stands for a probability of 0. NumPy's array for NumPy's.
  """
  return (np if isinstance(logits, np.ndarray) else jnp).isfinite(logits.max(axis=-1))


def like_probabilities(
  logits: np.ndarray,
  name: str,
  remedy: str = "Pass logits, or the logarithm of probabilities.",
) -> str:
  """What to say where all of f[N,K] are in [0, 1] and every row sums to 1; empty elsewhere.

  Not of one row, nor where all are 0 or 1, which are logits of a label.
  """
  if len(logits) < 2 or logits.min() < 0.0 or logits.max() > 1.0:
    return ""
  is_between = ((logits > 0.0) & (logits < 1.0)).any()
  if not is_between or np.any(np.abs(logits.sum(axis=-1) - 1.0) >= 1e-4):
    return ""
  return f"{name} look like probabilities: all are in [0, 1], and every row sums to 1. {remedy}"


def check_logits(logits: np.ndarray, *names: str) -> None:
  """Raises ValueError with what `like_probabilities` says of f[N,K], if it says something."""
  if told := like_probabilities(logits, *names):
    raise ValueError(told)


def check_largest(largest: np.ndarray, name: str = "logits") -> None:
  """Raises ValueError unless every row's largest logit is finite, of f[...]; NaN is largest."""
  if missing := np.size(largest) - np.isfinite(largest).sum():
    raise ValueError(
      f"{missing} of {np.size(largest)} {name} have NaN, +inf, or are all -inf; expected "
      "numbers, the largest one finite. Check the predictor that gave them."
    )


def to_array(value: Any, name: str) -> jax.Array:
  """Returns a JAX array of what is one, or a list of numbers; raises TypeError otherwise."""
  if isinstance(value, jax.Array) or hasattr(value, "__jax_array__"):
    return jnp.asarray(value)
  array = _to_numpy(value, name)
  # JAX takes the machine's own byte order only.
  return jnp.asarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def _to_numpy(value, name):
  """The same in NumPy: as `to_array` checks it."""
  is_several = isinstance(value, tuple) and any(hasattr(part, "shape") for part in value)
  try:
    array = np.asarray(None if is_several else value)
  except ValueError as error:
    raise TypeError(f"{name} are lists of several lengths; expected one array.") from error
  if array.dtype.kind in "OSUMm":
    raise TypeError(f"{name} are a {type(value).__name__}; expected one array of numbers.")
  return array


def check_images(images: jax.Array) -> jax.Array:
  """Returns the images as float32; raises on anything that is not a batch in [0, 1].

  Values are looked at only where they are known: under a caller's `jit` shape and dtype are
  checked, and the range is the caller's to keep.

  Args:
    images: f[N,H,W,C] in [0, 1], any floating-point dtype.

  Returns:
    f32[N,H,W,C].

  Raises:
    TypeError: the dtype is not a floating-point one.
    ValueError: wrong rank, an empty batch, values not finite or outside [0, 1].
  """
  images = to_array(images, "images")
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise TypeError(
      f"images have dtype {images.dtype}; expected floating point in [0, 1]. "
      "Divide 8-bit images by 255."
    )
  if images.ndim != 4:
    raise ValueError(f"images have shape {images.shape}; expected [N, H, W, C].")
  if 0 in images.shape:
    raise ValueError(f"images have shape {images.shape}; expected at least one image.")
  images = images.astype(jnp.float32)
  if isinstance(images, jax.core.Tracer):
    return images
  lowest, highest = _extremes(images)
  if isinstance(lowest, jax.core.Tracer):
    # Known images, and all else that the caller computes is being traced.
    return images
  lowest, highest = np.asarray(lowest), np.asarray(highest)
  if not (lowest >= 0.0 and highest <= 1.0):
    # All digits of float32: 1.0000001 is not 1.
    what = (
      "contain NaN" if lowest != lowest else f"range from {lowest[()]!s} to {highest[()]!s}"
    )
    raise ValueError(f"images {what}; expected finite values in [0, 1].")
  return images


def check_ids(ids: jax.Array | None, num: int) -> jax.Array:
  """Returns ids i[num], the positions for None; raises ValueError unless they fit."""
  if ids is None:
    return jnp.arange(num)
  if not isinstance(ids, jax.Array):
    given = _to_numpy(ids, "ids")
    if given.dtype.kind in "iu" and given.size and given.max() > rng.MAX_ID:
      raise ValueError(f"The largest id is {given.max()}; expected at most {rng.MAX_ID}.")
    if given.dtype.kind == "i" and given.size and given.min() < 0:
      raise ValueError(f"The smallest id is {given.min()}; expected at least 0.")
  ids = to_array(ids, "ids")
  if ids.shape != (num,) or not jnp.issubdtype(ids.dtype, jnp.integer):
    raise ValueError(f"ids are {ids.dtype}{list(ids.shape)}; expected integers, [{num}].")
  return ids


@jax.jit
def _extremes(images):
  return jnp.min(images), jnp.max(images)
