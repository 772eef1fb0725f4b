"""The one-shot label-only attack: against a loop, and on classifiers that memorize."""

import numpy as np
import pytest
import scipy.special
from attacks.memorizers import memorizer
from attacks.test_lira import roc
from attacks.worlds import (
  MODELS,
  NUM,
  SHAPE,
  finds_nothing,
  make_world,
  members,
  own_networks,
  scores_of,
)

from diffence_jax.attacks import one_shot_queries
from diffence_jax.batching import to_float


def slow_query(weights, networks, image, label, column, threshold, num_budgets, num_steps,
               largest):  # fmt: skip
  """What is asked about one sample at one threshold; of linear models without a memory."""
  outside = [s for s in range(MODELS) if not networks.membership[s, column]]
  judges = outside[::4]
  sources = [s for s in outside if s not in judges]
  start, now, momentum = image.reshape(-1), image.reshape(-1), np.zeros(25)
  for budget in range(num_budgets):
    for _ in range(num_steps):
      sure = np.mean([scipy.special.softmax(now @ weights[s])[label] for s in judges])
      if sure <= threshold:
        return now
      slope = np.zeros(25)
      for s in sources:
        p = scipy.special.softmax(now @ weights[s])
        p[label] -= 1.0
        slope += weights[s] @ p / len(sources)
      momentum = momentum + slope / np.mean(np.abs(slope))
      reach = (budget + 1) * largest / num_budgets
      now = now + largest / num_budgets * np.sign(momentum)
      now = np.clip(np.clip(now, start - reach, start + reach), 0.0, 1.0)
  return now


@pytest.mark.parametrize("num_queries", [1, 3])
def test_what_is_asked_is_the_slow_reference(num_queries):
  world = make_world(0.0)
  images, labels, *_ = world
  networks, own = own_networks(world)
  few = to_float(images[:12])
  options = {"num_budgets": 6, "num_steps": 2, "largest": 0.25}
  found = one_shot_queries(
    networks.take(np.arange(12)), few, labels[:12], num_queries=num_queries, least_sure=0.01,
    **options,
  )  # fmt: skip
  assert found.shape == (12, num_queries, *SHAPE) and found.dtype == np.float32
  thresholds = [0.01 ** ((q + 1) / num_queries) for q in range(num_queries)]
  expected = np.stack(
    [
      [slow_query(own, networks, few[i], labels[i], i, t, **options) for t in thresholds]
      for i in range(12)
    ]
  ).reshape(found.shape)
  # A slope that nearly cancels may have another sign in single precision.
  assert np.mean(np.isclose(found, expected, atol=1e-5)) > 0.99
  # Some were turned on the way, at different sizes.
  sizes = np.abs(found - few[:, None]).max(axis=(2, 3, 4))
  assert sizes.max() <= 0.25 + 1e-6 and len(np.unique(sizes.round(4))) > 2


@pytest.fixture(scope="module")
def leaky():
  return make_world(3.0)


# What is remembered fades with the distance: small steps, to the nearest image that turns.
NEAR = {"num_budgets": 160, "num_steps": 1, "least_sure": 0.4}


def test_one_label_finds_members_and_hardly_any_others(leaky):
  member = members(0)
  scores, asked = scores_of("oslo", leaky, member, 3.0, num_queries=1, **NEAR)
  assert set(np.unique(scores)) == {0.0, 1.0}
  assert np.mean(scores[member]) > 0.3 and np.mean(scores[~member]) < 0.03
  # One batch may be filled up.
  assert NUM <= asked <= 1.1 * NUM


def test_a_planted_leak_is_found_with_few_labels(leaky):
  member = members(0)
  scores, asked = scores_of("oslo", leaky, member, 3.0, num_queries=5, **NEAR)
  assert roc(scores, member).auc > 0.8
  assert 5 * NUM <= asked <= 5.5 * NUM
  # No label is wrong: the gap attack finds nothing.
  images, labels, weights, _ = leaky
  target = memorizer(weights, images, labels, member, 3.0)
  assert np.mean(np.argmax(target(None, to_float(images)), axis=1) == labels) > 0.99


def test_without_a_leak_half_lies_in_the_interval():
  finds_nothing("oslo", num_budgets=20, num_steps=1)


def test_mistakes_are_named(leaky):
  images, labels, _, networks = leaky
  asked = (to_float(images), labels)
  everyone = networks._replace(membership=networks.membership | True)
  for given, options, message in (
    (networks, {"num_queries": 11}, "num_queries is 11; expected a whole number, 1 to 10"),
    (networks, {"num_budgets": 0}, "num_budgets is 0; expected"),
    (networks, {"num_steps": 0}, "num_steps is 0; expected"),
    (networks, {"largest": 0.0}, r"largest is 0\.0; expected"),
    (networks, {"least_sure": 0.7}, r"least_sure is 0\.7; expected"),
    (networks, {"num_models": 3}, "num_models is 3; expected"),
    (everyone, {}, "300 of 300 examples have"),
    (networks.take(np.arange(9)), {}, r"bool\[8, 9\]; expected bool\[8, 300\]"),
  ):
    with pytest.raises(ValueError, match=message):
      one_shot_queries(given, *asked, **options)
