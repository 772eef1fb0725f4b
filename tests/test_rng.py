"""Keys of any generator, and batches that are balanced between sides."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from defense import test_protect
from hypothesis import given, settings
from hypothesis import strategies as st
from training.small_classifier import Classifier

import diffence_jax as dj
from diffence_jax import rng
from diffence_jax.attacks.label_only import noise_robustness
from diffence_jax.parallel import batch_mesh
from diffence_jax.rng import balanced_epoch
from diffence_jax.training import TrainSettings, train_classifier
from diffence_jax.training.registry import make_recipe

sizes = st.lists(st.integers(1, 12), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(sizes=sizes, batch_size=st.integers(1, 8), seed=st.integers(0, 99))
def test_an_epoch_goes_through_every_side_in_an_order_of_its_own(sizes, batch_size, seed):
  rows = np.asarray(balanced_epoch(jax.random.key(seed), sizes, batch_size))
  assert rows.shape == (-(-max(sizes) // batch_size), len(sizes), batch_size)
  for side, size in enumerate(sizes):
    seen = np.bincount(rows[:, side].ravel(), minlength=size)
    # Whole rounds of the side, and the start of one more.
    assert len(seen) == size and seen.min() >= 1 and seen.max() - seen.min() <= 1


def test_sides_and_epochs_are_shuffled_differently():
  first, second = (np.asarray(balanced_epoch(jax.random.key(i), [50, 50], 50)) for i in (0, 1))
  assert (first[0, 0] != first[0, 1]).any() and (first != second).any()


# JAX's generators.
GENERATORS = ("threefry2x32", "rbg", "unsafe_rbg")


@contextlib.contextmanager
def keys_of(default, given, is_typed):
  with jax.default_prng_impl(default):
    key = jax.random.key(5, impl=given)
    yield key if is_typed else jax.random.key_data(key)


# Which is the default, the key's own, and whether the key is typed.
KINDS = [(default, default, False) for default in GENERATORS] + [
  (default, given, True) for default in GENERATORS[:2] for given in GENERATORS
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_key_of_any_kind_becomes_one_of_our_generator(kind):
  with keys_of(*kind) as key:
    own = rng.own_key(key)
    assert jax.random.key_impl(own) == rng.GENERATOR
    other = rng.own_key(jax.random.key(6, impl=kind[1]))
    assert (jax.random.key_data(own) != jax.random.key_data(other)).any()
    if kind[1] == rng.GENERATOR:
      np.testing.assert_array_equal(
        jax.random.key_data(own), jax.random.key_data(rng.seed_key(5))
      )
    given = rng.as_given(own, key)
    assert given.shape == key.shape and (given.dtype == key.dtype or kind[2])
    # Drawn in a batch as alone, which is what rbg does not.
    keys = rng.candidate_keys(key, jnp.arange(6), jnp.zeros(6, jnp.int32))
    draw = jax.vmap(lambda k: jax.random.normal(k, (3,)))
    np.testing.assert_array_equal(draw(keys)[4:], draw(keys[4:]))


@pytest.mark.parametrize("key", [None, 7, np.zeros(2, np.int32), "secret", (1, 2)])
def test_what_is_no_key_is_refused(key):
  with pytest.raises(TypeError, match=r"secret is .*; expected a JAX random key"):
    rng.own_key(key, "secret")


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_several_keys_are_refused(shape):
  with pytest.raises(ValueError, match="expected one JAX random key"):
    rng.own_key(jnp.zeros(shape, jnp.uint32))


@pytest.mark.parametrize("kind", KINDS[1:3] + KINDS[4:6], ids=str)
def test_what_is_promised_of_noise_holds_for_keys_of_any_kind(kind):
  """Chunks, order, early exit, per-input randomness and the label-only attacks."""
  images, ids = test_protect.images_of(6), jnp.arange(6) + 10
  networks = test_protect.predict, test_protect.denoise, test_protect.SCHEDULE
  options = {"num_candidates": 5, "step": 300}
  with keys_of(*kind) as key:
    draw = lambda rows, size: dj.candidate_logits(
      key, *networks, images[rows], ids=ids[rows], chunk_size=size, **options
    )
    order = np.array([5, 2, 0, 1, 4, 3])
    whole = draw(order, 100)
    np.testing.assert_allclose(draw(order[::-1], 4)[::-1], whole, atol=1e-5)
    np.testing.assert_allclose(draw(order[2:3], 1)[0], whole[2], atol=1e-5)

    answers = dj.protect(*networks, interval=(0.1, 0.4), **options)(key, images)
    early = dj.protect(*networks, interval=(0.1, 0.4), constant_time=False, **options)
    np.testing.assert_allclose(early(key, images), answers, atol=1e-5)

    alike = dj.protect(*networks, randomness="per_input", **options)
    three = alike(key, jnp.concatenate([images[:1]] * 2 + [images[3:], images[:1]]))
    np.testing.assert_allclose(three[1], three[0], atol=1e-5)
    np.testing.assert_allclose(three[-1], three[0], atol=1e-5)

    labels = np.argmax(test_protect.predict(None, images), axis=-1)
    attack = lambda rows, size: noise_robustness(
      key, test_protect.predict, images[rows], labels[rows], ids=ids[rows], sigma=0.5,
      num_draws=20, chunk_size=size,
    )  # fmt: skip
    np.testing.assert_array_equal(attack(order[::-1], 7)[::-1], attack(order, 100))


def test_training_does_not_depend_on_the_default_generator(tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), np.uint8)
  members = {"images": images, "labels": np.arange(12) % 3}
  recipe = make_recipe("undefended", Classifier(), TrainSettings(12, epochs=1, batch_size=4))
  trained = []
  for default in GENERATORS[:2]:
    with jax.default_prng_impl(default):
      trained.append(
        train_classifier(
          recipe,
          members,
          checkpoint_every=10,
          seed=0,
          mesh=batch_mesh(jax.local_devices()[:1]),
          directory=tmp_path / default,
        )
      )
  jax.tree.map(np.testing.assert_array_equal, *trained)
