"""What any engineer would try first: answers made of the raw prediction, without candidates."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffence_jax.checks import check_whole
from diffence_jax.defense.blend import (
  class_accuracy,
  constants,
  fit_temperature,
  of_label,
  of_raw,
)
from diffence_jax.defense.policy import UNDEFENDED, AggregatePolicy, Record
from diffence_jax.defense.select import scaled_logit
from diffence_jax.metrics.predictions import check_predictions

_MOST_LEVELS = 100


def temperature(members: Record, nonmembers: Record) -> AggregatePolicy:
  """The raw prediction at the temperature that fits known non-members (Guo et al. 2017)."""
  del members
  fitted = fit_temperature(nonmembers.raw, nonmembers.labels)
  return of_raw(Partial(_cooled, jnp.float32(fitted)))


temperature.undone = lambda: (UNDEFENDED, {})


def rounded(members: Record, nonmembers: Record, *, decimals: int = 1) -> AggregatePolicy:
  """The raw prediction's probabilities, rounded to so many `decimals`, 0 to 6.

  The label's is at least one unit.
  """
  del members, nonmembers
  _check_rounded(decimals=decimals)
  return of_raw(Partial(_rounded, jnp.float32(10.0**decimals)))


def levels(members: Record, nonmembers: Record, *, num_levels: int = 2) -> AggregatePolicy:
  """The label with one of `num_levels` confidences, 1 to 100.

  Levels are equally common among known non-members; the confidence of one is the accuracy in
  it.
  """
  del members
  _check_levels(num_levels=num_levels)
  check_predictions(nonmembers.raw, nonmembers.labels)
  phi = np.asarray(scaled_logit(nonmembers.raw), np.float64)
  edges = np.quantile(phi, np.arange(1, num_levels) / num_levels).astype(np.float32)
  is_right = np.argmax(nonmembers.raw, axis=-1) == nonmembers.labels
  accuracy = class_accuracy(np.searchsorted(edges, phi, "right"), is_right, num_levels)
  table = constants(accuracy[:, None], nonmembers.raw.shape[-1])
  return of_raw(Partial(_leveled, jnp.asarray(edges), jnp.asarray(table)))


def _check_rounded(*, decimals: int) -> None:
  check_whole("decimals", decimals, 0, 6)


def _check_levels(*, num_levels: int) -> None:
  check_whole("num_levels", num_levels, 1, _MOST_LEVELS)


rounded.check_options = _check_rounded
levels.check_options = _check_levels


def _cooled(fitted, logits):
  return jax.nn.log_softmax(logits, axis=-1) / fitted


def _rounded(units, logits):
  counts = jnp.round(jax.nn.softmax(logits, axis=-1) * units)
  is_label = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
  return jnp.log(jnp.where(is_label, jnp.maximum(counts, 1.0), counts) / units)


def _leveled(edges, table, logits):
  level = jnp.searchsorted(edges, scaled_logit(logits), side="right")
  rows = of_label(table, logits)
  return jnp.take_along_axis(rows, level[:, None, None], axis=1)[:, 0]
