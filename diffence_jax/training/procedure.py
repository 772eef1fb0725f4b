"""Classifiers that a user's own function trains, or has trained, in any framework.

Such a classifier is known by what it answers: it is asked on the host, and cannot be kept.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffence_jax import rng
from diffence_jax.batching import to_float
from diffence_jax.checks import shown
from diffence_jax.data import Images
from diffence_jax.disk import file_digest
from diffence_jax.models.host import HostPredictor, host_predictor
from diffence_jax.named import Choice, Registry
from diffence_jax.predictor import check_function

# `train(images f32[N,H,W,C] in [0, 1], labels i64[N], seed, **options) -> predict`, in NumPy.
PROCEDURES = Registry("training procedure", "classifier.train_options.", {}, num_args=3)
# `function(**options) -> predict` of a classifier that is there already.
PREDICTORS = Registry("predictor", "classifier.predictor_options.", {})


def choose_function(
  registry: Registry, setting: str, name: str, options: Mapping[str, Any]
) -> Choice:
  """Chooses a user's own function, versioned by its file and by files that its options name.

  Args:
    registry: `PROCEDURES` or `PREDICTORS`.
    setting: the config's, that names it.
    name: "module:function".
    options: those that are given.

  Returns:
    The choice; `source` is of its module's file, and of the content of every file whose path
    is an option.

  Raises:
    ValueError: there is no such function or option, or it takes other arguments.
  """
  if ":" not in name:
    raise ValueError(f"{setting} is {shown(name)}; expected 'module:function'.")
  choice = registry.choose(name, options)
  files = [
    file_digest(value)
    for _, value in sorted(choice.options.items())
    if isinstance(value, str) and os.path.isfile(value)
  ]
  return dataclasses.replace(choice, source=" ".join([choice.source, *files]))


def train_by(
  procedure: Choice, images: Images, labels: np.ndarray, num_classes: int, seed: int, model: str
) -> HostPredictor:
  """Has a procedure train a classifier.

  Args:
    procedure: a choice from `PROCEDURES`.
    images: u8[N,H,W,C].
    labels: i[N].
    num_classes: K.
    seed: of the run.
    model: which one it is, such as "shadow/3"; its seed follows from this and the run's.

  Returns:
    A predictor, which runs on the host.

  Raises:
    RuntimeError: the procedure failed, by what it raised.
    ValueError: it returned no predictor of so many classes.
  """
  sequence = np.random.SeedSequence(rng.numpy_seed(seed, model))
  # Frameworks take 31 bits.
  given = int(sequence.generate_state(1)[0] >> 1)
  images = np.asarray(to_float(np.asarray(images)))
  labels = np.array(labels, np.int64)
  try:
    returned = PROCEDURES.call(procedure, images, labels, given)
  except Exception as error:
    raise RuntimeError(
      f"The training procedure {procedure.name} failed at the model {model}: "
      f"{type(error).__name__}: {error}"
    ) from error
  return _as_predictor(procedure.name, returned, images[:1], num_classes)


def make_predictor(predictor: Choice, images: Images, num_classes: int) -> HostPredictor:
  """Calls the function of a classifier that is there already.

  Args:
    predictor: a choice from `PREDICTORS`.
    images: u8[N,H,W,C], some that it is to answer.
    num_classes: K.

  Returns:
    A predictor, which runs on the host.

  Raises:
    RuntimeError: the function failed, by what it raised.
    ValueError: it returned no predictor of so many classes.
  """
  try:
    returned = PREDICTORS.call(predictor)
  except Exception as error:
    raise RuntimeError(
      f"The function {predictor.name} failed: {type(error).__name__}: {error}"
    ) from error
  first = np.asarray(to_float(np.asarray(images[:1])))
  return _as_predictor(predictor.name, returned, first, num_classes)


def _as_predictor(name, returned, images, num_classes):
  """What a function returned, a predictor of NumPy or of JAX, as one on the host."""
  try:
    if _takes(returned, "images"):
      function = returned
    else:
      check_function("what it returned", returned, "key, images")
      function = lambda images: np.asarray(returned(None, images))
    predict = host_predictor(function, num_classes)
    predict(None, images)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"{name} returned no predict: {error} Expected a function of NumPy images f32[n,H,W,C] "
      f"in [0, 1] that returns logits f[n,{num_classes}], or a predictor of JAX."
    ) from error
  return predict


def _takes(function: Any, arguments: str) -> bool:
  """Whether something is a function that can be called with these arguments."""
  try:
    check_function("it", function, arguments)
  except TypeError:
    return False
  return True
