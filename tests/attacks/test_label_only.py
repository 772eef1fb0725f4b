"""Robustness of labels against slow loops and a closed form; a planted leak, and none."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import attacks, metrics
from diffence_jax.attacks.label_only import augmentation_robustness, noise_robustness
from diffence_jax.data.augment import KINDS, augment

KEY = jax.random.key(3)
WEIGHTS = jax.random.normal(jax.random.key(7), (16, 3))


@jax.jit
def predict(key, images):
  return (images.reshape(len(images), -1) - 0.5) @ WEIGHTS


def samples_of(num, seed=0):
  rng = np.random.default_rng(seed)
  return rng.random((num, 4, 4, 1), np.float32), rng.integers(0, 3, num)


def label_of(image):
  return int(jnp.argmax(predict(None, jnp.asarray(image)[None])[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_robustness_is_the_slow_reference(kind):
  images, labels = samples_of(7)
  expected = [
    np.mean([label_of(version) == label for version in augment(image[None], kind)[0]])
    for image, label in zip(images, labels, strict=True)
  ]
  scores = augmentation_robustness(KEY, predict, images, labels, kind=kind)
  assert scores.dtype == np.float64
  np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_noise_robustness_is_the_slow_reference():
  images, labels = samples_of(5)
  ids = np.array([7, 0, 2**31 - 1, 20, 3])
  expected = []
  for image, label, i in zip(images, labels, ids, strict=True):
    kept = 0
    for draw in range(8):
      key = jax.random.fold_in(jax.random.fold_in(KEY, i), draw)
      noise = np.asarray(jax.random.normal(key, image.shape))
      kept += label_of(np.clip(image + np.float32(0.3) * noise, 0.0, 1.0)) == label
    expected.append(kept / 8)
  scores = noise_robustness(KEY, predict, images, labels, sigma=0.3, num_draws=8, ids=ids)
  assert scores.dtype == np.float64 and 0.0 < np.mean(scores) < 1.0
  np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_noise_robustness_of_a_linear_classifier_is_its_closed_form():
  """Phi(distance to the boundary / sigma); wrong in one of 10**5 keys, as the 12 tails say."""
  normal = np.linspace(-1.0, 1.0, 16) / np.linalg.norm(np.linspace(-1.0, 1.0, 16))
  distance = np.linspace(-0.06, 0.06, 12)
  # Pixels are 10 sigma from 0 and 1: nothing is clipped.
  images = 0.5 + (distance[:, None] * normal).reshape(12, 4, 4, 1).astype(np.float32)
  scale = jnp.asarray(np.stack([0 * normal, normal], axis=1), jnp.float32)
  linear = lambda key, x: (x.reshape(len(x), -1) - 0.5) @ scale
  scores = noise_robustness(
    KEY, linear, images, np.ones(12, int), sigma=0.03, num_draws=1000, chunk_size=3000
  )
  kept = scipy.stats.norm.cdf(distance / 0.03)
  low, high = scipy.stats.binom.interval(1 - 1e-5 / 12, 1000, kept)
  counts = np.round(scores * 1000)
  assert np.all((low <= counts) & (counts <= high))


def test_without_any_change_both_are_the_gap_attack():
  images, labels = samples_of(20)
  expected = [label_of(image) == label for image, label in zip(images, labels, strict=True)]
  scores = augmentation_robustness(KEY, predict, images, labels, kind="none")
  np.testing.assert_array_equal(scores, expected)
  scores = noise_robustness(KEY, predict, images, labels, sigma=0.0, num_draws=3)
  np.testing.assert_array_equal(scores, expected)


IDS = np.array([10, 3, 77, 5, 2**31 - 1, 0])
ATTACKS = {
  "augmentation": lambda rows, **options: augmentation_robustness(
    KEY, predict, *(part[rows] for part in samples_of(6)), **options
  ),
  "noise": lambda rows, **options: noise_robustness(
    KEY, predict, *(part[rows] for part in samples_of(6)), sigma=0.3, num_draws=9,
    ids=IDS[rows], **options,
  ),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole():
  return {name: attack(np.arange(6)) for name, attack in ATTACKS.items()}


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(6)), cut=st.integers(1, 6), chunk_size=st.integers(1, 100))
def test_chunks_and_order_change_nothing(whole, name, order, cut, chunk_size):
  rows = np.array(order)[:cut]
  part = ATTACKS[name](rows, chunk_size=chunk_size)
  np.testing.assert_array_equal(part, whole[name][rows])


@pytest.mark.parametrize("attack", [augmentation_robustness, noise_robustness])
def test_one_compilation_however_many_samples(attack):
  for num in (50, 101):
    shapes = []

    def counted(key, images, shapes=shapes):
      shapes.append(images.shape)
      return predict(key, images)

    attack(KEY, counted, *samples_of(num), chunk_size=36)
    # Once for the number of classes, then one compilation of a constant shape.
    assert shapes == [(1, 4, 4, 1), (36, 4, 4, 1)]


@pytest.mark.parametrize("attack", [augmentation_robustness, noise_robustness])
def test_a_random_predictor_gets_a_key_for_each_chunk(attack):
  seen = []

  def noisy(key, images):
    jax.debug.callback(lambda k: seen.append(tuple(np.asarray(k))), jax.random.key_data(key))
    return predict(key, images)

  attack(KEY, noisy, *samples_of(4), chunk_size=18)
  jax.effects_barrier()
  num_chunks = {augmentation_robustness: 4, noise_robustness: 15}[attack]
  assert len(seen) == len(set(seen)) == num_chunks
  assert tuple(np.asarray(jax.random.key_data(KEY))) not in seen


def smooth_images(rng, num):
  """6x6 images whose shifts look like them."""
  return np.repeat(np.repeat(rng.random((num, 3, 3, 1)), 2, 1), 2, 2).astype(np.float32)


def nearest_neighbour(members, labels):
  """A predictor that has learnt its members by heart; logits are minus squared distances."""
  members = jnp.asarray(members.reshape(len(members), -1))
  of_class = jnp.asarray(np.arange(3)[None] == labels[:, None])

  def remember(key, images):
    images = images.reshape(len(images), -1)
    squared = jnp.sum((images[:, None] - members[None]) ** 2, axis=-1)
    return -jnp.min(jnp.where(of_class[None], squared[:, :, None], jnp.inf), axis=1)

  return jax.jit(remember)


@pytest.mark.parametrize(
  "attack, options",
  [
    (augmentation_robustness, {"kind": "shifts"}),
    (noise_robustness, {"sigma": 0.2}),
  ],
)
def test_a_planted_leak_is_found(attack, options):
  """Also where non-members are all classified rightly, so that the gap attack sees nothing."""
  rng = np.random.default_rng(0)
  members, nonmembers = smooth_images(rng, 120), smooth_images(rng, 120)
  labels = rng.integers(0, 3, 120)
  remember = nearest_neighbour(members, labels)
  predicted = np.asarray(jnp.argmax(remember(None, nonmembers), axis=-1))
  gap = augmentation_robustness(KEY, remember, nonmembers, predicted, kind="none")
  assert np.all(gap == 1.0)
  roc = metrics.roc(
    attack(KEY, remember, members, labels, **options),
    attack(KEY, remember, nonmembers, predicted, **options),
  )
  assert roc.auc > 0.55 and roc.auc_interval[0] > 0.5


@pytest.mark.parametrize("attack", [augmentation_robustness, noise_robustness])
def test_without_a_leak_members_score_as_others(attack):
  """Mann-Whitney at 1e-4: so rare are seeds that fail where both come from one source."""
  scores = attack(KEY, predict, *samples_of(400, seed=5))
  assert len(np.unique(scores)) > 5
  assert scipy.stats.mannwhitneyu(scores[::2], scores[1::2]).pvalue > 1e-4


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"labels": np.zeros(3, int)}, r"expected integers, \[4\]"),
    ({"labels": np.zeros(4)}, r"expected integers, \[4\]"),
    ({"labels": np.full(4, 3)}, "expected 0 to 2"),
    ({"labels": np.full(4, -1)}, "labels range from -1"),
    ({"images": np.zeros((4, 4, 4), np.float32)}, r"expected \[N, H, W, C\]"),
    ({"chunk_size": 0}, "chunk_size is 0; expected a whole number"),
    ({"predict": lambda key, x: jnp.zeros(len(x))}, r"expected \[N, K\]"),
    ({"predict": lambda key, x: predict(key, x)[:, :1]}, "Make two columns of a sigmoid's z"),
    (
      {"predict": lambda key, x: predict(key, x) * jnp.nan},
      "answers to changed images have NaN",
    ),
    (
      {"predict": lambda key, x: predict(key, x) + jnp.inf},
      "answers to changed images have NaN",
    ),
  ],
)
@pytest.mark.parametrize("attack", [augmentation_robustness, noise_robustness])
def test_what_is_not_right_is_refused(attack, changes, match):
  images, labels = samples_of(4)
  arguments = {"predict": predict, "images": images, "labels": labels, **changes}
  with pytest.raises(ValueError, match=match):
    attack(KEY, **arguments)


@pytest.mark.parametrize(
  "options, match",
  [
    ({"sigma": -1.0}, "sigma is -1.0; expected"),
    ({"sigma": float("nan")}, "sigma is nan; expected"),
    ({"num_draws": 0}, "num_draws is 0; expected a whole number, 1 to"),
    ({"ids": np.zeros(3, int)}, r"expected integers, \[4\]"),
  ],
)
def test_settings_of_the_noise_that_are_not_right_are_refused(options, match):
  with pytest.raises(ValueError, match=match):
    noise_robustness(KEY, predict, *samples_of(4), **options)


def test_an_unknown_augmentation_is_refused():
  with pytest.raises(ValueError, match="kind is 'crop'; expected one of 'none'"):
    augmentation_robustness(KEY, predict, *samples_of(4), kind="crop")


@pytest.mark.parametrize("attack", [augmentation_robustness, noise_robustness])
def test_a_predictor_that_answers_nan_has_no_labels(attack):
  lost = lambda key, x: jnp.where(jnp.arange(len(x))[:, None] == 0, jnp.nan, predict(key, x))
  with pytest.raises(ValueError, match="answers to changed images have NaN"):
    attack(KEY, lost, *samples_of(4))


ATTACKED = {
  "augmentation": lambda *given: attacks.augmentation_robustness(*given),
  "noise": lambda *given: attacks.noise_robustness(*given, num_draws=2),
  "boundary": lambda *given: attacks.hop_skip_jump(*given, num_iterations=1).distance,
}


def _linear(key, images):
  return images.reshape(len(images), -1)[:, :3]


@dataclasses.dataclass
class _Callable:
  """A predictor without a hash, as dataclasses are."""

  scale: float

  def __call__(self, key, images):
    return self.scale * _linear(key, images)


@pytest.mark.parametrize("attack", ATTACKED.values(), ids=ATTACKED)
def test_what_is_no_predictor_or_array_is_named(attack):
  key, labels = jax.random.key(0), np.array([0, 1, 2])
  images = np.random.default_rng(0).random((3, 2, 2, 1), np.float32)
  for predict, message in (
    (None, "predict is a NoneType"),
    (lambda x, k: _linear(k, x), "predict cannot answer .* not swapped"),
    (lambda k, x: (_linear(k, x), x), "predict's answers are a tuple"),
    (lambda k, x: np.asarray(x).reshape(len(x), -1), "predict cannot answer"),
    (lambda k, x: jnp.argmax(_linear(k, x), -1), "predict's answers are int32"),
  ):
    with pytest.raises(TypeError, match=message):
      attack(key, predict, images, labels)
  # One row for any number of images would be compared with all labels.
  with pytest.raises(ValueError, match="a row for every image"):
    attack(key, lambda k, x: _linear(k, x)[:1], images, labels)
  with pytest.raises(TypeError, match="images are lists of several lengths"):
    attack(key, _linear, [[0.0], [0.0, 1.0]], labels)
  with pytest.raises(ValueError, match="labels are no array"):
    attack(key, _linear, images, [[0], [1, 2]])


@pytest.mark.parametrize("attack", ATTACKED.values(), ids=ATTACKED)
def test_a_predictor_may_be_an_object_without_a_hash(attack):
  key, labels = jax.random.key(0), np.array([0, 1, 2])
  images = np.random.default_rng(0).random((3, 2, 2, 1), np.float32)
  found = attack(key, _Callable(1.0), images, labels)
  np.testing.assert_array_equal(found, attack(key, _linear, images, labels))


def test_ids_are_whole_numbers_from_zero():
  key, images, labels = jax.random.key(0), np.zeros((2, 2, 2, 1), np.float32), np.zeros(2, int)
  for ids, kind, message in (
    ([-1, 0], ValueError, "smallest id is -1"),
    ([[0], [1, 2]], TypeError, "ids are lists of several lengths"),
  ):
    with pytest.raises(kind, match=message):
      attacks.noise_robustness(key, _linear, images, labels, ids=ids)
