"""The attack by transferred changes: against a loop, and on classifiers that memorize."""

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

from diffence_jax.attacks import transferred_changes
from diffence_jax.batching import to_float


def slow_changes(weights, networks, image, label, column, num_queries, num_sizes, largest):
  """What is asked about one sample; of linear models without a memory, number by number."""
  outside = [s for s in range(MODELS) if not networks.membership[s, column]]
  crafting, judging = outside[0::2], outside[1::2]
  inside = [s for s in range(MODELS) if networks.membership[s, column]]
  radii = [largest * 0.05 ** (1 - k / (num_sizes - 1)) for k in range(num_sizes)]
  path, now, before = [image.reshape(-1)], image.reshape(-1), 0.0
  for radius in radii:
    slope = np.zeros(25)
    for s in range(MODELS):
      p = scipy.special.softmax(now @ weights[s])
      p[label] -= 1.0
      weight = 1 / len(crafting) if s in crafting else -1 / len(inside) if s in inside else 0.0
      slope += weight * (weights[s] @ p)
    now = np.clip(now + (radius - before) * np.sign(slope), 0.0, 1.0)
    before = radius
    path.append(now)
  turned = [
    sum(np.argmax(x @ weights[s]) == label for s in judging) <= len(judging) / 2 for x in path
  ]
  first = turned.index(True) if any(turned) else num_sizes
  order = [0, -1, 1, -2, 2, -3, 3, -4, 4, -5][:num_queries]
  return np.stack([path[min(max(first + at, 0), num_sizes)] for at in order])


@pytest.mark.parametrize("num_queries", [1, 4])
def test_what_is_asked_is_the_slow_reference(num_queries):
  world = make_world(0.0)
  images, labels, *_ = world
  networks, own = own_networks(world)
  few, options = to_float(images[:12]), {"num_sizes": 9, "largest": 0.2}
  found = transferred_changes(
    networks.take(np.arange(12)), few, labels[:12], num_queries=num_queries, **options
  )
  assert found.shape == (12, num_queries, *SHAPE) and found.dtype == np.float32
  expected = np.stack(
    [
      slow_changes(own, networks, few[i], labels[i], i, num_queries, **options)
      for i in range(12)
    ]
  ).reshape(found.shape)
  # A slope that nearly cancels may have another sign in single precision.
  assert np.mean(np.isclose(found, expected, atol=1e-5)) > 0.99


@pytest.fixture(scope="module")
def leaky():
  return make_world(3.0)


@pytest.mark.parametrize("num_queries", [1, 5])
def test_a_planted_leak_is_found_with_few_labels(leaky, num_queries):
  member = members(0)
  scores, asked = scores_of("transfer", leaky, member, 3.0, num_queries=num_queries)
  assert roc(scores, member).auc > 0.8
  assert set(np.unique(scores * num_queries)) <= set(range(num_queries + 1))
  # No label is wrong: the gap attack finds nothing.
  images, labels, weights, _ = leaky
  target = memorizer(weights, images, labels, member, 3.0)
  assert np.mean(np.argmax(target(None, to_float(images)), axis=1) == labels) > 0.99
  # One batch may be filled up.
  assert NUM * num_queries <= asked <= 1.1 * NUM * num_queries


def test_more_queries_find_no_less(leaky):
  aucs = [roc(scores_of("transfer", leaky, members(0), 3.0, num_queries=q)[0], members(0)).auc
          for q in (1, 5)]  # fmt: skip
  assert aucs[1] >= aucs[0] - 0.02


def test_without_a_leak_half_lies_in_the_interval():
  finds_nothing("transfer")


def test_mistakes_are_named(leaky):
  images, labels, _, networks = leaky
  asked = (to_float(images), labels)
  everyone = networks._replace(membership=networks.membership | True)
  for given, options, message in (
    (networks, {"num_queries": 11}, "num_queries is 11; expected a whole number, 1 to 10"),
    (networks, {"num_sizes": 1}, "num_sizes is 1; expected"),
    (networks, {"largest": 0.0}, r"largest is 0\.0; expected"),
    (networks, {"num_models": 1}, "num_models is 1; expected"),
    (everyone, {}, "300 of 300 examples have no OUT models"),
    (networks.take(np.arange(9)), {}, r"bool\[8, 9\]; expected bool\[8, 300\]"),
  ):
    with pytest.raises(ValueError, match=message):
      transferred_changes(given, *asked, **options)
