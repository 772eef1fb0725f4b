"""MemGuard: the search in slow NumPy, labels, rows on their own, and what the attacker sees."""

import importlib
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from defense.test_protect import SCHEDULE, denoise, images_of, predict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import diffence_jax as dj
from diffence_jax import metrics
from diffence_jax.defense.memguard import (
  Attacker,
  attacker_logit,
  fit_memguard,
  memguard,
  memguard_logits,
  train_memguard_attacker,
)

# The package has a function of the same name in its place.
module = importlib.import_module("diffence_jax.defense.memguard")


def answers(seed, num, signal, num_classes=10):
  """Logits whose true class is raised by about `signal`."""
  rng = np.random.default_rng(seed)
  logits, labels = rng.normal(0, 1.5, (num, num_classes)), rng.integers(0, num_classes, num)
  logits[np.arange(num), labels] += np.maximum(rng.normal(signal, 3.0, num), 1.0)
  return logits.astype(np.float32)


@pytest.fixture(scope="module")
def params():
  """An attacker that has found a leak: members are surer."""
  return train_memguard_attacker(jax.random.key(0), answers(0, 300, 11), answers(1, 200, 5))


def random_attacker(seed, logits):
  """Large weights and biases, so that every layer counts; a member is every other sample."""
  rng = np.random.default_rng(seed)
  sizes = logits.shape[1], 256, 128, 64, 1
  draw = lambda *shape: jnp.asarray(rng.normal(0, 1.5 / np.sqrt(shape[0]), shape), jnp.float32)
  kernels = tuple(draw(a, b) for a, b in itertools.pairwise(sizes))
  params = Attacker(kernels, tuple(0.1 * draw(size) for size in sizes[1:]))
  last = params.biases[-1] - jnp.median(attacker_logit(params, logits))
  return params._replace(biases=(*params.biases[:-1], last))


def slow_output(params, z):
  """The output and its gradient of one sample, layer by layer in float64."""
  order = np.argsort(z, kind="stable")
  p = scipy.special.softmax(z[order])
  x, masks = p, []
  for kernel, bias in zip(params.kernels[:-1], params.biases[:-1], strict=True):
    x = x @ np.float64(kernel) + np.float64(bias)
    masks.append(x > 0)
    x = np.maximum(x, 0)
  h = float((x @ np.float64(params.kernels[-1]) + np.float64(params.biases[-1]))[0])
  back = np.float64(params.kernels[-1])[:, 0]
  for kernel, mask in zip(params.kernels[-2::-1], masks[::-1], strict=True):
    back = np.float64(kernel) @ (back * mask)
  gradient = np.empty_like(z)
  gradient[order] = p * (back - p @ back)
  return h, gradient


def slow_memguard(params, z0, max_iterations, step_size=0.1, c1=1.0, c2=10.0):
  """The search for one sample, loop in loop: its result, and how many c3 have succeeded."""
  z0 = np.float64(z0)
  label, s, h0 = np.argmax(z0), scipy.special.softmax(z0), slow_output(params, z0)[0]
  others = np.arange(len(z0)) != label
  if abs(scipy.special.expit(h0) - 0.5) <= 1e-5:
    return z0, 0
  result, succeeded = z0, 0
  for c3 in (0.1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5):
    z = z0.copy()
    for _ in range(max_iterations):
      h, gradient = slow_output(params, z)
      gradient *= c1 * np.sign(h)
      rival = np.flatnonzero(others)[np.argmax(z[others])]
      if z[rival] > z[label]:
        gradient[rival] += c2
        gradient[label] -= c2
      p = scipy.special.softmax(z)
      sign = np.sign(p - s)
      gradient += c3 * p * (sign - p @ sign)
      if not np.any(gradient):
        break
      z = z - step_size * gradient / np.linalg.norm(gradient)
      h = slow_output(params, z)[0]
      if np.argmax(z) == label and h * h0 <= 0:
        result, succeeded = z, succeeded + 1
        break
    else:
      break
    if h * h0 > 0:
      break
  nearer = abs(slow_output(params, result)[0]) < abs(h0)
  return (result if nearer else z0), succeeded


def test_the_attacker_is_the_papers():
  num_classes = 7
  z = answers(3, 9, 3.0, num_classes)
  given_params = random_attacker(0, z)
  expected = [slow_output(given_params, np.float64(row))[0] for row in z]
  np.testing.assert_allclose(attacker_logit(given_params, z), expected, rtol=1e-3, atol=1e-3)
  # Which class has which probability is not seen.
  shuffled = z[:, np.random.default_rng(0).permutation(num_classes)]
  np.testing.assert_allclose(attacker_logit(given_params, shuffled), expected, atol=1e-3)
  trained = train_memguard_attacker(jax.random.key(0), z, z, epochs=1)
  sizes = [(num_classes, 256), (256, 128), (128, 64), (64, 1)]
  assert [kernel.shape for kernel in trained.kernels] == sizes
  assert [bias.shape for bias in trained.biases] == [(b,) for _, b in sizes]


@pytest.mark.parametrize(
  ("attacker", "max_iterations", "settings", "levels"),
  [
    ("trained", 300, {}, {2, 3, 7}),
    ("trained", 12, {}, {0, 2, 7}),
    ("random", 40, {"step_size": 0.2, "c1": 2.0, "c2": 0.5}, {0, 1, 2, 7}),
  ],
)
def test_the_search_is_the_published_one(params, attacker, max_iterations, settings, levels):
  if attacker == "trained":
    z = np.concatenate([answers(5, 9, 11), answers(6, 9, 5)])
  else:
    z = answers(5, 18, 0.0, 4)
    params = random_attacker(1, z)
  found = memguard_logits(params, z, max_iterations=max_iterations, **settings)
  slow = [slow_memguard(params, row, max_iterations, **settings) for row in z]
  expected, succeeded = zip(*slow, strict=True)
  # It takes samples that fail at the first c3, at a later one, and at none.
  assert levels <= set(succeeded)
  off = np.abs(found - np.stack(expected)).max(axis=1)
  # A large c3 sends the steps to and fro about z0, and which way may hang on the last digit: a
  # relative change of 3e-8 of the reference's own probabilities moves these rows as far.
  assert np.mean(off < 2e-3) > 0.8 and off.max() < 0.1
  assert np.all(found[np.array(succeeded) == 0] == z[np.array(succeeded) == 0])


def test_the_output_crosses_one_half_and_the_attacker_loses(params):
  z = np.concatenate([answers(2, 300, 11), answers(3, 300, 5)])
  moved = memguard_logits(params, z)
  before, after = (np.asarray(attacker_logit(params, array)) for array in (z, moved))
  crossed = (before > 0) != (after > 0)
  # All but those that are so near that a step leads further away.
  assert np.mean(crossed) > 0.97
  assert np.all(np.abs(before[~crossed]) < 0.3)
  assert np.all(np.abs(after) <= np.abs(before))
  from_half = [np.abs(scipy.special.expit(h) - 0.5) for h in (before, after)]
  assert np.median(from_half[0]) > 0.15 and from_half[1].max() < 0.1
  assert np.median(from_half[1]) < 0.02
  np.testing.assert_array_equal(np.argmax(moved, axis=1), np.argmax(z, axis=1))
  auc_before, auc_after = (metrics.roc(h[:300], h[300:]).auc for h in (before, after))
  assert auc_before > 0.8
  assert auc_after < 0.5
  # At its threshold the attacker was right, and is now wrong as often.
  right = np.mean([np.mean(before[:300] > 0), np.mean(before[300:] < 0)])
  wrong = np.mean([np.mean(after[:300] < 0), np.mean(after[300:] > 0)])
  assert right > 0.75 and abs(right - wrong) < 0.03


def test_very_sure_answers_are_moved_too(params):
  """Their gradient's squares are below the smallest float32."""
  z = np.zeros((3, 10), np.float32)
  z[np.arange(3), [2, 5, 9]] = 50.0, 55.0, 60.0
  moved = memguard_logits(params, z, step_size=1.0)
  h = np.asarray(attacker_logit(params, z)), np.asarray(attacker_logit(params, moved))
  assert np.all(h[0] > 0.5) and np.all(h[1] < 0)
  np.testing.assert_array_equal(np.argmax(moved, axis=1), [2, 5, 9])


# Whole numbers make ties, the others everything else.
NUMBERS = st.one_of(
  st.integers(-3, 3).map(float),
  st.floats(-20, 20, width=32),
  st.floats(width=32),
)


@settings(max_examples=25, deadline=None)
@given(z=hnp.arrays(np.float32, (8, 10), elements=NUMBERS), seed=st.integers(0, 3))
def test_labels_never_change(params, z, seed):
  given_params = params if seed == 0 else random_attacker(seed, answers(5, 18, 0.0))
  moved = np.asarray(memguard_logits(given_params, z, max_iterations=20, chunk_size=16))
  np.testing.assert_array_equal(np.argmax(moved, axis=1), np.argmax(z, axis=1))
  ordered = np.sort(z, axis=1)
  odd = ~np.isfinite(z).all(axis=1) | (ordered[:, -1] == ordered[:, -2])
  np.testing.assert_array_equal(moved[odd], z[odd])
  assert np.isfinite(moved[~odd]).all()
  # What was moved has one largest logit: no rounding later on can make it a tie.
  ordered = np.sort(moved[~odd], axis=1)
  assert np.all(ordered[:, -1] > ordered[:, -2])


def test_a_step_across_one_half_that_loses_the_label_is_none():
  z = answers(5, 200, 0.0, 4)
  rows, order = np.arange(200), np.argsort(z, axis=1)
  z[rows, order[:, -2]] = z[rows, order[:, -1]] - 0.05
  attacker = random_attacker(1, z)
  # No weight on the label, and steps that go far beyond a tie.
  moved = memguard_logits(attacker, z, step_size=1.0, c2=0.0, max_iterations=20, chunk_size=16)
  np.testing.assert_array_equal(np.argmax(moved, axis=1), order[:, -1])
  assert np.mean(np.any(moved != z, axis=1)) > 0.2


def test_max_iterations_is_the_number_of_steps(params):
  z = answers(6, 6, 5)
  # The first few steps are the same however many may follow.
  moved = [
    np.any(memguard_logits(params, z, max_iterations=m, chunk_size=16) != z, axis=1)
    for m in range(1, 41)
  ]
  needed = 1 + np.argmax(moved, axis=0)
  assert np.all(moved[-1]) and len(set(needed)) > 3
  for row, steps in zip(z, needed, strict=True):
    assert slow_memguard(params, row, steps)[1] > 0
    assert slow_memguard(params, row, steps - 1)[1] == 0


@pytest.fixture
def usual_programs(monkeypatch):
  """The search as it is compiled outside of tests; `conftest.py` saves time at its rounding."""
  if "xla_cpu_use_fusion_emitters=false" not in os.environ.get("XLA_FLAGS", ""):
    return
  usual = {"xla_cpu_use_fusion_emitters": True}
  search = jax.jit(module.search.__wrapped__, static_argnames="lanes", compiler_options=usual)
  monkeypatch.setattr(module, "search", search)


@pytest.mark.usefixtures("usual_programs")
def test_rows_do_not_depend_on_each_other(params):
  z = np.concatenate([answers(2, 20, 11), answers(3, 20, 5)])
  z[3], z[4, 2] = 0.0, np.nan
  alone = memguard_logits(params, z, chunk_size=16)
  assert np.mean(np.any(alone != z, axis=1)) > 0.9
  order = np.random.default_rng(0).permutation(40)
  np.testing.assert_array_equal(memguard_logits(params, z[order], chunk_size=16), alone[order])
  np.testing.assert_array_equal(memguard_logits(params, z[5:8], chunk_size=16), alone[5:8])
  for chunk_size in (1, 100):
    others = memguard_logits(params, z, chunk_size=chunk_size)
    # Other shapes, other rounding.
    np.testing.assert_allclose(others, alone, rtol=1e-3, atol=5e-3)


def test_more_samples_than_the_queue_holds(params, monkeypatch):
  z = answers(2, 37, 8)
  expected = memguard_logits(params, z, chunk_size=16)
  monkeypatch.setattr(module, "_QUEUE", 16)
  np.testing.assert_allclose(memguard_logits(params, z, chunk_size=16), expected, atol=5e-3)
  assert memguard_logits(params, z[:0]).shape == (0, 10)


def test_one_compilation_serves_every_number_of_samples_and_every_setting(params):
  memguard_logits(params, answers(0, 5, 8), max_iterations=5, chunk_size=16)
  compiled = module.search._cache_size()
  for num in (1, 16, 40):
    memguard_logits(params, answers(0, num, 8), max_iterations=num, c2=5.0, chunk_size=16)
  assert module.search._cache_size() == compiled


def test_an_output_of_one_half_is_left_alone(params):
  flat = params._replace(
    kernels=(*params.kernels[:-1], jnp.zeros((64, 1))),
    biases=tuple(map(jnp.zeros_like, params.biases)),
  )
  z = answers(0, 6, 8)
  np.testing.assert_array_equal(memguard_logits(flat, z, chunk_size=16), z)


def test_training_finds_a_leak_and_only_a_leak(params):
  score = lambda attacker, *sides: metrics.roc(*(attacker_logit(attacker, z) for z in sides))
  assert score(params, answers(10, 500, 11), answers(11, 500, 5)).auc > 0.8
  none = train_memguard_attacker(
    jax.random.key(0), answers(0, 200, 8), answers(1, 200, 8), epochs=100
  )
  # Under no leak the AUC's variance is (m + n + 1) / (12 m n): false alarms once in 1,000.
  margin = 3.3 * np.sqrt((500 + 500 + 1) / (12 * 500 * 500))
  assert abs(score(none, answers(10, 500, 8), answers(11, 500, 8)).auc - 0.5) < margin


def test_unequal_numbers_do_not_shift_the_output():
  """With ten members to a non-member and no leak, counting would put it at 10 / 11."""
  sides = answers(0, 400, 8), answers(1, 40, 8)
  attacker = train_memguard_attacker(jax.random.key(0), *sides, epochs=30)
  outputs = scipy.special.expit(np.asarray(attacker_logit(attacker, answers(2, 500, 8))))
  assert abs(np.mean(outputs) - 0.5) < 0.1


def test_all_follows_from_the_key():
  sides = answers(0, 30, 11), answers(1, 20, 5)
  train = lambda key: train_memguard_attacker(jax.random.key(key), *sides, epochs=2)
  first, again, other = train(1), train(1), train(2)
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert not np.array_equal(first.kernels[0], other.kernels[0])


def test_a_guarded_predictor_is_one_with_the_same_labels():
  images, num = images_of(7), 7
  raw = predict(None, images)
  attacker = random_attacker(0, raw)
  guarded = memguard(predict, attacker, chunk_size=16, max_iterations=50)
  answer = guarded(None, images)
  assert answer.shape == raw.shape and answer.dtype == jnp.float32
  assert np.any(np.any(answer != raw, axis=1))
  np.testing.assert_array_equal(np.argmax(answer, axis=1), np.argmax(raw, axis=1))
  np.testing.assert_allclose(jax.jit(guarded)(None, images), answer, rtol=1e-3, atol=5e-3)
  # After Diffence: the same as its answers, guarded.
  protected = dj.protect(predict, denoise, SCHEDULE, num_candidates=3, step=300)
  stacked = memguard(protected, attacker, chunk_size=16, max_iterations=50)
  key, ids = jax.random.key(0), jnp.arange(num) + 5
  for options in ({}, {"ids": ids}):
    expected = memguard_logits(
      attacker, protected(key, images, **options), chunk_size=16, max_iterations=50
    )
    np.testing.assert_array_equal(stacked(key, images, **options), expected)
  labels = np.argmax(stacked(key, images), axis=1)
  np.testing.assert_array_equal(labels, np.argmax(raw, axis=1))


def test_fitting_trains_and_defends():
  sides, z = (answers(0, 60, 11), answers(1, 40, 5)), answers(2, 20, 9)
  search = {"max_iterations": 100, "chunk_size": 16}
  finish = fit_memguard(jax.random.key(3), *sides, epochs=200, **search)
  found = finish(z)
  assert isinstance(found, np.ndarray) and found.dtype == np.float32
  attacker = train_memguard_attacker(jax.random.key(3), *sides, epochs=200)
  np.testing.assert_array_equal(found, memguard_logits(attacker, z, **search))
  assert np.mean(np.any(found != z, axis=1)) > 0.5
  # Options of training and of the search arrive.
  for changed in ({"learning_rate": 0.1}, {"c1": 9.0}):
    other = fit_memguard(jax.random.key(3), *sides, **{"epochs": 200, **search, **changed})
    assert np.any(other(z) != found), changed


def test_mistakes_are_refused(params):
  key, z = jax.random.key(0), answers(0, 4, 8)
  for bad in (z[0], z[:, :1], z[None], z[:, :9]):
    with pytest.raises(ValueError, match="logits have"):
      memguard_logits(params, bad)
  with pytest.raises(ValueError, match="logits have 9 classes; expected 10"):
    attacker_logit(params, z[:, :9])
  with pytest.raises(ValueError, match="logits have 9 classes; expected 10"):
    train_memguard_attacker(key, z, z[:, :9])
  with pytest.raises(ValueError, match="A side has no samples"):
    train_memguard_attacker(key, z, z[:0])
  with pytest.raises(ValueError, match="largest logit is not finite"):
    train_memguard_attacker(key, z, z + np.nan)
  for wrong in ({"epochs": 0}, {"batch_size": 1}, {"learning_rate": 0.0}):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; expected a"):
      train_memguard_attacker(key, z, z, **wrong)
  for wrong in (
    {"step_size": 0.0},
    {"c1": -1.0},
    {"c2": np.nan},
    {"max_iterations": 0},
    {"chunk_size": "many"},
  ):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; expected a"):
      memguard(predict, params, **wrong)
  for wrap in (
    lambda **o: memguard(predict, params, **o),
    lambda **o: fit_memguard(key, z, z, **o),
  ):
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
      wrap(steps=3)
