"""The losses of defenses that are losses, against slow references in NumPy."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import models
from diffence_jax.training import TrainSettings
from diffence_jax.training.baselines import entropy
from diffence_jax.training.ccl import convex_concave
from diffence_jax.training.hamp import answer_at_random, top_probability
from diffence_jax.training.loop import take
from diffence_jax.training.registry import make_recipe
from diffence_jax.training.relaxloss import posterior_flattening

NUM, K = 12, 5
SETTINGS = TrainSettings(40, epochs=4, batch_size=10, learning_rate=1e-2, weight_decay=0.0)


class Given(nn.Module):
  """A classifier whose logits are its parameters: one row an image of one pixel, its number."""

  num_classes: int = K

  @nn.compact
  def __call__(self, images, *, train: bool = False):
    table = self.param("table", nn.initializers.normal(2.0), (256, self.num_classes))
    return table[jnp.round(images[:, 0, 0, 0] * 255.0).astype(jnp.int32)]


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  images = np.arange(NUM, dtype=np.uint8).reshape(-1, 1, 1, 1)
  return {
    "images": images,
    "labels": rng.integers(0, K, NUM).astype(np.int32),
    "soft_labels": rng.dirichlet(np.ones(K), NUM).astype(np.float32),
  }


def measured(name, batch, kind="train", scale=1.0, **options):
  """A step's loss, by the recipe, and the logits it saw; float64."""
  recipe = make_recipe(name, Given(), SETTINGS, **options)
  state = recipe.init(jax.random.key(1), (1, 1, 1))
  params = jax.tree.map(lambda leaf: scale * leaf, state.params)
  # The logits before the step: the state is not donated, the step is not compiled.
  logits = np.asarray(params["table"][:NUM], np.float64)
  members = {"members": take(batch, np.arange(NUM))}
  _, metrics = recipe.kinds[kind].step(
    state._replace(params=params), members, jax.random.key(0)
  )
  return float(metrics["loss"]), logits


def log_softmax(logits):
  return scipy.special.log_softmax(logits, axis=-1)


def mean_cross_entropy(logits, labels):
  return -np.mean([log_softmax(row)[y] for row, y in zip(logits, labels, strict=True)])


def test_undefended_is_cross_entropy(batch):
  loss, logits = measured("undefended", batch)
  assert loss == pytest.approx(mean_cross_entropy(logits, batch["labels"]), rel=1e-5)


def test_label_smoothing(batch):
  loss, logits = measured("label_smoothing", batch, smoothing=0.3)
  expected = 0.0
  for row, y in zip(logits, batch["labels"], strict=True):
    target = np.full(K, 0.3 / K)
    target[y] += 0.7
    expected -= np.sum(target * log_softmax(row)) / NUM
  assert loss == pytest.approx(expected, rel=1e-5)


def test_confidence_penalty(batch):
  loss, logits = measured("confidence_penalty", batch, weight=0.4)
  p = scipy.special.softmax(logits, axis=-1)
  entropies = [-np.sum(row * np.log(row)) for row in p]
  expected = mean_cross_entropy(logits, batch["labels"]) - 0.4 * np.mean(entropies)
  assert loss == pytest.approx(expected, rel=1e-5)
  np.testing.assert_allclose(entropy(logits.astype(np.float32)), entropies, rtol=1e-4)


def test_early_stopping_takes_fewer_steps():
  recipe = make_recipe("early_stopping", Given(), SETTINGS, stop_after=3)
  assert len(recipe.schedule) == 12
  with pytest.raises(ValueError, match="stop_after is 5; expected a whole number, 1 to 4"):
    make_recipe("early_stopping", Given(), SETTINGS, stop_after=5)


@pytest.mark.parametrize("concave", ["exponential", "quadratic"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_ccl(batch, alpha, concave):
  loss, logits = measured("ccl", batch, alpha=alpha, concave=concave)
  expected = 0.0
  for row, y in zip(logits, batch["labels"], strict=True):
    p = np.exp(row[y]) / np.sum(np.exp(row))
    term = -np.exp(p) if concave == "exponential" else -(p + p * p / 2)
    expected += (-alpha * np.log(p) + (1 - alpha) * term) / NUM
  assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("concave", ["exponential", "quadratic"])
def test_ccl_has_the_published_gradient(batch, concave):
  """By the chain rule: c'(p) is -exp(p) or -(1 + p), and dp / dz is p (one-hot - softmax)."""
  logits, labels, alpha = np.random.default_rng(3).normal(size=(4, K)), batch["labels"][:4], 0.3
  with jax.enable_x64(True):
    gradients = jax.grad(convex_concave)(jnp.asarray(logits), labels, alpha, concave)
  for gradient, row, y in zip(np.asarray(gradients), logits, labels, strict=True):
    softmax = scipy.special.softmax(row)
    p = softmax[y]
    slope = np.exp(p) if concave == "exponential" else 1.0 + p
    by_p = -alpha / p - (1.0 - alpha) * slope
    expected = by_p * p * (np.eye(K)[y] - softmax) / len(labels)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(num_classes=st.integers(2, 120), gamma=st.floats(0.0, 1.0))
def test_hamp_lowers_the_top_class_until_the_entropy_is_there(num_classes, gamma):
  top = top_probability(num_classes, gamma)

  def entropy_at(top):
    p = np.array([top] + [(1.0 - top) / (num_classes - 1)] * (num_classes - 1))
    return -np.sum(scipy.special.xlogy(p, p))

  wanted = gamma * np.log(num_classes)
  assert entropy_at(top) >= wanted - 1e-9
  # It is the first such step: one earlier was not enough.
  if top < 1.0 and top > 1.0 / num_classes:
    assert entropy_at(min(1.0, top + 0.01)) < wanted + 1e-9


def test_hamp_at_published_settings():
  """The entropy of ten classes first reaches 0.8 log 10 = 1.842 at 0.47.

  By hand: 1.835 at 0.48, 1.856 at 0.47.
  """
  top = top_probability(10, 0.8)
  p = np.array([top] + [(1 - top) / 9] * 9)
  before = np.array([top + 0.01] + [(0.99 - top) / 9] * 9)
  wanted = 0.8 * np.log(10)
  assert -np.sum(before * np.log(before)) < wanted <= -np.sum(p * np.log(p))
  assert top == pytest.approx(0.47, abs=1e-12)


def test_hamp_loss(batch):
  loss, logits = measured("hamp", batch, gamma=0.8, alpha=0.02)
  top = top_probability(K, 0.8)
  expected = 0.0
  for row, y in zip(logits, batch["labels"], strict=True):
    target = np.full(K, (1.0 - top) / (K - 1))
    target[y] = top
    log_p = log_softmax(row)
    expected += np.mean(target * (np.log(target) - log_p)) / NUM
    expected += 0.02 * np.sum(np.exp(log_p) * log_p) / NUM
  assert loss == pytest.approx(expected, rel=1e-4)


class Net(nn.Module):
  """A classifier of 3x3 images."""

  @nn.compact
  def __call__(self, images, *, train: bool = False):
    return nn.Dense(K, kernel_init=nn.initializers.normal(1.0))(images.reshape(len(images), -1))


def test_hamp_at_test_time_keeps_the_order_and_takes_other_values():
  module = Net()
  variables = module.init(jax.random.key(0), jnp.zeros((1, 3, 3, 1)))
  images = np.random.default_rng(0).random((200, 3, 3, 1)).astype(np.float32)
  raw = np.asarray(module.apply(variables, images))
  predict = models.predictor(answer_at_random(module), variables)
  answers = np.asarray(predict(None, images))
  np.testing.assert_array_equal(np.argsort(answers, axis=-1), np.argsort(raw, axis=-1))
  # Whose values they are does not depend on the image's own.
  top, raw_top = answers.max(axis=-1), raw.max(axis=-1)
  assert abs(np.corrcoef(top, raw_top)[0, 1]) < 4 / np.sqrt(200)
  recipe = make_recipe("hamp", module, SETTINGS, random_outputs=True)
  bound = models.predictor(recipe.answering, variables)
  np.testing.assert_allclose(bound(None, images), answers, rtol=1e-5)


def test_hamp_at_test_time_answers_an_image_alike_in_any_batch():
  """With convolutions, whose rounding depends on the batch."""
  module = models.make_classifier("small_resnet", num_classes=5, width=8)
  variables = models.init(module, jax.random.key(0), (28, 28, 1))
  images = np.random.default_rng(0).random((64, 28, 28, 1)).astype(np.float32)
  predict = models.predictor(answer_at_random(module), variables)
  together = predict(None, images)
  alone = np.concatenate([predict(None, image[None]) for image in images[:16]])
  # Of 80 logits one in 25,000 would be near enough to an edge: none.
  np.testing.assert_allclose(alone, together[:16], atol=1e-4)


def test_hamp_at_test_time_never_changes_a_label_in_a_tie():
  module = Given(num_classes=3)
  table = np.zeros((256, 3), np.float32)
  table[0] = [1.0, 1.0, 0.0]
  table[1] = [0.0, 2.0, 2.0]
  predict = models.predictor(answer_at_random(module), {"params": {"table": table}})
  images = np.array([0, 1], np.float32).reshape(-1, 1, 1, 1) / 255.0
  np.testing.assert_array_equal(np.argmax(predict(None, images), axis=-1), [0, 1])


@pytest.mark.parametrize("alpha", [0.1, 3.0, 100.0])
def test_relaxloss_steers_to_alpha_in_even_epochs(batch, alpha):
  loss, logits = measured("relaxloss", batch, "relax", alpha=alpha)
  expected = abs(mean_cross_entropy(logits, batch["labels"]) - alpha)
  assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("alpha", "upper"), [(0.1, 1.0), (100.0, 1.0), (100.0, 0.2)])
def test_relaxloss_flattens_below_alpha_in_odd_epochs(batch, alpha, upper):
  loss, logits = measured("relaxloss", batch, "flatten", alpha=alpha, upper=upper)
  expected = mean_cross_entropy(logits, batch["labels"])
  if expected <= alpha:
    expected = 0.0
    for row, y in zip(logits, batch["labels"], strict=True):
      log_p = log_softmax(row)
      top = min(np.exp(log_p[y]), upper)
      target = np.full(K, (1.0 - top) / (K - 1))
      target[y] = top
      wrong = float(np.argmax(row) != y)
      expected += (wrong * -np.sum(target * log_p) + log_p[y]) / NUM
  assert loss == pytest.approx(expected, rel=1e-5)


def test_posterior_flattening_has_the_published_gradient(batch):
  """By finite differences: the gradient goes through the soft labels too."""
  logits = np.random.default_rng(3).normal(size=(4, K))
  labels, step = batch["labels"][:4], 1e-3
  with jax.enable_x64(True):
    found = jax.grad(posterior_flattening)(jnp.asarray(logits), labels, 1.0)
    for i, j in np.ndindex(logits.shape):
      shift = np.zeros_like(logits)
      shift[i, j] = step
      shifted = jnp.asarray(logits + shift), jnp.asarray(logits - shift)
      ends = [float(posterior_flattening(values, labels, 1.0)) for values in shifted]
      assert float(found[i, j]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-5)


def test_relaxloss_takes_turns_by_epochs():
  """40 examples in batches of 10: four steps an epoch."""
  recipe = make_recipe("relaxloss", Given(), SETTINGS)
  assert recipe.schedule == (("relax",) * 4 + ("flatten",) * 4) * 2
  uneven = make_recipe(
    "relaxloss", Given(), dataclasses.replace(SETTINGS, num_members=25, epochs=2)
  )
  assert (
    uneven.schedule == ("relax",) * 3 + ("flatten",) * 2
  )  # steps begin at 0, 10, 20; 30, 40


def test_relaxloss_shuffles_every_epoch_anew():
  """The two kinds share one stream: every epoch has all members, in an order of its own."""
  recipe = make_recipe("relaxloss", Given(), SETTINGS)
  streams = {name: kind.batches({"members": 40}, 0, 0) for name, kind in recipe.kinds.items()}
  rows = [next(streams[kind])["members"] for kind in recipe.schedule]
  epochs = [np.concatenate(rows[i : i + 4]) for i in range(0, 16, 4)]
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(40))
  assert len({tuple(epoch) for epoch in epochs}) == 4
  # From the middle on, they are the same.
  later = recipe.kinds["flatten"].batches({"members": 40}, 0, 1)
  np.testing.assert_array_equal(next(later)["members"], rows[5])


def test_selena_learns_the_soft_labels(batch):
  loss, logits = measured("selena", batch)
  expected = 0.0
  for row, target in zip(logits, batch["soft_labels"].astype(np.float64), strict=True):
    expected += np.sum(target * (np.log(target) - log_softmax(row))) / NUM
  assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("hamp", {"gamma": 1.5}, "gamma is 1.5; expected a number, 0.0 to 1.0"),
    ("hamp", {"alpha": -1.0}, "alpha is -1.0"),
    ("hamp", {"random_outputs": 1}, "expected True or False"),
    ("relaxloss", {"upper": 2.0}, "upper is 2.0"),
    ("ccl", {"alpha": 1.5}, "alpha is 1.5; expected a number, 0.0 to 1.0"),
    ("ccl", {"concave": "linear"}, "concave is 'linear'; expected"),
    ("label_smoothing", {"smoothing": "much"}, "smoothing is 'much'"),
    ("confidence_penalty", {"weight": -0.1}, "weight is -0.1"),
    ("selena", {"num_left_out": 25}, "num_left_out is 25; expected a whole number, 1 to 24"),
    (
      "hamp",
      {"gama": 0.5},
      "'hamp' has no option 'gama'; did you mean 'gamma'",
    ),
    ("hemp", {}, "no training-time defense 'hemp'; did you mean 'hamp'"),
    ("early_stopping", {"stop_after": 1.5}, "stop_after is 1.5; expected a whole number"),
    ("advreg", {"alpha": float("inf")}, "alpha is inf; expected a finite number"),
    ("early_stopping", {}, "stop_after is 10; expected a whole number, 1 to 4"),
  ],
)
def test_what_is_out_of_range_or_unknown_is_refused(name, options, message):
  with pytest.raises(ValueError, match=message):
    make_recipe(name, Given(), SETTINGS, **options)
