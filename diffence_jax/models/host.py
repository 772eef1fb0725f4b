"""Classifiers of any other framework as predictors: NumPy images in, logits out."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax.checks import check_numbers, check_whole
from diffence_jax.predictor import check_function, check_largest, check_logits, refuse_traced


@dataclasses.dataclass(frozen=True, eq=False)
class HostPredictor:
  """A predictor whose answers are computed on the host; see `host_predictor`."""

  function: Callable[[np.ndarray], Any]
  num_classes: int

  runs_on_host = True

  @property
  def name(self) -> str:
    """The function's, for errors."""
    return getattr(self.function, "__name__", type(self.function).__name__)

  def __call__(self, key: jax.Array | None, images: jax.Array | np.ndarray) -> jax.Array:
    """Logits f32[N,K] for images f[N,H,W,C] in [0, 1]; ignores the key."""
    del key
    refuse_traced(self, images)
    given = np.array(images, np.float32)  # a copy, which the function may write to
    try:
      answers = self.function(given)
    except Exception as error:
      error.add_note(f"{self.name} was asked about images float32{list(given.shape)}.")
      raise
    return jnp.asarray(self._check(answers, len(given)))

  def _check(self, answers, num):
    """The answers as f32[N,K]; raises on what are none."""
    name, shape = f"{self.name}'s answers", (num, self.num_classes)
    if hasattr(answers, "detach"):
      raise TypeError(
        f"{name} are a {type(answers).__name__}; expected a NumPy array. Return "
        "logits.cpu().numpy(), computed under torch.no_grad()."
      )
    logits = check_numbers(name, answers)
    if logits.shape != shape:
      raise ValueError(
        f"{name} have shape {list(logits.shape)} for {num} images; expected {list(shape)}, a "
        "row for every image and a column for each of the num_classes."
      )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
      raise TypeError(f"{name} are {logits.dtype}; expected floating-point logits, not labels.")
    rounded = _to_float32(logits)
    check_largest(rounded.max(axis=-1), name)
    check_logits(rounded, name)
    return rounded


def host_predictor(
  function: Callable[[np.ndarray], np.ndarray], num_classes: int
) -> HostPredictor:
  """Makes a predictor of a function that JAX cannot trace: of PyTorch, scikit-learn, a server.

  What is compiled ends before the function is asked and goes on after it, so nothing calls back
  from inside a program, and the function may use any framework, JAX too. `protect`,
  `candidate_logits` and the attacks that ask for labels take the predictor like any other;
  `jax.jit` and `interop.export` cannot. The raw images come in one call, as they are given;
  candidates in as few and large ones as `defense.on_host` says.

  Args:
    function: `images f32[n,H,W,C] in [0, 1] -> logits f[n,K]`, NumPy arrays, any n. Logits, or
      logarithms of probabilities, with -inf for a probability of 0. It is deterministic and in
      evaluation mode, and answers every image by itself.
    num_classes: K, at least 2.

  Returns:
    `predict(key, images) -> logits f32[n,K]`, which ignores its key. The arg-max is that of the
    function, also where float32 would round its lead away. It raises TypeError under a caller's
    `jit`, and where the function returns no floating-point array; ValueError where its answers
    have another shape, rows without a finite largest logit, or look like probabilities. What
    the function raises goes through.

  Raises:
    TypeError: `function` is no function of images.
    ValueError: `num_classes` is below 2, or no whole number.

  Example:
    >>> import numpy as np
    >>> import diffence_jax as dj
    >>> classify = lambda images: images.reshape(len(images), -1)[:, :3]
    >>> predict = dj.host_predictor(classify, num_classes=3)
    >>> predict(None, np.full((2, 4, 4, 1), 0.5, np.float32)).shape
    (2, 3)
  """
  check_function("function", function, "images")
  check_whole("num_classes", num_classes, 2)
  return HostPredictor(function, int(num_classes))


def _to_float32(logits):
  """In float32, with the arg-max that there was."""
  with np.errstate(over="ignore"):
    rounded = logits.astype(np.float32)
  labels, rows = np.argmax(logits, axis=-1), np.arange(len(logits))
  tied = rows[np.argmax(rounded, axis=-1) != labels]
  winners = tied, labels[tied]
  rounded[winners] = np.nextafter(rounded[winners], np.float32(np.inf))
  return rounded
