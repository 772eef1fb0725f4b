"""An audit of a classifier itself: asked about members and non-members, then attacked."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import rng
from diffence_jax.attacks.attack import DEFAULT_ATTACKS
from diffence_jax.batching import batches, even_size
from diffence_jax.checks import check_type, check_whole
from diffence_jax.data.sides import (
  Side,
  check_alike,
  in_order,
  number_sides,
  of_arrays,
  read_side,
)
from diffence_jax.interop.classifier import Classifier, as_classifier, load_classifier
from diffence_jax.predictor import Predict, ask, check_largest, runs_on_host
from diffence_jax.progress import progress_bar
from diffence_jax.recorded.audit import Asked, audit
from diffence_jax.recorded.record import read_record
from diffence_jax.recorded.report import check_report_folder, write_report
from diffence_jax.recorded.results import RecordResults

# A path, or (images, labels).
Samples = str | os.PathLike | tuple[np.ndarray, np.ndarray]
# How far the sum of a row may be from 1 where probabilities are taken for logits.
_TOLERANCE = 1e-3
# Of every sample it asks for about a thousand labels, one after another: a function on the host
# is called so often. By default they are seven times as many.
_QUICK = {
  "hop_skip_jump": {"num_iterations": 8, "initial_evaluations": 50, "max_evaluations": 100}
}


def audit_model(
  predict: Callable[..., Any] | str | os.PathLike,
  members: Samples,
  nonmembers: Samples,
  folder: str | os.PathLike,
  *,
  attacks: Sequence[str] = DEFAULT_ATTACKS,
  classes: Sequence[str] | None = None,
  image_size: int | None = None,
  num_few: int = 200,
  batch_size: int = 256,
  seed: int = 0,
) -> RecordResults:
  """Attacks a classifier with all that needs no shadow models, and writes a report.

  It is asked about members and non-members, and what it answers is audited as by
  `audit_record`; attacks that see labels only ask it about changed images as well.

  Args:
    predict: a function of NumPy images f32[n,H,W,C] in [0, 1] to logits f[n,K]; a predictor, of
      (key, images); or by name, as `interop.classifier.load_classifier` takes it.
    members: what it was trained on: images u8[N,H,W,C], or f[N,H,W,C] in [0, 1], and labels
      i[N]; or a path, as `data.sides.read_side` takes it.
    nonmembers: samples of the same kind that it was not trained on.
    folder: as of `audit_record`.
    attacks: as of `audit_record`.
    classes: names of the classifier's classes in the order of its outputs, for samples in
      folders; None for the sorted names of the folders.
    image_size: the side that image files are scaled to; None takes them as they are.
    num_few: on how many samples attacks that ask for a thousand labels of each are run, a
      quarter each of both sides of both halves; below 4 leaves these out.
    batch_size: images the classifier is asked about at a time, for its answers.
    seed: of what attacks draw, and of the halves on which thresholds are learnt.

  Returns:
    The content of `results.json`.

  Raises:
    FileNotFoundError: there is no such file, folder or classifier.
    ValueError: samples are damaged, do not fit each other or the classifier, or are on both
      sides; its answers are no logits; or the folder holds something else.
  """
  check_whole("seed", seed, 0, 2**31 - 1)
  check_whole("num_few", num_few, 0, 1_000_000)
  check_whole("batch_size", batch_size, 1)
  attacks = check_type("attacks", attacks, Sequence[str])
  folder = Path(folder).expanduser()
  check_report_folder(folder)
  sides = [
    in_order(as_side(given, group, image_size))
    for given, group in ((members, "members"), (nonmembers, "nonmembers"))
  ]
  check_alike(*sides)
  classifier = find_classifier(predict, sides[0])
  labels = np.concatenate(number_sides(*sides, classifier.num_classes, classes))
  is_bytes = all(side.images.dtype == np.uint8 for side in sides)
  floats = np.concatenate([side.floats for side in sides])
  logits = answers_of(classifier.predict, floats, batch_size, seed)
  _check_logits(logits)
  record = read_record(
    {
      "logits": logits,
      "labels": labels,
      "is_member": np.repeat([True, False], [len(side.labels) for side in sides]),
      "ids": np.array([name for side in sides for name in side.names]),
    }
  )
  # Attacks divide by 255, whatever the images are.
  images = np.concatenate([side.images for side in sides]) if is_bytes else floats * 255
  asked = Asked(_labels_of(classifier.predict, seed), images, num_few, _QUICK)
  audited = audit(record, attacks=attacks, seed=seed, asked=asked)
  write_report(record, audited, folder)
  return audited.results


def as_side(given: Samples, group: str, image_size: int | None) -> Side:
  """The samples of a side, from arrays or from a path."""
  if isinstance(given, str | os.PathLike):
    return read_side(given, group, image_size)
  if not isinstance(given, tuple | list) or len(given) != 2:
    raise TypeError(
      f"{group} are a {type(given).__name__}; expected (images, labels), or a path."
    )
  return of_arrays(group, *given)


def find_classifier(predict: Callable[..., Any] | str | os.PathLike, side: Side) -> Classifier:
  """The classifier of images such as a side's."""
  shape = side.images.shape[1:]
  is_name = isinstance(predict, str | os.PathLike)
  return load_classifier(predict, shape) if is_name else as_classifier(predict, shape)


def answers_of(predict: Predict, images: np.ndarray, batch_size: int, seed: int) -> np.ndarray:
  """The answers f32[N,K] to images f32[N,H,W,C], asked in batches of one size."""
  size, key = even_size(len(images), batch_size), rng.stream(seed, "audit/answers")
  answers = []
  with progress_bar(len(images), "answers", "image") as bar:
    for rows, count in batches(len(images), size):
      logits = ask(predict, jax.random.fold_in(key, int(rows[0])), jnp.asarray(images[rows]))
      answers.append(np.asarray(logits, np.float32)[:count])
      bar.update(count)
  logits = np.concatenate(answers)
  check_largest(logits.max(axis=-1), "answers of the classifier")
  return logits


class _Labels:
  """What label a classifier gives to images f32[n,H,W,C]."""

  def __init__(self, predict, key):
    self._predict, self._key, self.runs_on_host = predict, key, runs_on_host(predict)

  def __call__(self, images):
    return jnp.argmax(ask(self._predict, self._key, images), axis=-1)


def _labels_of(predict, seed):
  return _Labels(predict, rng.stream(seed, "audit/asked"))


def _check_logits(logits):
  apart = np.abs(logits.sum(axis=-1) - 1.0).max()
  if logits.min() >= 0.0 and apart <= _TOLERANCE:
    raise ValueError(
      "The classifier's answers are probabilities: in [0, 1], with a sum of 1 each; expected "
      "logits. Return np.log(probabilities)."
    )
