"""Means of what keeps the label, constants and blends: slow references, labels, fits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import diffence_jax as dj
from diffence_jax.defense import POLICIES, Record, with_label
from diffence_jax.defense.blend import class_accuracy, constants, fit_constants, fit_temperature

softmax = lambda logits: scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)


def draw(seed, num=50, num_candidates=4, num_classes=3, scale=2.0):
  rng = np.random.default_rng(seed)
  raw = rng.normal(0, scale, (num, num_classes)).astype(np.float32)
  shape = (num, num_candidates, num_classes)
  candidates = raw[:, None] + rng.normal(0, 2, shape).astype(np.float32)
  # Labels as the raw prediction says them, so that a temperature has something to fit.
  labels = [rng.choice(num_classes, p=p / p.sum()) for p in softmax(raw / 2)]
  return candidates, raw, np.array(labels)


def slow_mean_kept(candidates, raw):
  answers = []
  for options, own in zip(candidates, raw, strict=True):
    kept = [softmax(option) for option in options if np.argmax(option) == np.argmax(own)]
    answers.append(np.mean(kept, axis=0) if kept else softmax(own))
  return np.array(answers)


def test_the_mean_is_of_the_candidates_that_keep_the_label():
  candidates, raw, _ = draw(0)
  found = dj.mean_kept(candidates, raw)
  np.testing.assert_allclose(softmax(found), slow_mean_kept(candidates, raw), atol=1e-6)
  # Where none does, the raw prediction, as it is.
  lost = np.roll(raw, 1, axis=-1)[:, None].repeat(4, axis=1)
  none = np.argmax(lost[:, 0], axis=-1) != np.argmax(raw, axis=-1)
  np.testing.assert_array_equal(dj.mean_kept(lost, raw)[none], raw[none])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_million_odd_cases_keep_their_labels(dtype):
  """Ties, near-ties, infinities, hundreds of logits apart; means and blends."""
  policies = [POLICIES.call(POLICIES.choose("mean_kept"), None, None)]
  policies += [dj.fit_blend(*draw(1), weight=weight) for weight in (0.0, 0.4, 1.0)]
  answers = jax.jit(lambda c, r: [jnp.argmax(p.answer(c, r), axis=-1) for p in policies])
  rng = np.random.default_rng(0)
  values = np.array([0.0, 1e-7, -1e-7, 1.0, 1.0000001, -3.0, 300.0, -np.inf], np.float32)
  for _ in range(4):
    raw = rng.choice(values[:-1], (250_000, 3))
    odd = np.append(values, [np.nan, np.inf])
    candidates = rng.choice(odd, (250_000, 3, 3)).astype(np.float32)
    raw, candidates = jnp.asarray(raw, dtype), jnp.asarray(candidates, dtype)
    for labels in answers(candidates, raw):
      assert jnp.array_equal(labels, jnp.argmax(raw, axis=-1))


def test_a_label_that_rounding_lost_is_put_on_top():
  raw = np.float32([[0.0, 1.0, 0.0]])
  for given in ([0.0, 0.0, -1.0], [-1.0, -1.0, -1.0], [-np.inf] * 3, [-1e-45, -1e-45, -2.0]):
    found = np.asarray(with_label(jnp.float32([given]), raw))[0]
    assert np.argmax(found) == 1
    np.testing.assert_array_equal(np.delete(found, 1), np.float32(np.delete(given, 1)))
  right = jnp.float32([[0.0, 0.5, -1.0]])
  np.testing.assert_array_equal(with_label(right, raw), right)


def test_a_blend_is_the_weighted_mean_of_its_two_answers():
  candidates, raw, labels = draw(2, num=300)
  means = np.log(slow_mean_kept(candidates, raw))
  temperature = fit_temperature(means, labels)
  table = fit_constants(raw, labels)
  for weight in (0.0, 0.4, 1.0):
    found = softmax(
      dj.fit_blend(candidates, raw, labels, weight=weight).answer(candidates, raw)
    )
    of_label = softmax(table[np.argmax(raw, axis=-1)])
    expected = weight * softmax(means / temperature) + (1 - weight) * of_label
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_temperature_is_the_best_of_a_grid():
  _, raw, labels = draw(3, num=4000)
  found = fit_temperature(raw, labels)
  assert found == pytest.approx(2.0, rel=0.1)  # as the labels were drawn
  grid = np.linspace(0.5, 4, 701)
  nll = [-np.mean(np.log(softmax(raw / t)[np.arange(4000), labels])) for t in grid]
  assert found == pytest.approx(grid[np.argmin(nll)], abs=0.01)


def test_the_constant_tells_the_label_and_its_accuracy_alone():
  _, raw, labels = draw(4, num=2000)
  record = Record(raw, raw[:, None], labels)
  policy = POLICIES.call(POLICIES.choose("constant"), None, record)
  answers = softmax(policy.answer(None, raw))
  predicted = np.argmax(raw, axis=-1)
  assert len(np.unique(answers, axis=0)) == 3
  for label in range(3):
    right = np.mean(labels[predicted == label] == label)
    assert answers[predicted == label][0, label] == pytest.approx(right, abs=0.01)


def test_few_samples_of_a_class_are_drawn_to_all_and_no_label_is_lost():
  accuracy = class_accuracy(np.array([0, 0, 1]), np.array([True, True, False]), 3)
  np.testing.assert_allclose(accuracy, [(2 + 6) / 12, 6 / 11, 0.6])
  table = constants(np.array([0.0, 1.0, 0.5]), 3)
  assert np.all(np.argmax(table, axis=-1) == np.arange(3)) and np.all(np.isfinite(table))
  np.testing.assert_allclose(np.exp(table).sum(axis=-1), 1.0, rtol=1e-6)


def test_a_weight_out_of_its_range_is_refused():
  with pytest.raises(ValueError, match=r"weight is 1\.5"):
    dj.fit_blend(*draw(0), weight=1.5)
  with pytest.raises(ValueError, match=r"policies\.blend\.weight is -1"):
    POLICIES.choose("blend", {"weight": -1.0})


@pytest.mark.parametrize("name", ["blend", "constant", "levels"])
def test_a_policy_of_other_classes_is_refused(name):
  candidates, raw, labels = draw(0, num_classes=4)
  policy = POLICIES.call(POLICIES.choose(name), None, Record(raw, candidates, labels))
  with pytest.raises(ValueError, match="fitted to answers of 4 classes, and asked about"):
    policy.answer(candidates[..., :3], raw[:, :3])


@pytest.mark.parametrize(
  "shape, message",
  [
    ((1, 4, 3), r"float32\[1, 4, 3\] and raw_logits float32\[50, 3\]"),
    ((50, 4, 2), r"expected \[N, M, K\] and \[N, K\]"),
    (None, "candidate_logits are None; expected logits"),
  ],
)
@pytest.mark.parametrize("name", ["average", "majority", "mean_kept", "blend", "scenario_3"])
def test_candidates_are_of_the_raw_predictions(name, shape, message):
  candidates, raw, labels = draw(0)
  record = Record(raw, candidates, labels)
  policy = POLICIES.call(POLICIES.choose(name), record, record)
  others = None if shape is None else np.zeros(shape, np.float32)
  with pytest.raises(ValueError, match=message):
    policy.answer(others, raw)
  if shape:
    with pytest.raises(ValueError, match=message):
      dj.mean_kept(others, raw)


@pytest.mark.parametrize("name", ["blend", "constant", "temperature", "levels"])
@pytest.mark.parametrize(
  "change, message",
  [
    ({"raw": np.full((50, 3), np.nan, np.float32)}, "have NaN, .inf, or are all -inf"),
    ({"labels": np.full(50, 3)}, "labels range from 3 to 3; expected 0 to 2"),
    ({"labels": np.zeros(7, int)}, r"outputs \[50, 3\] and labels \[7\]"),
    ({"labels": np.zeros(50)}, "labels have dtype float64; expected integers"),
  ],
)
def test_what_a_policy_is_fitted_to_is_looked_at(name, change, message):
  candidates, raw, labels = draw(0)
  record = Record(raw, candidates, labels)._replace(**change)
  with pytest.raises(ValueError, match=message):
    POLICIES.call(POLICIES.choose(name), None, record)


@pytest.mark.parametrize("name", ["blend", "constant", "temperature", "levels"])
def test_a_policy_is_fitted_to_at_least_one_sample(name):
  candidates, raw, labels = draw(0)
  record = Record(raw[:0], candidates[:0], labels[:0])
  with pytest.raises(ValueError, match=r"expected .* N >= 1"):
    POLICIES.call(POLICIES.choose(name), None, record)


def test_candidates_without_a_label_have_no_vote():
  raw = np.float32([[0.0, 1.0, 2.0]])
  candidates = np.float32([[[np.nan, 0, 0], [np.nan, 0, 0], [0, 3, 0]]])
  majority = POLICIES.call(POLICIES.choose("majority"), None, None)
  found = softmax(majority.answer(candidates, raw))
  np.testing.assert_allclose(found, softmax(candidates[:, 2]), rtol=1e-5)
  np.testing.assert_array_equal(majority.answer(candidates[:, :2], raw), raw)
