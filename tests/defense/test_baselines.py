"""Temperature, rounding and levels: against NumPy."""

import jax
import numpy as np
import pytest
from defense.test_blend import draw, softmax

from diffence_jax.defense import POLICIES, Record
from diffence_jax.defense.blend import fit_temperature


def answers_of(name, record, raw, **options):
  policy = POLICIES.call(POLICIES.choose(name, options), None, record)
  return np.asarray(policy.answer(None, raw))


def test_temperature_divides_the_logits():
  _, raw, labels = draw(0, num=500)
  found = answers_of("temperature", Record(raw, raw[:, None], labels), raw)
  expected = softmax(raw / fit_temperature(raw, labels))
  np.testing.assert_allclose(softmax(found), expected, atol=1e-5)


@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_rounding_leaves_so_many_decimals(decimals):
  _, raw, _ = draw(1)
  record = Record(raw, raw[:, None], np.zeros(len(raw), int))
  found = answers_of("rounded", record, raw, decimals=decimals)
  labels = np.argmax(raw, axis=-1)
  np.testing.assert_array_equal(np.argmax(found, axis=-1), labels)
  np.testing.assert_array_equal(np.argmax(jax.nn.softmax(found), axis=-1), labels)
  found = np.exp(found)
  p = softmax(raw)
  clear = np.all(np.abs(p * 10**decimals % 1 - 0.5) > 1e-4, axis=-1)
  assert clear.mean() > 0.9
  raw, found, p = raw[clear], found[clear], p[clear]
  expected = np.round(p * 10**decimals)
  label = np.arange(len(raw)), np.argmax(raw, axis=-1)
  expected[label] = np.maximum(expected[label], 1)
  np.testing.assert_allclose(found, expected / 10**decimals, rtol=1e-5)


def test_levels_are_few_equally_common_and_calibrated():
  _, raw, labels = draw(2, num=3000)
  found = softmax(answers_of("levels", Record(raw, raw[:, None], labels), raw, num_levels=3))
  confidence = np.round(found.max(axis=-1), 6)
  values, counts = np.unique(confidence, return_counts=True)
  assert len(values) == 3 and np.all(np.abs(counts - 1000) <= 1)
  is_right = np.argmax(raw, axis=-1) == labels
  for value in values:
    assert value == pytest.approx(is_right[confidence == value].mean(), abs=0.01)
