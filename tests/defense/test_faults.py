"""Bad networks and arguments of `protect` and its parts: refused, and named as given."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from defense.test_protect import SCHEDULE, denoise, images_of, predict

import diffence_jax as dj
from diffence_jax.attacks import correctness

KEY = jax.random.key(1)
ODD = (np.nan, np.inf, -np.inf)


def answer(
  predict=predict, denoise=denoise, schedule=SCHEDULE, images=None, key=KEY, **options
):
  protected = dj.protect(predict, denoise, schedule, **{"num_candidates": 2, **options})
  return protected(key, images_of(3) if images is None else images)


def constant(value):
  return lambda x, t: jnp.full_like(x, value)


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("options", [{}, {"clip": True}, {"constant_time": False}], ids=str)
def test_a_denoiser_that_gives_no_numbers_is_refused(value, options):
  """Also one behind a predictor that makes labels of anything."""
  one_hot = jax.jit(lambda key, x: jax.nn.one_hot(jnp.argmax(predict(key, x), axis=-1), 5))
  for own in (predict, one_hot):
    with pytest.raises(FloatingPointError, match="denoise or predict gave NaN or inf"):
      answer(own, constant(value), **options)
  with pytest.raises(FloatingPointError, match="6 of 6"):
    dj.candidate_logits(KEY, predict, constant(value), SCHEDULE, images_of(3), num_candidates=2)


@pytest.mark.parametrize("value", ODD)
def test_under_jit_the_answer_is_nan_and_never_the_raw_one(value):
  """Only where something is wrong: one image of the three."""

  def sometimes(x, t):
    is_odd = jnp.mean(x, axis=(1, 2, 3), keepdims=True) > 0.9
    return jnp.where(is_odd, value, denoise(x, t))

  images = jnp.asarray(images_of(3)).at[1].set(1.0)
  protected = dj.protect(predict, sometimes, SCHEDULE, num_candidates=2, step=10)
  logits = np.asarray(jax.jit(protected)(KEY, images))
  assert np.isnan(logits[1]).all() and np.isfinite(logits[[0, 2]]).all()
  with pytest.raises(FloatingPointError, match="1 of 3"):
    protected(KEY, images)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_raw_predictions_that_are_no_numbers_are_refused(value):
  odd = lambda key, images: predict(key, images).at[0, 1].set(value)
  for policy in ("undefended", "scenario_3", "average"):
    fitted = dj.defense.POLICIES.find(policy)(None, None)
    with pytest.raises(ValueError, match="1 of 3 predict's answers have NaN"):
      answer(odd, policy=fitted)
    protected = dj.protect(odd, denoise, SCHEDULE, num_candidates=2, policy=fitted)
    logits = np.asarray(jax.jit(protected)(KEY, images_of(3)))
    assert np.isnan(logits[0]).all()


def test_classes_of_probability_zero_are_answered():
  top_2 = lambda key, images: jnp.where(
    jnp.argsort(jnp.argsort(predict(key, images))) < 3, -jnp.inf, predict(key, images)
  )
  logits = answer(top_2)
  assert not np.isnan(logits).any()
  np.testing.assert_array_equal(
    jnp.argmax(logits, -1), jnp.argmax(predict(None, images_of(3)), -1)
  )


def test_how_often_the_raw_prediction_is_returned_can_be_seen():
  images = images_of(8)
  raw = predict(None, images)
  protected = dj.protect(predict, denoise, SCHEDULE, num_candidates=2, step=900)
  logits, is_raw = protected.with_is_raw(KEY, images)
  np.testing.assert_array_equal(logits, protected(KEY, images))
  candidates = dj.candidate_logits(
    KEY, predict, denoise, SCHEDULE, images, num_candidates=2, step=900
  )
  np.testing.assert_array_equal(is_raw, dj.select(candidates, raw).index == 2)
  assert 0 < np.mean(is_raw) < 1


ONE_COLUMN = np.zeros((3, 1), np.float32)


@pytest.mark.parametrize(
  "use",
  [
    lambda: answer(lambda key, images: predict(key, images)[:, :1]),
    lambda: dj.select(ONE_COLUMN[:, None], ONE_COLUMN),
    lambda: dj.average(ONE_COLUMN[:, None]),
    lambda: dj.scaled_logit(ONE_COLUMN),
    lambda: dj.fit_interval(*[ONE_COLUMN[:, None], ONE_COLUMN] * 2),
    lambda: dj.defense.train_memguard_attacker(KEY, ONE_COLUMN, ONE_COLUMN),
  ],
)
def test_one_column_is_refused_with_the_way_to_make_two(use):
  with pytest.raises(ValueError, match="Make two columns of a sigmoid's z"):
    use()


TYPES = [
  *(
    ({"num_candidates": value}, "num_candidates is") for value in (2.5, None, "3", np.nan, True)
  ),
  *(({"step": value}, "step is") for value in (10.5, None, "x")),
  ({"chunk_size": "x"}, "chunk_size is 'x'"),
  ({"clip": "yes"}, "clip is 'yes'; expected True or False"),
  ({"to_clean": 1}, "to_clean is 1; expected True or False"),
  ({"clipp": True}, "There is no setting 'clipp'; did you mean 'clip'"),
  ({"model_shape": 3}, "model_shape is 3"),
  ({"model_shape": (4, 4.5, 1)}, "model_shape[1] is 4.5; expected a whole number"),
  *(({"interval": value}, "interval is") for value in (3, "12", (1, 2, 3), (None, 1.0))),
  ({"constant_time": "no"}, "constant_time is 'no'"),
  ({"mesh": 3}, "mesh is a int"),
  ({"schedule": None}, "schedule is a NoneType"),
  ({"schedule": dj.Schedule(jnp.ones(3), jnp.ones(2))}, "schedule has alpha_bar [3]"),
  ({"predict": 3}, "predict is a int; expected a function of (key, images)"),
  (
    {"predict": lambda images: 0},
    "predict takes (images); expected a function of (key, images)",
  ),
  ({"denoise": lambda x: x}, "denoise takes (x); expected a function of (x, t)"),
]


@pytest.mark.parametrize("options, message", TYPES)
def test_wrong_types_are_refused_before_anything_is_asked(options, message):
  given = {"predict": predict, "denoise": denoise, "schedule": SCHEDULE, **options}
  with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
    dj.protect(**given)


CALLS = [
  *(({"key": key}, "key is") for key in (7, "secret")),
  ({"key": jax.random.split(KEY, 3)}, "key has shape (3,); expected one"),
  ({"images": "cat"}, "images are a str"),
  ({"images": jnp.ones((2, 5, 5, 1))}, "predict cannot answer images of shape [2, 5, 5, 1]"),
  (
    {"images": np.float32([1.0000001, *15 * [0]]).reshape(1, 4, 4, 1)},
    "to 1.0000001; expected",
  ),
  ({"predict": lambda key, x: (predict(key, x), 0)}, "predict's answers are a tuple"),
  ({"predict": lambda key, x: (predict(key, x),) * 2}, "predict's answers are a tuple"),
  ({"predict": lambda key, x: jnp.argmax(predict(key, x), -1)}, "not labels"),
  ({"predict": lambda key, x: predict(key, x)[0]}, "have shape [5]; expected [N, K]"),
  ({"predict": lambda key, x: predict(key, x)[:1]}, "expected a row for every image"),
  ({"predict": lambda key, x: np.asarray(x).reshape(len(x), -1)}, "what JAX can trace"),
  ({"predict": denoise, "denoise": predict}, "not swapped"),
  ({"denoise": lambda x, t: (x, t)}, "denoise's answers are a tuple"),
  ({"denoise": lambda x, t: None}, "denoise's answers are a NoneType"),
  ({"denoise": lambda x, t: x[:, :2]}, "The network turns images"),
]


@pytest.mark.parametrize("constant_time", [True, False])
@pytest.mark.parametrize("options, message", CALLS)
def test_what_a_call_is_given_is_refused_by_name(options, message, constant_time):
  with pytest.raises((TypeError, ValueError), match=re.escape(message)):
    answer(**options, constant_time=constant_time)


def test_a_call_needs_a_key_and_images():
  protected = dj.protect(predict, denoise, SCHEDULE, num_candidates=2)
  with pytest.raises(TypeError, match="key is None; expected a JAX random key"):
    protected(None, images_of(2))
  with pytest.raises(TypeError, match="images are a NoneType"):
    protected(KEY, None)
  with pytest.raises(TypeError, match="ids are a str"):
    protected(KEY, images_of(2), "x")


def test_images_of_another_byte_order_are_images():
  images = images_of(3)
  np.testing.assert_array_equal(answer(images=np.asarray(images).astype(">f4")), answer())


@pytest.mark.parametrize(
  "labels, message",
  [
    (np.full(3, 5), "labels range from 5 to 5; expected 0 to 4"),
    (np.full(3, -1), "labels range from -1"),
    (np.zeros(3), "labels have dtype float32"),
    (np.zeros(2, int), "labels have shape [2]; expected [3]"),
  ],
)
def test_labels_that_are_no_classes_have_no_phi(labels, message):
  logits = predict(None, images_of(3))
  with pytest.raises((TypeError, ValueError), match=re.escape(message)):
    dj.scaled_logit(logits, labels)
  with pytest.raises(ValueError, match=r"labels|integers"):
    correctness(logits, labels)


@pytest.mark.parametrize("value", ODD)
def test_an_interval_is_fitted_to_numbers_only(value):
  raw = np.array(predict(None, images_of(3)))
  candidates = np.stack([raw, raw], axis=1)
  odd = raw.copy()
  odd[1] = value
  for given in ((candidates, odd, candidates, raw), (candidates, raw, candidates, odd)):
    name = "member_raw" if given[1] is odd else "nonmember_raw"
    with pytest.raises(ValueError, match=f"1 of 3 {name} have NaN"):
      dj.fit_interval(*given)
  with pytest.raises(ValueError, match="1 of 3 raw_logits"):
    dj.select(candidates, odd)


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: dj.linear_schedule("3"), "num_steps is '3'"),
    (lambda: dj.linear_schedule(10, None), "beta_start is None"),
    (lambda: dj.respaced(SCHEDULE, 5), "respacing is 5; expected text"),
    (lambda: dj.respaced(None, "5"), "schedule is a NoneType"),
    (lambda: dj.sample(KEY, denoise, SCHEDULE, 5), "shape is 5"),
    (lambda: dj.sample(None, denoise, SCHEDULE, (2, 4, 4, 1)), "key is None"),
    (lambda: dj.reconstruct(KEY, denoise, SCHEDULE, None), "images are a NoneType"),
    (
      lambda: dj.reconstruct(KEY, denoise, SCHEDULE, images_of(2), noise="x"),
      "noise are a str",
    ),
  ],
)
def test_schedules_and_samplers_name_what_is_wrong(make, message):
  with pytest.raises((TypeError, ValueError), match=f"^{message}"):
    make()
