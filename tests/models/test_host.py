"""Functions of other frameworks as predictors: answers as in JAX, and clear refusals."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from defense.test_protect import SCHEDULE, denoise, images_of, predict

import diffence_jax as dj
from diffence_jax.attacks.hop_skip_jump import hop_skip_jump
from diffence_jax.attacks.label_only import augmentation_robustness, noise_robustness
from diffence_jax.defense import POLICIES

KEY = jax.random.key(3)


def answer_in_jax(images):
  """Runs JAX, compiled and not: nothing may wait for it from inside a program."""
  return np.asarray(predict(None, jnp.asarray(images)) + 0.0)


HOST = dj.host_predictor(answer_in_jax, 5)


def protected(classifier, **changes):
  options = {"num_candidates": 6, "step": 300, "chunk_size": 16, **changes}
  if "policy" in options:  # one that is fitted to nothing
    options["policy"] = POLICIES.find(options["policy"])(None, None)
  return dj.protect(classifier, denoise, SCHEDULE, **options)


@pytest.mark.parametrize("randomness", ["per_call", "per_input"])
@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"interval": (0.2, 0.6)},
    {"interval": (0.2, 0.6), "constant_time": False},
    {"constant_time": False, "chunk_size": None},
    {"policy": "mean_kept"},
    {"policy": "undefended"},
    {"mesh": dj.parallel.batch_mesh()},
    {"model_shape": [8, 8, 3], "num_ddim_steps": 2, "chunk_size": None},
  ],
  ids=str,
)
def test_behind_protect_it_answers_as_the_same_network_in_jax(changes, randomness):
  changes = {"randomness": randomness, **changes}
  images = images_of(37)
  ids = None if randomness == "per_input" else jnp.arange(37) * 7
  expected = protected(predict, **changes)(KEY, images, ids)
  asked = protected(HOST, **changes)
  logits = asked(KEY, images, ids)
  assert isinstance(logits, jax.Array) and logits.dtype == np.float32
  np.testing.assert_allclose(logits, expected, atol=1e-5)
  labels = np.argmax(predict(None, images), axis=-1)
  np.testing.assert_array_equal(np.argmax(logits, axis=-1), labels)
  is_raw = protected(predict, **changes).with_is_raw(KEY, images, ids)[1]
  np.testing.assert_array_equal(asked.with_is_raw(KEY, images, ids)[1], is_raw)


def test_candidates_are_those_of_the_same_network_in_jax():
  images, ids = images_of(9), np.arange(9) + 3
  draw = lambda classifier: dj.candidate_logits(
    KEY, classifier, denoise, SCHEDULE, images, num_candidates=7, ids=ids, chunk_size=10
  )
  candidates = draw(HOST)
  assert isinstance(candidates, jax.Array) and candidates.shape == (9, 7, 5)
  np.testing.assert_allclose(candidates, draw(predict), atol=1e-5)


def test_it_stacks_and_is_guarded_like_any_other():
  images = images_of(5)
  once = protected(HOST)
  twice, guarded = protected(once), protected(protected(HOST, constant_time=False))
  attacker = dj.defense.train_memguard_attacker(KEY, *np.ones((2, 8, 5), np.float32), epochs=1)
  labels = np.argmax(predict(None, images), axis=-1)
  for asked in (twice, guarded, dj.defense.memguard(once, attacker)):
    np.testing.assert_array_equal(np.argmax(asked(KEY, images), axis=-1), labels)


def counting(sizes):
  """A function that notes how many images it was asked about."""

  def count(images):
    sizes.append(len(images))
    assert images.flags.writeable and images.dtype == np.float32
    return answer_in_jax(images)

  return dj.host_predictor(count, 5)


@pytest.mark.parametrize(
  "num, chunk_size, expected",
  [
    (4, 7, [4, 24]),
    (4, 1, [4, 24]),
    (300, 64, [300, 1024, 776]),
    (1100, 500, [1100, *[1000] * 6, 600]),
  ],
)
def test_it_is_asked_in_few_large_batches(num, chunk_size, expected):
  """At most about as many at a time as there are images, or 1,024."""
  sizes = []
  protected(counting(sizes), chunk_size=chunk_size)(KEY, images_of(num))
  assert sizes == expected


def test_early_exit_asks_once_a_round():
  sizes = []
  early = protected(counting(sizes), constant_time=False, chunk_size=64)
  early(KEY, images_of(200))
  assert sizes[:2] == [200, 200] and sum(sizes) < 200 * 4 and len(sizes) <= 10


@pytest.mark.parametrize("of", [lambda classifier: classifier, protected])
def test_label_only_attacks_find_what_they_find_in_jax(of):
  images = np.asarray(images_of(6))
  labels = np.array(np.argmax(predict(None, images), axis=-1))
  labels[0] = (labels[0] + 1) % 5
  ids = np.array([5, 3, 9, 20, 1, 0])
  short = {"num_iterations": 2, "initial_evaluations": 6, "batch_size": 4, "init_trials": 5}
  for attack in (
    augmentation_robustness,
    functools.partial(noise_robustness, sigma=0.3, num_draws=7, ids=ids, chunk_size=10),
  ):
    # By `of`'s word the labels stay, so that the bare network stands for the protected one.
    scores = attack(KEY, of(HOST), images, labels)
    np.testing.assert_array_equal(scores, attack(KEY, predict, images, labels))
    assert 0.0 < scores.mean() < 1.0
  ours = hop_skip_jump(KEY, of(HOST), images, labels, ids=ids, **short)
  theirs = hop_skip_jump(KEY, predict, images, labels, ids=ids, **short)
  np.testing.assert_allclose(ours.distance, theirs.distance, rtol=1e-3, atol=1e-4)
  np.testing.assert_array_equal(ours.is_found, theirs.is_found)
  np.testing.assert_array_equal(ours.num_queries, theirs.num_queries)


def test_under_jit_it_refuses_by_name():
  images = images_of(2)
  for function in (
    HOST,
    protected(HOST),
    lambda key, images: dj.candidate_logits(key, HOST, denoise, SCHEDULE, images),
    lambda key, images: HOST(key, images) / 2,
  ):
    with pytest.raises(TypeError, match="answer_in_jax runs on the host, so it cannot be jit"):
      jax.jit(function)(KEY, images)
    with pytest.raises(TypeError, match="answer_in_jax runs on the host"):
      jax.jit(lambda function=function: function(KEY, images))()
  with pytest.raises(TypeError, match="call it outside"):
    jax.vmap(lambda images: HOST(None, images))(images[None])
  # Wrapped in a function, it is asked from inside a program.
  with pytest.raises(TypeError, match="answer_in_jax runs on the host"):
    protected(lambda key, images: HOST(key, images) / 2)(KEY, images)


def test_a_function_of_numpy_alone_is_told_where_to_go():
  flat = lambda key, images: np.asarray(images).reshape(len(images), -1)
  with pytest.raises(TypeError, match=r"goes through dj\.host_predictor"):
    protected(flat)(KEY, images_of(2))


def refused(answer, images=None, num_classes=5):
  def classify(images):
    return answer(answer_in_jax(images))

  return dj.host_predictor(classify, num_classes)(
    None, images_of(3) if images is None else images
  )


BAD = [
  (lambda logits: logits[:2], ValueError, "classify's answers have shape [2, 5] for 3 images"),
  (lambda logits: logits[:, :4], ValueError, "expected [3, 5], a row for every image"),
  (lambda logits: logits[:, 0], ValueError, "classify's answers have shape [3]"),
  (lambda logits: np.argmax(logits, axis=1), ValueError, "classify's answers have shape [3]"),
  (lambda logits: np.round(logits).astype(int), TypeError, "not labels"),
  (lambda logits: logits * np.nan, ValueError, "3 of 3 classify's answers have NaN"),
  (lambda logits: logits + np.inf, ValueError, "3 of 3 classify's answers have NaN, +inf"),
  (lambda logits: logits * 0.0 - np.inf, ValueError, "are all -inf"),
  (lambda logits: logits.astype(np.float64) + 1e300, ValueError, "3 of 3 classify's answers"),
  (lambda logits: None, ValueError, "classify's answers are a NoneType"),
  (lambda logits: "cat", ValueError, "classify's answers are a str"),
  (lambda logits: [[1.0], [1.0, 2.0]], ValueError, "classify's answers are no array"),
  (lambda logits: logits.astype(complex), ValueError, "expected an array of numbers"),
]


@pytest.mark.parametrize("answer, error, message", BAD)
def test_answers_that_are_none_are_refused_by_name(answer, error, message):
  with pytest.raises(error, match=re.escape(message)):
    refused(answer)


def test_what_the_function_raises_goes_through_with_a_note():
  def classify(images):
    raise KeyError("weights")

  with pytest.raises(KeyError) as caught:
    protected(dj.host_predictor(classify, 5))(KEY, images_of(3))
  assert caught.value.__notes__ == ["classify was asked about images float32[3, 4, 4, 1]."]


def test_lists_zero_probabilities_and_other_floats_are_answers():
  halves = refused(lambda logits: logits.astype(np.float16))
  assert halves.dtype == np.float32
  brain = refused(lambda logits: np.asarray(jnp.asarray(logits, jnp.bfloat16)))
  np.testing.assert_allclose(brain, halves, rtol=1e-2)
  one_label = lambda logits: np.where(logits == logits.max(1, keepdims=True), 0.0, -np.inf)
  np.testing.assert_array_equal(np.sort(refused(one_label))[:, -2:], [[-np.inf, 0.0]] * 3)
  assert refused(lambda logits: logits.tolist()).shape == (3, 5)


def test_a_lead_that_float32_would_lose_keeps_its_label():
  """As of forests, whose probabilities differ in the last places of float64."""
  leads = np.array([[0.3, 0.1 + 0.2, 0.3], [0.3, 0.3, 0.3], [-1e-30, -1e-30, 0.0]])
  answers = dj.host_predictor(lambda images: leads, 3)(None, images_of(3))
  np.testing.assert_array_equal(np.argmax(answers, axis=1), np.argmax(leads, axis=1))
  np.testing.assert_allclose(answers, leads, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("constant_time", [True, False])
def test_re_generations_that_are_no_numbers_are_not_asked_about(value, constant_time):
  odd = lambda x, t: jnp.full_like(x, value)
  asked = []

  def classify(images):
    asked.append(np.isfinite(images).all())
    return answer_in_jax(images)

  behind = dj.protect(
    dj.host_predictor(classify, 5), odd, SCHEDULE, num_candidates=2, constant_time=constant_time
  )
  with pytest.raises(FloatingPointError, match="not finite: denoise or predict gave NaN"):
    behind(KEY, images_of(3))
  assert asked == [True]


@pytest.mark.parametrize(
  "function, num_classes, message",
  [
    (3, 5, "function is a int; expected a function of (images)"),
    (lambda key, images: images, 5, "function takes (key, images); expected a function of"),
    (answer_in_jax, 1, "num_classes is 1; expected a whole number, at least 2"),
    (answer_in_jax, "5", "num_classes is '5'; expected a whole number"),
  ],
)
def test_what_makes_no_predictor_is_refused(function, num_classes, message):
  with pytest.raises((TypeError, ValueError), match=re.escape(message)):
    dj.host_predictor(function, num_classes)


def test_ten_thousand_images_keep_the_labels_that_a_torch_classifier_gives_them():
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  module = torch.nn.Sequential(
    torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(),
    torch.nn.Linear(4 * 36, 5),
  ).eval()  # fmt: skip

  def classify(images):
    with torch.no_grad():
      return module(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

  images = np.random.default_rng(0).random((10_000, 6, 6, 1), np.float32)
  labels = classify(images.copy()).argmax(axis=1)
  assert len(np.unique(labels)) > 1
  behind = protected(dj.host_predictor(classify, 5), num_candidates=3, chunk_size=4096)
  np.testing.assert_array_equal(np.argmax(behind(KEY, images), axis=1), labels)
  tensors = dj.host_predictor(lambda x: module(torch.from_numpy(x).permute(0, 3, 1, 2)), 5)
  with pytest.raises(TypeError, match=r"answers are a Tensor; .*\.numpy\(\).*torch\.no_grad"):
    tensors(None, images[:2])
