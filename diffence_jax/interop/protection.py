"""A classifier and a diffusion model, put together and fitted on known images."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import rng
from diffence_jax.batching import even_size, in_batches
from diffence_jax.data.sides import Side, check_alike, number_sides
from diffence_jax.defense import candidate_logits, protect
from diffence_jax.defense.policy import POLICIES, Policy, Record
from diffence_jax.defense.protect import ProtectedPredict
from diffence_jax.diffusion import (
  Schedule,
  denoiser_beside,
  linear_schedule,
  make_schedule,
)
from diffence_jax.diffusion.prediction import noise_network
from diffence_jax.interop.classifier import Classifier
from diffence_jax.models.saved import load_model, read_manifest
from diffence_jax.predictor import Denoise, Predict, ask

# Known images whose answers are looked at in the end, at most.
_CHECKED = 256
_BATCH = 64


class Protection(NamedTuple):
  """A protected classifier, and what it does to known images.

  Attributes:
    protected: the predictor.
    policy: what it answers, fitted.
    num_checked: known images that both were asked about.
    label_changes: of these, answers whose label is not the classifier's own.
    seconds: that a protected answer takes on this machine, an image.
  """

  protected: ProtectedPredict
  policy: Policy
  num_checked: int
  label_changes: int
  seconds: float


class _NotGiven:
  """Stands for the answers to a side that nobody knows."""

  def __init__(self, side):
    self._side = side

  def __getattr__(self, name):
    raise ValueError(f"The policy is fitted on known {self._side}, of which none are given.")


def fit_protection(
  classifier: Classifier,
  diffusion: str | os.PathLike,
  members: Side | None,
  nonmembers: Side | None,
  *,
  classes: Sequence[str] | None = None,
  policy: str = "scenario_3",
  options: Mapping[str, Any] | None = None,
  num_candidates: int = 30,
  step: int = 160,
  chunk_size: int | None = None,
  seed: int = 0,
) -> Protection:
  """Protects a classifier, with what is known of whom it was trained on.

  Args:
    classifier: as `load_classifier` loads it.
    diffusion: the folder of a saved denoiser.
    members: known members; None where nobody knows any.
    nonmembers: known non-members; one of both is to be given.
    classes: names of the classifier's classes in the order of its outputs; None for those of
      the images, sorted.
    policy: a name of `POLICIES`, or "module:function" of one's own.
    options: the policy's, by name.
    num_candidates: as `protect` takes it; and so the next two.
    step: diffusion steps of noise.
    chunk_size: re-generations at a time.
    seed: of the noise of the candidates that the policy is fitted on.

  Raises:
    FileNotFoundError: there is no such saved model.
    ValueError: something does not fit, or the policy needs a side that is not given.
  """
  sides = {"members": members, "non-members": nonmembers}
  given = {name: side for name, side in sides.items() if side is not None}
  image_shape = shape_of(members, nonmembers)
  choice = POLICIES.choose(policy, options)
  predict, (first, *second) = classifier.predict, given.values()
  denoise, schedule = load_denoiser(diffusion, predict, image_shape)
  labels = number_sides(first, *(second or [None]), classifier.num_classes, classes)
  settings = {"num_candidates": num_candidates, "step": step, "chunk_size": chunk_size}
  records = {name: _NotGiven(name) for name in sides}
  for (name, side), numbers in zip(given.items(), labels, strict=True):
    key = rng.stream(seed, f"protect/{name}")
    records[name] = _record(key, predict, denoise, schedule, side, numbers, settings)
  fitted = POLICIES.call(choice, *records.values())
  protected = protect(predict, denoise, schedule, policy=fitted, **settings)
  images = np.concatenate([side.floats for side in given.values()])
  images = jnp.asarray(images[:: -(-len(images) // _CHECKED)])
  protected(rng.stream(seed, "protect/first"), images)  # compiles
  start = time.perf_counter()
  answers = np.asarray(protected(rng.stream(seed, "protect/check"), images))
  seconds = (time.perf_counter() - start) / len(images)
  alone = np.asarray(ask(predict, rng.stream(seed, "protect/alone"), images))
  changes = int(np.sum(answers.argmax(axis=1) != alone.argmax(axis=1)))
  return Protection(protected, fitted, len(images), changes, seconds)


def shape_of(members: Side | None, nonmembers: Side | None) -> tuple[int, int, int]:
  """(H,W,C) of the known images; ValueError where there are none, or the sides do not fit."""
  if members is None and nonmembers is None:
    raise ValueError(
      "There are no known images; give --members, --nonmembers, or both (members, nonmembers)."
    )
  if members is not None and nonmembers is not None:
    check_alike(members, nonmembers)
  return (nonmembers if members is None else members).images.shape[1:]


def load_denoiser(
  path: str | os.PathLike, predict: Predict, image_shape: tuple[int, int, int]
) -> tuple[Denoise, Schedule]:
  """A saved diffusion model beside a classifier, and its noise schedule.

  Args:
    path: the folder of the saved denoiser.
    predict: the classifier, which a class-conditional one asks for the label.
    image_shape: (H,W,C).

  Raises:
    FileNotFoundError: there is no such saved model.
    ValueError: it is damaged, no denoiser, or for images of other channels.
  """
  manifest = read_manifest(path)
  if manifest.role != "denoiser":
    raise ValueError(f"{path} is the {manifest.role} {manifest.name}; expected a denoiser.")
  if manifest.image_channels != image_shape[-1]:
    raise ValueError(
      f"The diffusion model {path} is for images of {manifest.image_channels} channels, and "
      f"these have {image_shape[-1]}."
    )
  module, variables = load_model(path, predicts=manifest.predicts)
  denoise = denoiser_beside(noise_network(module, manifest), variables, predict)
  schedule = manifest.schedule
  return denoise, linear_schedule() if schedule is None else make_schedule(**schedule)


def _record(key, predict, denoise, schedule, side, labels, settings) -> Record:
  images, num = side.floats, len(labels)

  def candidates(rows):
    of_rows, ids = jnp.asarray(images[rows]), jnp.asarray(rows, jnp.int32)
    return candidate_logits(key, predict, denoise, schedule, of_rows, ids=ids, **settings)

  raw = lambda rows: ask(predict, jax.random.fold_in(key, 1), jnp.asarray(images[rows]))
  size = even_size(num, _BATCH)
  return Record(in_batches(raw, num, size), in_batches(candidates, num, size), labels)
