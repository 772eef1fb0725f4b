"""Shadow ensembles: who is in which, and that each model is what it would be alone."""

import itertools

import flax.linen as nn
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import models, parallel, rng
from diffence_jax.attacks.shadow import (
  ensemble_logits,
  membership_matrix,
  train_shadow_models,
)
from diffence_jax.training.classifier import undefended
from diffence_jax.training.loop import index_batches, init_state, make_train_step

NUM, SEED = 21, 5
IMAGES = np.random.default_rng(0).integers(0, 256, (NUM, 4, 4, 1)).astype(np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, NUM)


@pytest.fixture(autouse=True)
def standard_promotion():
  """optax.amsgrad does not run under strict promotion of dtypes."""
  with jax.numpy_dtype_promotion("standard"):
    yield


class Classifier(nn.Module):
  """Small, with running statistics and dropout as large ones have them."""

  @nn.compact
  def __call__(self, images, *, train: bool = False):
    x = nn.Conv(4, (3, 3), use_bias=False)(images)  # a bias would drift: it does nothing
    x = nn.BatchNorm(use_running_average=not train)(x)
    x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
    return nn.Dense(3)(x.reshape(len(x), -1))


MODULE = Classifier()
RECIPE = undefended(MODULE, learning_rate=1e-2, weight_decay=1e-4)


def train(membership, numbers, at_once, kept=None):
  kept = {} if kept is None else kept
  train_shadow_models(
    MODULE,
    RECIPE,
    IMAGES,
    LABELS,
    membership,
    numbers=numbers,
    keep=kept.__setitem__,
    epochs=3,
    batch_size=4,
    seed=SEED,
    mesh=parallel.batch_mesh(),
    models_at_once=at_once,
  )
  return kept


def assert_same(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@settings(max_examples=30, deadline=None)
@given(
  num_pairs=st.integers(1, 8),
  more=st.integers(0, 4),
  num_examples=st.integers(2, 50),
  seed=st.integers(0, 2**31 - 1),
)
def test_memberships_are_balanced_and_can_be_extended(num_pairs, more, num_examples, seed):
  membership = membership_matrix(2 * num_pairs, num_examples, seed)
  np.testing.assert_array_equal(membership.sum(axis=0), num_pairs)
  sizes = membership.sum(axis=1)
  assert set(sizes) <= {num_examples // 2, -(-num_examples // 2)}
  longer = membership_matrix(2 * (num_pairs + more), num_examples, seed)
  np.testing.assert_array_equal(longer[: 2 * num_pairs], membership)


def test_memberships_of_different_pairs_and_seeds_are_unrelated():
  membership = membership_matrix(40, 4000, 0)[::2].astype(float)
  others = membership_matrix(40, 4000, 1)[::2].astype(float)
  correlation = np.corrcoef(np.concatenate([membership, others]))
  # 780 pairs of rows, a standard deviation of 1 / sqrt(4000) each: five of them.
  assert np.abs(correlation - np.eye(40)).max() < 5 / np.sqrt(4000)


def test_a_shadow_model_is_what_the_recipe_makes_of_its_members():
  """Against one plain loop of compiled steps for one model."""
  membership = membership_matrix(6, NUM, SEED)
  kept = train(membership, [3], 1)
  members = np.flatnonzero(membership[3])
  variables = models.init(MODULE, rng.stream(SEED, "shadow/3/init"), (4, 4, 1))
  state = init_state(variables, RECIPE.optimizer)
  step = make_train_step(*RECIPE)
  batches = index_batches(len(members), 4, rng.numpy_seed(SEED, "shadow/3/order"))
  # 11 members at most, 3 epochs, batches of 4.
  for chosen in itertools.islice(batches, 9):
    rows = members[chosen]
    batch = {"images": IMAGES[rows], "labels": LABELS[rows].astype(np.int32)}
    state, _ = step(state, batch, rng.stream(SEED, "shadow/3/steps"))
  assert_same(kept[3], {"params": state.params, **state.model_state}, rtol=1e-4, atol=1e-5)


def test_several_at_once_are_the_same_models_as_one_after_another():
  membership = membership_matrix(6, NUM, SEED)
  alone, together = train(membership, range(5), 1), train(membership, range(5), 3)
  assert sorted(alone) == sorted(together) == list(range(5))
  assert_same(alone, together, rtol=1e-3, atol=1e-4)


def test_only_the_models_asked_for_are_trained_and_each_is_kept_when_done():
  membership = membership_matrix(6, NUM, SEED)
  whole = train(membership, range(6), 1)

  class KilledError(Exception):
    pass

  kept = {}

  def keep(s, variables):
    if len(kept) == 2:
      raise KilledError
    kept[s] = variables

  options = dict(epochs=3, batch_size=4, seed=SEED, mesh=parallel.batch_mesh())
  arguments = (MODULE, RECIPE, IMAGES, LABELS, membership)
  with pytest.raises(KilledError):
    train_shadow_models(*arguments, numbers=range(6), keep=keep, **options)
  assert sorted(kept) == [0, 1]
  train(membership, [2, 3, 4, 5], 1, kept)
  jax.tree.map(np.testing.assert_array_equal, kept, whole)


def test_models_differ_by_their_seeds_and_members():
  membership = membership_matrix(6, NUM, SEED)
  kept = train(membership, range(6), 2)
  kernels = [kept[s]["params"]["Dense_0"]["kernel"] for s in kept]
  for a, b in itertools.combinations(kernels, 2):
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_an_ensemble_answers_as_its_models_do(at_once):
  kept = train(membership_matrix(6, NUM, SEED), range(4), 2)
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *kept.values())
  images = IMAGES.astype(np.float32) / 255.0
  answers = models.predictor(ensemble_logits(MODULE, at_once), stacked)(None, images)
  assert answers.shape == (NUM, 4 * 3)
  for s, variables in kept.items():
    own = models.predictor(MODULE, variables)(None, images)
    np.testing.assert_allclose(answers[:, 3 * s : 3 * s + 3], own, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="even number"):
    membership_matrix(5, 10, 0)
  with pytest.raises(ValueError, match="expected at least 2"):
    membership_matrix(4, 1, 0)
  with pytest.raises(ValueError, match="as many columns"):
    train(membership_matrix(6, NUM - 1, 0), [0], 1)
  with pytest.raises(ValueError, match="models_at_once is 0"):
    train(membership_matrix(6, NUM, 0), [0], 0)


def test_a_loss_that_is_not_finite_is_reported_and_nothing_kept():
  kept = {}
  recipe = undefended(MODULE, learning_rate=1e30, weight_decay=0.0)
  with pytest.raises(FloatingPointError, match="shadow model 1"):
    train_shadow_models(
      MODULE,
      recipe,
      IMAGES,
      LABELS,
      membership_matrix(6, NUM, SEED),
      numbers=[1],
      keep=kept.__setitem__,
      epochs=5,
      batch_size=4,
      seed=SEED,
      mesh=parallel.batch_mesh(),
    )
  assert not kept
