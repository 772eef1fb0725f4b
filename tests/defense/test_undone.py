"""Policies that can be undone: what comes out is what they say, of the served answer alone."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from diffence_jax.audit.predictors import Predictor, undone
from diffence_jax.defense.blend import fit_constants, fit_temperature
from diffence_jax.defense.mean_kept import mean_kept
from diffence_jax.defense.policy import POLICIES, Record

NUM, CANDIDATES, CLASSES = 400, 5, 4
OPTIONS = {"blend": {"weight": 0.3}}


def record(seed):
  draw = np.random.default_rng(seed)
  labels = draw.integers(0, CLASSES, NUM)
  raw = draw.normal(0, 2, (NUM, CLASSES)) + 4.0 * np.eye(CLASSES)[labels]
  candidates = raw[:, None] + draw.normal(0, 2, (NUM, CANDIDATES, CLASSES))
  return Record(raw.astype(np.float32), candidates.astype(np.float32), labels)


def fitted(choice):
  return POLICIES.call(choice, record(0), record(1))


def blended_backwards(answers, weight):
  """Of a blend's answers f[N,K] the probabilities of the mean that is in them."""
  known = record(1)
  means = mean_kept(jnp.asarray(known.candidates), jnp.asarray(known.raw))
  temperature = fit_temperature(np.asarray(means), known.labels)
  constant = np.exp(fit_constants(known.raw, known.labels).astype(np.float64))
  p = scipy.special.softmax(answers.astype(np.float64), axis=-1)
  calibrated = (p - (1.0 - weight) * constant[p.argmax(axis=-1)]) / weight
  return scipy.special.softmax(np.log(np.maximum(calibrated, 1e-9)) * temperature, axis=-1)


@pytest.mark.parametrize("weight", [0.05, 0.3, 0.9, 1.0])
def test_a_blend_is_undone_by_who_knows_its_constants(weight):
  asked = record(2)
  choice = POLICIES.choose("blend", {"weight": weight})
  other = undone(Predictor("blend", choice))
  assert other.policy == POLICIES.choose("mean_kept", {})
  served, wanted = (
    np.asarray(fitted(each).answer(jnp.asarray(asked.candidates), jnp.asarray(asked.raw)))
    for each in (choice, other.policy)
  )
  mean = scipy.special.softmax(wanted.astype(np.float64), axis=-1)
  np.testing.assert_allclose(blended_backwards(served, weight), mean, atol=1e-4 / weight)
  # The answers themselves are far from that.
  assert np.abs(scipy.special.softmax(served, axis=-1) - mean).max() > 0.02


def test_a_temperature_is_undone_by_a_factor():
  asked = record(2)
  choice = POLICIES.choose("temperature", {})
  assert undone(Predictor("temperature", choice)).policy == POLICIES.choose("undefended", {})
  served = np.asarray(fitted(choice).answer(None, jnp.asarray(asked.raw)))
  factors = (served - served[:, :1])[:, 1:] / (asked.raw - asked.raw[:, :1])[:, 1:]
  np.testing.assert_allclose(factors, np.median(factors), rtol=1e-3)


def test_others_leave_their_own_answers_only():
  assert undone(Predictor("constant", POLICIES.choose("blend", {"weight": 0.0}))) is None
  kept = set(POLICIES.known) - {"blend", "temperature"}
  for name in kept:
    assert undone(Predictor(name, POLICIES.choose(name, OPTIONS.get(name)))) is None
