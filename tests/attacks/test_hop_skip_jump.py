"""HopSkipJump against the closed form of linear classifiers; a planted leak, and none."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffence_jax import metrics
from diffence_jax.attacks.hop_skip_jump import hop_skip_jump

KEY = jax.random.key(3)
# Enough to get near the boundary's nearest point, and quick.
SHORT = {"num_iterations": 6, "initial_evaluations": 40}


def linear(weights, offsets):
  weights, offsets = jnp.asarray(weights, jnp.float32), jnp.asarray(offsets, jnp.float32)
  return lambda key, x: (x.reshape(len(x), -1) - 0.5) @ weights + offsets[None]


def central_images(num, seed=0):
  """So far from 0 and 1 that the nearest misclassified point lies between."""
  return np.random.default_rng(seed).uniform(0.4, 0.6, (num, 4, 4, 1)).astype(np.float32)


def logits_of(weights, offsets, images):
  """In float64."""
  return (images.reshape(len(images), -1).astype(np.float64) - 0.5) @ weights + offsets


def boundary_distances(weights, offsets, images, labels):
  """Over the other classes k, the least (z_y - z_k) / ||w_y - w_k||."""
  distances = []
  for logits, label in zip(logits_of(weights, offsets, images), labels, strict=True):
    others = [k for k in range(len(offsets)) if k != label]
    gaps = [
      (logits[label] - logits[k]) / np.linalg.norm(weights[:, label] - weights[:, k])
      for k in others
    ]
    distances.append(min(gaps))
  return np.array(distances)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_distance_to_a_linear_boundary_is_its_closed_form(num_classes):
  """Never below it, and within 2% of it for every image where there is one boundary.

  Among several the attack may stay at one that is not the nearest: within 2% for most.
  """
  rng = np.random.default_rng(num_classes)
  weights, offsets = rng.normal(size=(16, num_classes)), 0.05 * rng.normal(size=num_classes)
  images = central_images(150)
  labels = logits_of(weights, offsets, images).argmax(axis=-1)
  expected = boundary_distances(weights, offsets, images, labels)
  result = hop_skip_jump(KEY, linear(weights, offsets), images, labels)
  assert result.distance.dtype == np.float64 and result.num_queries.dtype == np.int64
  assert result.is_found.all()
  # The decisions are float32.
  assert np.all(result.distance >= expected - 1e-5)
  near = np.mean(result.distance <= 1.02 * expected + 1e-5)
  assert near == 1.0 if num_classes == 2 else near > 0.5


def test_adversarial_images_are_images_misclassified_and_at_the_distance():
  """With images at the ends of [0, 1] and outside the middle."""
  rng = np.random.default_rng(0)
  weights, offsets = rng.normal(size=(16, 3)), np.zeros(3)
  images = rng.integers(0, 3, (60, 4, 4, 1)).astype(np.float32) / 2.0
  labels = rng.integers(0, 3, 60)
  result = hop_skip_jump(KEY, linear(weights, offsets), images, labels, **SHORT)
  assert result.is_found.all() and result.adversarial.dtype == np.float32
  assert result.adversarial.min() >= 0.0 and result.adversarial.max() <= 1.0
  logits = logits_of(weights, offsets, result.adversarial)
  own = logits[np.arange(60), labels]
  # Up to the float32 of the decisions.
  assert np.all(logits.max(axis=-1) >= own - 1e-5)
  logits[np.arange(60), labels] = -np.inf
  assert np.all(logits.max(axis=-1) >= own - 1e-5)
  steps = (result.adversarial.astype(np.float64) - images).reshape(60, -1)
  np.testing.assert_allclose(result.distance, np.linalg.norm(steps, axis=1), rtol=1e-12)
  wrong = logits_of(weights, offsets, images).argmax(axis=-1) != labels
  assert 10 < wrong.sum() < 50
  np.testing.assert_array_equal(result.distance == 0.0, wrong)
  np.testing.assert_array_equal(result.num_queries == 1, wrong)
  np.testing.assert_array_equal(result.adversarial[wrong], images[wrong])


def test_images_that_are_all_misclassified_are_at_distance_0():
  images = central_images(3)
  always_first = lambda key, x: jnp.stack([jnp.ones(len(x)), jnp.zeros(len(x))], axis=1)
  result = hop_skip_jump(KEY, always_first, images, np.ones(3, int))
  np.testing.assert_array_equal(result.distance, 0.0)
  np.testing.assert_array_equal(result.num_queries, 1)
  assert result.is_found.all()


def test_where_no_start_is_misclassified_the_distance_is_the_largest():
  images = central_images(3)
  always_first = lambda key, x: jnp.stack([jnp.ones(len(x)), jnp.zeros(len(x))], axis=1)
  result = hop_skip_jump(KEY, always_first, images, np.array([0, 1, 0]), init_trials=7)
  np.testing.assert_array_equal(result.distance, [4.0, 0.0, 4.0])
  np.testing.assert_array_equal(result.is_found, [False, True, False])
  np.testing.assert_array_equal(result.num_queries, [8, 1, 8])
  np.testing.assert_array_equal(result.adversarial, images)


def contrast(key, images):
  """Noise, which is rich in contrast, is always of class 0; faint images of class 1."""
  spread = jnp.max(images, axis=(1, 2, 3)) - jnp.min(images, axis=(1, 2, 3))
  faint = (spread > 0.1) & (spread < 0.3)
  return jnp.stack([jnp.full(len(images), 0.5), faint.astype(jnp.float32)], axis=1)


def test_a_class_that_all_noise_falls_into_is_left_as_well():
  images = np.full((4, 4, 4, 1), 0.5, np.float32)
  result = hop_skip_jump(KEY, contrast, images, np.zeros(4, int), **SHORT)
  assert result.is_found.all() and np.all(result.distance > 0.0)
  np.testing.assert_array_equal(
    jnp.argmax(contrast(None, result.adversarial), axis=-1), np.ones(4)
  )


def test_more_iterations_only_come_nearer():
  rng = np.random.default_rng(1)
  weights, offsets = rng.normal(size=(16, 4)), np.zeros(4)
  images, predict = central_images(40), linear(weights, offsets)
  labels = logits_of(weights, offsets, images).argmax(axis=-1)
  results = [
    hop_skip_jump(KEY, predict, images, labels, num_iterations=n, initial_evaluations=40)
    for n in (0, 1, 5)
  ]
  for fewer, more in itertools.pairwise(results):
    assert np.all(more.distance <= fewer.distance + 1e-6)
    assert more.distance.mean() < fewer.distance.mean()
    assert np.all(more.num_queries > fewer.num_queries)


def brightest(key, images):
  """Rounding cannot change its labels, whatever the batch."""
  peak = jnp.max(images, axis=(1, 2, 3))
  return jnp.stack([jnp.full_like(peak, 0.7), peak], axis=1)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_and_order_change_nothing_but_rounding(batch_size):
  images, labels = central_images(7), np.array([0, 0, 1, 0, 0, 0, 0])
  ids = np.array([10, 3, 77, 5, 2**31 - 1, 0, 8])
  whole = hop_skip_jump(KEY, brightest, images, labels, ids=ids, **SHORT)
  order = np.random.default_rng(batch_size).permutation(7)[:6]
  part = hop_skip_jump(
    KEY,
    brightest,
    images[order],
    labels[order],
    ids=ids[order],
    batch_size=batch_size,
    **SHORT,
  )
  assert len(np.unique(whole.distance)) == 7
  np.testing.assert_allclose(part.distance, whole.distance[order], rtol=1e-4)
  np.testing.assert_allclose(part.adversarial, whole.adversarial[order], atol=1e-4)
  np.testing.assert_array_equal(part.num_queries, whole.num_queries[order])


def test_queries_are_counted():
  """Attacked alone, an image costs as many calls of the predictor as queries."""
  calls = []

  def counted(key, images):
    jax.debug.callback(lambda k: calls.append(tuple(np.asarray(k))), jax.random.key_data(key))
    return brightest(key, images)

  result = hop_skip_jump(
    KEY,
    counted,
    central_images(1),
    np.zeros(1, int),
    num_iterations=3,
    initial_evaluations=10,
    max_evaluations=15,
  )
  jax.effects_barrier()
  assert result.num_queries[0] == len(calls) > 10 + 14 + 15
  # A predictor that is random itself never meets a key again.
  assert len(set(calls)) == len(calls)


def test_as_many_compilations_however_many_images_and_iterations():
  counts = []
  for num, num_iterations in ((3, 1), (8, 4)):
    shapes = []

    def counted(key, images, shapes=shapes):
      shapes.append(images.shape)
      return brightest(key, images)

    hop_skip_jump(
      KEY,
      counted,
      central_images(num),
      np.zeros(num, int),
      num_iterations=num_iterations,
      initial_evaluations=5,
      batch_size=3,
    )
    counts.append(len(shapes))
    assert set(shapes) == {(1, 4, 4, 1), (3, 4, 4, 1)}
  assert counts[0] == counts[1]


def test_a_planted_leak_is_found():
  """Members are learnt by heart; non-members are classified rightly too, but less robustly."""
  rng = np.random.default_rng(0)
  members, nonmembers = rng.random((2, 60, 4, 4, 1), np.float32)
  labels = rng.integers(0, 3, 60)
  of_class = jnp.asarray(np.arange(3)[None] == labels[:, None])

  @jax.jit
  def remember(key, images):
    squared = jnp.sum((images[:, None] - jnp.asarray(members)[None]) ** 2, axis=(2, 3, 4))
    return -jnp.min(jnp.where(of_class[None], squared[:, :, None], jnp.inf), axis=1)

  predicted = np.asarray(jnp.argmax(remember(None, nonmembers), axis=-1))
  images, labels = np.concatenate([members, nonmembers]), np.concatenate([labels, predicted])
  result = hop_skip_jump(KEY, remember, images, labels, **SHORT)
  assert np.all(result.distance > 0.0)
  roc = metrics.roc(result.distance[:60], result.distance[60:])
  assert roc.auc > 0.7 and roc.auc_interval[0] > 0.5


def test_without_a_leak_members_score_as_others():
  """Mann-Whitney at 1e-4: so rare are seeds that fail where both come from one source."""
  rng = np.random.default_rng(2)
  weights, offsets = rng.normal(size=(16, 3)), np.zeros(3)
  images, labels = central_images(200), rng.integers(0, 3, 200)
  result = hop_skip_jump(KEY, linear(weights, offsets), images, labels, **SHORT)
  assert np.sum(result.distance > 0.0) > 20
  scores = result.distance
  assert scipy.stats.mannwhitneyu(scores[::2], scores[1::2]).pvalue > 1e-4


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"labels": np.zeros(3, int)}, r"expected integers, \[2\]"),
    ({"labels": np.full(2, 2)}, "expected 0 to 1"),
    ({"images": np.full((2, 4, 4, 1), 1.5, np.float32)}, r"\[0, 1\]"),
    ({"ids": np.zeros(3, int)}, r"expected integers, \[2\]"),
    ({"num_iterations": -1}, "num_iterations is -1; expected a whole number, 0 to"),
    ({"initial_evaluations": 0}, "initial_evaluations is 0"),
    ({"max_evaluations": 0}, "max_evaluations is 0"),
    ({"init_trials": 0}, "init_trials is 0"),
    ({"batch_size": 0}, "batch_size is 0"),
  ],
)
def test_what_is_not_right_is_refused(changes, match):
  arguments = {"images": central_images(2), "labels": np.zeros(2, int), **changes}
  with pytest.raises(ValueError, match=match):
    hop_skip_jump(KEY, brightest, **arguments)
