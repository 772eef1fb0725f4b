"""A classifier by its name: an exported program, a saved model, or `module:function`."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from diffence_jax import models, rng
from diffence_jax.models.saved import load_model
from diffence_jax.named import import_function
from diffence_jax.predictor import Predict, ask, check_largest, num_required, runs_on_host

_EXPECTED = (
  "expected an exported program (a file), a saved model (a folder), or module:function, "
  "of images f32[N,H,W,C] in [0, 1] or of (key, images)"
)


class Classifier(NamedTuple):
  """A classifier that was loaded.

  Attributes:
    predict: the predictor; `runs_on_host` where JAX cannot trace it.
    num_classes: K.
    platforms: what an exported program can run on; None for any.
  """

  predict: Predict
  num_classes: int
  platforms: tuple[str, ...] | None = None


def load_classifier(name: str | os.PathLike, image_shape: tuple[int, int, int]) -> Classifier:
  """Loads a classifier, and asks it about a gray image.

  Args:
    name: the file of an exported program, the folder of a saved model, or "module:function" as
      `as_classifier` takes it.
    image_shape: (H,W,C) of the images that it will be asked about.

  Raises:
    FileNotFoundError: there is no such file or folder.
    ValueError: it is none of these, or cannot answer such images.
  """
  path = Path(name).expanduser()
  if path.is_dir():
    return as_classifier(models.predictor(*load_model(path)), image_shape)
  if path.exists():
    return _of_program(path, image_shape)
  if ":" not in str(name):
    raise FileNotFoundError(f"There is no classifier {name}; {_EXPECTED}.")
  return as_classifier(import_function(str(name)), image_shape, str(name))


def as_classifier(
  function: Callable[..., Any], image_shape: tuple[int, int, int], name: str = "predict"
) -> Classifier:
  """A function as a predictor.

  Args:
    function: a predictor, of (key, images); or, where it takes no more than images, a function
      of NumPy images to logits f[N,K], NumPy arrays, which becomes a `host_predictor`.
    image_shape: (H,W,C).
    name: for errors.

  Raises:
    ValueError: it is no such function, or its answers are no logits.
  """
  predict, shape = function, (2, *image_shape)
  if not runs_on_host(function) and _num_arguments(function, name) == 1:
    try:
      # Written to by some.
      answers = np.asarray(function(np.full(shape, 0.5, np.float32)))
    except Exception as error:
      raise ValueError(
        f"{name} cannot answer images float32{list(shape)}: {type(error).__name__}: {error}."
      ) from error
    if answers.ndim != 2 or answers.shape[1] < 2:
      raise ValueError(
        f"{name} answered {list(answers.shape)} to {shape[0]} images; expected logits "
        f"[{shape[0]}, K], K at least 2."
      )
    predict = models.host_predictor(function, answers.shape[1])
  elif not runs_on_host(function) and not isinstance(function, jax.tree_util.Partial):
    predict = jax.jit(function)
  logits = ask(predict, rng.seed_key(0), jnp.full(shape, 0.5, jnp.float32))
  check_largest(np.asarray(logits).max(axis=-1), f"answers of {name}")
  return Classifier(predict, logits.shape[1])


def _num_arguments(function, name):
  if not callable(function):
    raise ValueError(f"{name} is a {type(function).__name__}; {_EXPECTED}.")
  try:
    needed = num_required(function)
  except (TypeError, ValueError):  # some that are built in have none
    return 1
  if needed not in (1, 2):
    raise ValueError(f"{name} takes {inspect.signature(function)}; {_EXPECTED}.")
  return needed


def _of_program(path, image_shape):
  try:
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    key_data, images = program.in_avals
  except OSError:
    raise
  except Exception as error:  # whatever reading other files' bytes raises
    raise ValueError(f"{path} is no exported predictor; {_EXPECTED}.") from error
  if key_data.shape != (2,) or images.shape[1:] != tuple(image_shape):
    raise ValueError(
      f"{path} is for images [N, {', '.join(map(str, images.shape[1:]))}], and these are "
      f"[N, {', '.join(map(str, image_shape))}]."
    )
  if jax.default_backend() not in program.platforms:
    raise ValueError(
      f"{path} was exported for {', '.join(program.platforms)}, and this is "
      f"{jax.default_backend()}; set JAX_PLATFORMS, or export it for more."
    )

  def predict(key, images):
    return program.call(jax.random.key_data(rng.own_key(key)), images)

  return as_classifier(predict, image_shape, str(path))._replace(platforms=program.platforms)
