"""Early exit: what drawing all candidates selects, and what it draws for that."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from defense.test_protect import SCHEDULE, denoise, images_of, predict
from hypothesis import given, settings
from hypothesis import strategies as st

import diffence_jax as dj
from diffence_jax.defense import interval_policy, make_early_selection
from diffence_jax.defense.select import ACCEPTED

# Interval, candidates, chunk size and classes. The phi of two classes is an integer here, and
# exact, so candidates lie on the interval's ends and equally far from its midpoint.
CASES = {
  "scenario 3": (None, 5, 16, 3),
  "exact ties": ((2.0, 4.0), 7, 16, 2),
  "ties around the midpoint": ((2.5, 3.5), 7, 16, 2),
  "a narrow interval": ((0.53, 0.71), 9, 3, 4),
  "nothing inside": ((-9.0, -8.0), 7, 200, 4),
  "one candidate": ((0.5, 2.0), 1, 70, 4),
}
SMALLEST = {3: 1, 16: 1, 70: 1, 200: 3}
NUM = 24
SPECIAL = (np.nan, np.inf, -np.inf)


def table_of(num_classes):
  """Logits f32[512,K] of every kind; the last class wins in few rows, as raw answers may."""
  rng = np.random.default_rng(num_classes)
  table = rng.normal(0.0, 1.5, (512, num_classes))
  if num_classes == 2:
    table = rng.integers(-3, 4, (512, 2)).astype(float)
  table[:450, -1] -= 4.0
  odd = rng.random(table.shape) < 0.05
  table[odd] = rng.choice(SPECIAL, odd.sum())
  table[:8] = np.repeat(np.array([*SPECIAL, 0.0])[:, None], 2, axis=0)
  return table.astype(np.float32)


@functools.cache
def fake(case):
  return fake_of(*CASES[case])


def fake_of(interval, num_candidates, chunk_size, num_classes):
  """A predictor whose logits are an arbitrary function of the noise, and all drawn at once."""
  table = table_of(num_classes)

  def look_up(key, images):
    bits = images.reshape(images.shape[0], -1)[:, :9] > 0.5
    return jnp.asarray(table)[jnp.sum(jnp.where(bits, 2 ** jnp.arange(9)[None], 0), axis=1)]

  nothing = lambda x, t: jnp.zeros_like(x)
  networks = (look_up, nothing, SCHEDULE)
  early = make_early_selection(
    *networks,
    num_candidates=num_candidates,
    policy=interval_policy(interval),
    chunk_size=chunk_size,
    step=160,
  )
  gray = np.full((NUM, 3, 4, 1), 0.5, np.float32)
  draw = jax.jit(
    lambda key, images, ids: dj.candidate_logits(
      key, *networks, images, num_candidates=num_candidates, ids=ids
    )
  )
  return early, lambda key, ids: draw(key, gray, ids), gray, table


def equal_but_nan(one, other):
  np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=20, deadline=None)
@given(
  seed=st.integers(0, 2**31 - 1),
  rows=st.lists(st.integers(0, NUM - 1), min_size=1, max_size=NUM, unique=True),
)
def test_it_selects_what_drawing_all_candidates_selects(case, seed, rows):
  """Any logits, any part of the batch in any order; every image draws no more than it must."""
  interval, num_candidates, chunk_size, _ = CASES[case]
  early, draw_all, gray, table = fake(case)
  random = np.random.default_rng(seed)
  key, ids = jax.random.key(seed), random.permutation(1000)[:NUM]
  # Any raw answer, and for some images one whose label is rare among the candidates.
  raw = table[np.where(random.random(NUM) < 0.7, *random.integers(0, [[512], [8]], (2, NUM)))]
  candidates = draw_all(key, ids)
  expected = interval_policy(interval).select(candidates, jnp.asarray(raw))
  selection = early(key, gray[rows], ids[rows], raw[rows])
  np.testing.assert_array_equal(selection.index, np.asarray(expected.index)[rows])
  equal_but_nan(selection.logits, np.asarray(expected.logits)[rows])

  ranks = np.asarray(interval_policy(interval).ranks(candidates, jnp.asarray(raw)))[rows]
  accepted = ranks[:, :-1] == ACCEPTED
  needed = np.where(accepted.any(axis=1), accepted.argmax(axis=1) + 1, num_candidates)
  drawn, spare = np.asarray(selection.drawn), SMALLEST[chunk_size] - 1
  assert np.all(drawn >= needed)
  assert np.all(drawn <= np.minimum(needed + spare, num_candidates))
  assert drawn.sum() <= selection.evaluations <= drawn.sum() + spare * num_candidates


@settings(max_examples=8, deadline=None)
@given(ends=st.tuples(st.floats(-5, 5), st.floats(-5, 5)).map(sorted), seed=st.integers(0, 99))
def test_it_does_with_any_interval(ends, seed):
  early, draw_all, gray, table = fake_of(tuple(ends), 5, 3, 4)
  key, ids = jax.random.key(seed), np.arange(NUM)
  raw = table[np.random.default_rng(seed).integers(0, 512, NUM)]
  expected = interval_policy(tuple(ends)).select(draw_all(key, ids), jnp.asarray(raw))
  selection = early(key, gray, ids, raw)
  np.testing.assert_array_equal(selection.index, expected.index)
  equal_but_nan(selection.logits, expected.logits)


@pytest.mark.parametrize("interval", [None, (-9.0, -8.0), (20.0, 21.0)])
def test_an_image_whose_label_no_candidate_keeps_gets_its_raw_prediction(interval):
  first = lambda key, images: jnp.stack([images.sum((1, 2, 3)), jnp.zeros(images.shape[0])], 1)
  early = make_early_selection(
    first,
    denoise,
    SCHEDULE,
    num_candidates=4,
    policy=interval_policy(interval),
    step=160,
    chunk_size=8,
  )
  # The raw answers are of class 1, whatever is re-generated of class 0.
  raw = np.tile(np.array([[0.0, 3.0]], np.float32), (5, 1))
  selection = early(jax.random.key(0), np.ones((5, 4, 4, 1), np.float32), np.arange(5), raw)
  np.testing.assert_array_equal(selection.index, 4)
  np.testing.assert_array_equal(selection.drawn, 4)
  np.testing.assert_array_equal(selection.logits, raw)


def protected(**changes):
  options = {"num_candidates": 6, "step": 300, "chunk_size": 16, "constant_time": False}
  return dj.protect(predict, denoise, SCHEDULE, **(options | changes))


@pytest.mark.parametrize(
  "interval, randomness",
  [(None, "per_call"), ((0.2, 0.6), "per_input"), ((30.0, 31.0), "per_call")],
)
def test_protect_answers_the_same_at_any_time(interval, randomness):
  """With networks that look at the images: what is gathered for a round is what is meant."""
  images, key = images_of(37), jax.random.key(3)
  ids = None if randomness == "per_input" else np.arange(37) * 7
  settings = {"interval": interval, "randomness": randomness}
  expected = np.asarray(protected(constant_time=True, **settings)(key, images, ids))
  early = protected(**settings)
  np.testing.assert_allclose(early(key, images, ids), expected, atol=1e-5)
  order = np.random.default_rng(0).permutation(37)[:20]
  answers = early(key, images[order], None if ids is None else ids[order])
  np.testing.assert_allclose(answers, expected[order], atol=1e-5)


def test_it_keeps_the_dtype_of_the_logits():
  half = jax.jit(lambda key, images: predict(key, images).astype(jnp.bfloat16))
  early = dj.protect(half, denoise, SCHEDULE, num_candidates=2, constant_time=False)
  answers, raw = early(jax.random.key(0), images_of(3)), half(None, images_of(3))
  assert answers.dtype == jnp.bfloat16
  np.testing.assert_array_equal(jnp.argmax(answers, axis=-1), jnp.argmax(raw, axis=-1))
  assert jnp.any(answers != raw)


def test_it_cannot_be_jitted_and_says_so():
  early, key, images = protected(), jax.random.key(0), images_of(2)
  for function, arguments in (
    (early, (key, images)),
    (lambda images: early(key, images), (images,)),
    (lambda key: early(key, images), (key,)),
    (lambda: early(key, images), ()),
  ):
    with pytest.raises(TypeError, match="use constant_time=True"):
      jax.jit(function)(*arguments)


@pytest.mark.parametrize("constant_time", [True, False])
def test_batches_of_any_size_share_compiled_programs(constant_time):
  """And their answers do not depend on what the batch is filled up with."""
  traces = []

  def counted(x, t):
    traces.append(x.shape[0])
    return denoise(x, t)

  asked = dj.protect(
    predict,
    counted,
    SCHEDULE,
    num_candidates=3,
    chunk_size=16,
    interval=(0.2, 0.6),
    constant_time=constant_time,
  )
  images, key = images_of(256), jax.random.key(1)
  answers = np.asarray(asked(key, images))
  for num in (1, 3, 5, 37):
    np.testing.assert_allclose(asked(key, images[:num]), answers[:num], atol=1e-5)
  once = len(traces)
  for num in (3, 5, 64, 129, 200):
    np.testing.assert_allclose(asked(key, images[:num]), answers[:num], atol=1e-5)
  assert len(traces) == once
  assert set(traces) <= ({3, 9, 15, 16} if constant_time else {1, 4, 16})
