"""`protect` and `candidate_logits`: labels, independence of batching, errors, compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffence_jax as dj

SCHEDULE = dj.linear_schedule()
WEIGHTS = jax.random.normal(jax.random.key(7), (16, 5))


@jax.jit
def predict(key, images):
  return images.reshape(len(images), -1) @ WEIGHTS


def denoise(x, t):
  """Some network: smooth, and not blind to the step."""
  return 0.1 * x + 0.001 * t[:, None, None, None].astype(jnp.float32)


def images_of(num, seed=0):
  """In NumPy, as JAX compiles each draw and each part of them for each size."""
  return np.random.default_rng(seed).random((num, 4, 4, 1), np.float32)


def candidates_of(images, **changes):
  options = {"num_candidates": 7, "step": 200, **changes}
  return dj.candidate_logits(jax.random.key(1), predict, denoise, SCHEDULE, images, **options)


GAPS = np.array([0.0, 1e-7, 1e-4, 1.0], np.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("interval", [None, (0.0, 0.5), (8.0, 9.0)])
def test_protect_never_changes_a_label(interval, dtype):
  """Also where all classes are within a gap of each other, which the first pixel chooses."""

  @jax.jit
  def close_call(key, images):
    gaps = jnp.asarray(GAPS)[(3.999 * images[:, 0, 0]).astype(jnp.int32)]
    return (1.0 + gaps * predict(key, images)).astype(dtype)

  protected = dj.protect(
    close_call, denoise, SCHEDULE, num_candidates=4, step=300, interval=interval
  )
  for num, seed in ((20, 0), (20, 1), (20, 2), (1, 3)):
    images, key = images_of(num, seed), jax.random.key(seed)
    logits = protected(key, images)
    assert logits.dtype == dtype and logits.shape == (num, 5)
    np.testing.assert_array_equal(
      jnp.argmax(logits, axis=-1), jnp.argmax(close_call(key, images), axis=-1)
    )


def test_images_in_half_precision_are_taken():
  images = images_of(3).astype(jnp.bfloat16)
  protected = dj.protect(predict, denoise, SCHEDULE, num_candidates=2)
  logits = protected(jax.random.key(0), images)
  expected = predict(None, images.astype(jnp.float32))
  np.testing.assert_array_equal(jnp.argmax(logits, -1), jnp.argmax(expected, -1))


@settings(max_examples=6, deadline=None)
@given(chunk_size=st.integers(1, 60))
def test_chunks_do_not_change_candidates(chunk_size):
  images = images_of(5)
  expected = candidates_of(images, chunk_size=1000)
  np.testing.assert_allclose(candidates_of(images, chunk_size=chunk_size), expected, atol=1e-5)


@settings(max_examples=6, deadline=None)
@given(order=st.permutations(range(6)), cut=st.integers(1, 5))
def test_batch_size_and_order_do_not_change_candidates(order, cut):
  images, ids = np.asarray(images_of(6)), np.array([10, 3, 77, 5, 2**31 - 1, 0])
  order = np.array(order)
  expected = np.asarray(candidates_of(images, ids=ids))[order]
  parts = [candidates_of(images[rows], ids=ids[rows]) for rows in (order[:cut], order[cut:])]
  np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)


def test_the_noise_does_not_depend_on_batch_or_chunk_at_all():
  """Through an identity, where nothing can be rounded differently, bit for bit."""
  images, ids = images_of(4), jnp.arange(4) + 50
  flat = lambda key, x: x.reshape(len(x), -1)
  zero = lambda x, t: jnp.zeros_like(x)
  draw = lambda images, ids, chunk_size: dj.candidate_logits(
    jax.random.key(3), flat, zero, SCHEDULE, images, num_candidates=3, ids=ids,
    chunk_size=chunk_size,
  )  # fmt: skip
  whole = draw(images, ids, 100)
  assert len(np.unique(np.asarray(whole).reshape(12, -1), axis=0)) == 12
  np.testing.assert_array_equal(draw(images[2:], ids[2:], 1), whole[2:])


def test_more_candidates_extend_fewer():
  images = images_of(3)
  np.testing.assert_allclose(
    candidates_of(images, num_candidates=9)[:, :4],
    candidates_of(images, num_candidates=4),
    atol=1e-5,
  )


def test_protect_is_candidates_then_selection():
  images, key = images_of(6), jax.random.key(5)
  protected = dj.protect(
    predict, denoise, SCHEDULE, num_candidates=7, step=200, interval=(0.1, 0.4)
  )
  candidates = dj.candidate_logits(
    key, predict, denoise, SCHEDULE, images, num_candidates=7, step=200
  )
  expected = dj.select(candidates, predict(key, images), (0.1, 0.4))
  np.testing.assert_allclose(protected(key, images), expected.logits, atol=1e-5)


def test_protect_stacks_and_compiles_within_a_callers_jit():
  protected = dj.protect(predict, denoise, SCHEDULE, num_candidates=2)
  twice = jax.jit(dj.protect(protected, denoise, SCHEDULE, num_candidates=2))
  images = images_of(3)
  logits = twice(jax.random.key(0), images)
  np.testing.assert_array_equal(jnp.argmax(logits, -1), jnp.argmax(predict(None, images), -1))


def test_one_compilation_a_batch_shape():
  traces = []

  def counted(x, t):
    traces.append(x.shape)
    return denoise(x, t)

  protected = dj.protect(predict, counted, SCHEDULE, num_candidates=3, chunk_size=4)
  for seed in range(3):
    protected(jax.random.key(seed), images_of(5, seed)).block_until_ready()
  once = len(traces)
  assert set(traces) == {(4, 4, 4, 1)} and once >= 1
  protected(jax.random.key(9), images_of(5, 9))
  assert len(traces) == once


@pytest.mark.parametrize(
  "images, error, match",
  [
    (np.zeros((2, 4, 4, 1), np.uint8), TypeError, "Divide 8-bit images by 255"),
    (np.zeros((2, 4, 4, 1), bool), TypeError, "floating point"),
    (np.zeros((4, 4, 1), np.float32), ValueError, r"expected \[N, H, W, C\]"),
    (np.zeros((0, 4, 4, 1), np.float32), ValueError, "at least one image"),
    (np.full((2, 4, 4, 1), np.nan, np.float32), ValueError, "NaN"),
    (np.full((2, 4, 4, 1), 1.01, np.float32), ValueError, "range from 1.01 to 1.01"),
    (np.full((2, 4, 4, 1), -np.inf, np.float32), ValueError, "range from -inf"),
    (np.full((2, 4, 4, 1), 255.0, np.float64), ValueError, r"\[0, 1\]"),
  ],
)
def test_images_that_are_not_right_are_refused(images, error, match):
  protected = dj.protect(predict, denoise, SCHEDULE, num_candidates=2)
  with pytest.raises(error, match=match):
    protected(jax.random.key(0), images)
  with pytest.raises(error, match=match):
    candidates_of(images)


@pytest.mark.parametrize(
  "setting",
  [
    {"num_candidates": 0},
    {"step": 1000},
    {"step": 0},
    {"num_ddim_steps": 161},
    {"chunk_size": 0},
    {"interval": (2.0, 1.0)},
  ],
)
def test_settings_out_of_range_are_refused_at_once(setting):
  with pytest.raises(ValueError, match="expected"):
    dj.protect(predict, denoise, SCHEDULE, **setting)


def test_a_random_predictor_gets_randomness_of_its_own():
  """Neither the noise of the candidates, nor the same for every chunk."""
  seen = []

  def noisy(key, images):
    jax.debug.callback(
      lambda k: seen.append(tuple(np.asarray(k))), jax.random.key_data(key), ordered=True
    )
    return predict(key, images)

  key = jax.random.key(1)
  dj.candidate_logits(
    key, noisy, denoise, SCHEDULE, images_of(4), num_candidates=3, chunk_size=4
  ).block_until_ready()
  jax.effects_barrier()
  assert len(set(seen)) == 3 and tuple(np.asarray(jax.random.key_data(key))) not in seen


def test_ids_that_would_be_cut_to_32_bits_are_refused():
  with pytest.raises(ValueError, match="largest id is 4294967297"):
    candidates_of(images_of(2), ids=np.array([1, 2**32 + 1]))


@pytest.mark.parametrize("ids", [np.zeros(3, np.int32), np.zeros(2, np.float32)])
def test_ids_must_fit_the_images(ids):
  with pytest.raises(ValueError, match=r"expected integers, \[2\]"):
    candidates_of(images_of(2), ids=ids)
