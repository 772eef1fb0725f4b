"""Training many by one recipe: each model is what it would be alone."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from small_classifier import Classifier

from diffence_jax import models, parallel, rng
from diffence_jax.audit.membership import ensemble_logits, membership_matrix
from diffence_jax.batching import index_batches
from diffence_jax.training import Recipe, TrainSettings, train_ensemble
from diffence_jax.training.baselines import undefended
from diffence_jax.training.loop import compile_step, stack_rows, take
from diffence_jax.training.selena import selena

NUM, SEED = 21, 5
IMAGES = np.random.default_rng(0).integers(0, 256, (NUM, 4, 4, 1)).astype(np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, NUM).astype(np.int32)
EXAMPLES = {"images": IMAGES, "labels": LABELS}


MODULE = Classifier()
# 11 members at most, 3 epochs, batches of 4: 9 steps.
SETTINGS = TrainSettings(11, epochs=3, batch_size=4, learning_rate=1e-2, weight_decay=1e-4)
RECIPE = undefended(MODULE, SETTINGS)


def train(membership, numbers, at_once, kept=None, recipe: Recipe = RECIPE):
  kept, numbers = {} if kept is None else kept, list(numbers)
  train_ensemble(
    recipe,
    EXAMPLES,
    None,
    membership[numbers],
    names=[f"shadow/{s}" for s in numbers],
    keep=lambda i, variables: kept.__setitem__(numbers[i], variables),
    seed=SEED,
    mesh=parallel.batch_mesh(),
    models_at_once=at_once,
  )
  return kept


def assert_same(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def alone(recipe, membership, number, **own):
  """One plain loop of compiled steps for one model."""
  members, name = np.flatnonzero(membership[number]), f"shadow/{number}"
  state = recipe.init(rng.stream(SEED, f"{name}/init"), (4, 4, 1))
  step = compile_step(recipe.kinds["train"].step)
  batches = index_batches(len(members), 4, rng.numpy_seed(SEED, f"{name}/order"))
  for chosen in itertools.islice(batches, 9):
    batch = {"members": take({**EXAMPLES, **own}, members[chosen])}
    state, _ = step(state, batch, rng.stream(SEED, f"{name}/steps"))
  return recipe.variables(state)


def test_a_model_is_what_the_recipe_makes_of_its_members():
  membership = membership_matrix(6, NUM, SEED)
  kept = train(membership, [3], 1)
  assert_same(kept[3], alone(RECIPE, membership, 3), rtol=1e-4, atol=1e-5)


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

  with pytest.raises(KilledError):
    train_ensemble(
      RECIPE,
      EXAMPLES,
      None,
      membership,
      names=[f"shadow/{s}" for s in range(6)],
      keep=keep,
      seed=SEED,
      mesh=parallel.batch_mesh(),
    )
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
  with pytest.raises(ValueError, match="a column an image"):
    train(membership_matrix(6, NUM - 1, 0), [0], 1)
  with pytest.raises(ValueError, match="models_at_once is 0"):
    train(membership_matrix(6, NUM, 0), [0], 0)


def test_a_loss_that_is_not_finite_is_reported_and_nothing_kept():
  kept = {}
  recipe = undefended(MODULE, dataclasses.replace(SETTINGS, learning_rate=1e30, epochs=5))
  with pytest.raises(FloatingPointError, match="shadow models, shadow/1"):
    train(membership_matrix(6, NUM, SEED), [1], 1, kept, recipe)
  assert not kept


def test_batches_of_unequal_length_are_filled_up():
  """As Poisson sampling draws them once in a blue moon."""
  found = stack_rows(np.array([3, 1, -1]), np.array([2, 0, 4, 5, -1]))
  np.testing.assert_array_equal(found, [[3, 1, -1, -1, -1], [2, 0, 4, 5, -1]])
  assert found.dtype == np.int32


@pytest.mark.parametrize("at_once", [1, 3])
def test_taught_models_learn_what_their_own_teachers_answer(at_once):
  """Each of a group has teachers trained on parts of its own members only."""
  membership = membership_matrix(6, NUM, SEED)
  recipe = selena(MODULE, SETTINGS, num_teachers=4, num_left_out=2)
  kept = train(membership, [0, 1, 4], at_once, recipe=recipe)
  for number in (1, 4):
    members = np.flatnonzero(membership[number])
    seed = rng.numpy_seed(SEED, f"shadow/{number}/teachers")
    taught = recipe.teachers.membership(len(members), seed)
    answers = []
    for teacher, own in enumerate(taught):
      found = {}
      name = f"shadow/{number}/teacher/{teacher}"
      row = np.zeros((1, NUM), bool)
      row[0, members[own]] = True
      train_ensemble(
        recipe.teachers.recipe,
        EXAMPLES,
        None,
        row,
        names=[name],
        keep=found.__setitem__,
        seed=SEED,
        mesh=parallel.batch_mesh(),
      )
      predict = models.predictor(MODULE, found[0])
      answers.append(predict(None, IMAGES[members].astype(np.float32) / 255.0))
    labels = np.zeros((NUM, 3), np.float32)
    labels[members] = recipe.teachers.soft_labels(np.stack(answers), taught)
    expected = alone(recipe, membership, number, soft_labels=labels)
    assert_same(kept[number], expected, rtol=1e-3, atol=1e-4)
