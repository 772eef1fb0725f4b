"""Every kind of canary has the images and labels that it says."""

import numpy as np
import pytest

from diffence_jax.audit.canaries import CANARIES, make_canaries, title_of
from diffence_jax.data import load, make_dataset

NUM, CLASSES = 12, 5


def given(shape=(8, 8, 3)):
  draw = np.random.default_rng(1)
  images = draw.integers(0, 256, (NUM, *shape)).astype(np.uint8)
  return images, draw.integers(0, CLASSES, NUM)


def made(name, images, labels, seed=0, **options):
  draw = np.random.default_rng(seed)
  return make_canaries(CANARIES.choose(name, options), images, labels, CLASSES, draw)


@pytest.mark.parametrize("name", CANARIES.known)
def test_a_kind_is_of_the_same_shape_and_the_same_for_the_same_draw(name):
  images, labels = given()
  found, again = made(name, images, labels), made(name, images, labels)
  assert found[0].shape == images.shape and found[0].dtype == np.uint8
  assert found[1].shape == labels.shape and found[1].dtype == np.int32
  for values, expected in zip(found, again, strict=True):
    np.testing.assert_array_equal(values, expected)
  if name != "clean":
    other = made(name, images, labels, seed=1)
    assert not all(np.array_equal(a, b) for a, b in zip(found, other, strict=True))


def test_clean_and_mislabelled_keep_the_images():
  images, labels = given()
  for name in ("clean", "mislabelled"):
    np.testing.assert_array_equal(made(name, images, labels)[0], images)
  np.testing.assert_array_equal(made("clean", images, labels)[1], labels)
  assert np.all(made("mislabelled", images, labels)[1] != labels)


def test_blanks_are_of_one_colour_each_and_no_two_alike():
  images, _ = made("blank", *given())
  assert np.ptp(images, axis=(1, 2)).max() <= 2
  assert len(np.unique(images.reshape(NUM, -1), axis=0)) == NUM


def few():
  """Images of 4x6 whose pixels are their places; the k-th has k more."""
  places = np.arange(24, dtype=np.uint8).reshape(1, 4, 6, 1)
  return make_dataset(
    places + np.arange(NUM, dtype=np.uint8)[:, None, None, None], np.arange(NUM)
  )


def colours():
  return make_dataset(np.repeat(few().images, 2, axis=-1) * np.uint8(2), np.arange(NUM))


def test_images_of_another_data_set_are_scaled_to_the_nearest_pixel():
  images, labels = given((2, 2, 3))
  found, _ = made("out_of_distribution", images, labels, source=f"{__name__}:few")
  # Of 4 rows the second and the last, of 6 columns the second and the fifth.
  expected = np.array([[7, 10], [19, 22]])
  base = found[:, 0, 0, 0].astype(int) - 7
  assert sorted(base) == list(range(NUM))
  for image, more in zip(found, base, strict=True):
    np.testing.assert_array_equal(image, np.repeat((expected + more)[..., None], 3, axis=-1))
  gray, _ = made("out_of_distribution", *given((2, 2, 1)), source=f"{__name__}:colours")
  np.testing.assert_array_equal(np.sort(gray[:, 0, 0, 0]), 2 * (7 + np.arange(NUM)))


def test_another_data_set_is_other_images_than_the_data():
  digits = load("digits")
  images, labels = digits.images[:NUM], digits.labels[:NUM] % CLASSES
  found, _ = made("out_of_distribution", images, labels)
  assert found.shape == images.shape and len(np.unique(found.reshape(NUM, -1), axis=0)) == NUM


def wrong_shape(images, labels, num_classes, draw):
  return images[:, :1], labels


def wrong_labels(images, labels, num_classes, draw):
  return images, labels + num_classes


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("out_of_distribution", {"source": "tests_of_nothing"}, "no data source"),
    (
      "out_of_distribution",
      {"source": f"{__name__}:colours"},
      "have 2 channels; expected 1 or 3",
    ),
    (f"{__name__}:wrong_shape", {}, "something else than whole numbers"),
    (f"{__name__}:wrong_labels", {}, "returned labels from"),
  ],
)
def test_what_cannot_be_made_is_refused(name, options, message):
  with pytest.raises(ValueError, match=message):
    made(name, *given(), **options)


def test_too_few_other_images_are_refused():
  images, labels = (np.concatenate([values] * 2) for values in given())
  with pytest.raises(ValueError, match="has 12 images; expected at least 24"):
    made("out_of_distribution", images, labels, source=f"{__name__}:few")


def test_a_kind_is_spoken_of_in_words():
  assert title_of(CANARIES.choose("out_of_distribution")) == "out of distribution"
  assert title_of(CANARIES.choose(f"{__name__}:wrong_shape")) == "wrong shape"
