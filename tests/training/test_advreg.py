"""AdvReg: both players' losses by hand, their turns, and that one learns from the other."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from small_attacker import SmallAttacker
from small_classifier import NUM_CLASSES, Classifier

from diffence_jax import models, parallel, rng
from diffence_jax.training import advreg as module_of_advreg
from diffence_jax.training.advreg import advreg, advreg_schedule, attack_outputs
from diffence_jax.training.baselines import undefended
from diffence_jax.training.classifier import train_classifier
from diffence_jax.training.ensemble import train_ensemble
from diffence_jax.training.loop import compile_step, take
from diffence_jax.training.recipe import TrainSettings, state_variables

NUM, BATCH, SEED, KEY = 12, 8, 3, jax.random.key(7)
SHAPE = (4, 4, 1)
SETTINGS = TrainSettings(NUM, 2, BATCH, 1e-2, 1e-4)


def draw(num, seed):
  generator = np.random.default_rng(seed)
  images = generator.integers(0, 256, (num, *SHAPE)).astype(np.uint8)
  return {"images": images, "labels": generator.integers(0, NUM_CLASSES, num).astype(np.int32)}


MEMBERS, REFERENCE = draw(NUM, 0), draw(9, 1)


class Linear(nn.Module):
  """Logits that follow from a few weights."""

  @nn.compact
  def __call__(self, images, *, train: bool = False):
    return nn.Dense(NUM_CLASSES)(images.reshape(len(images), -1))


MODULE = Classifier()


def start(recipe, *, scale):
  """The first state, but for an attack network that is past saying 1/2 to everything."""
  state = recipe.init(jax.random.key(0), SHAPE)
  params = jax.tree.map(lambda leaf: scale * leaf, state.attacker.params)
  return state._replace(attacker=state.attacker._replace(params=params))


def batch_of(members=MEMBERS, reference=REFERENCE, size=BATCH):
  rows = np.arange(size)
  return {"members": take(members, rows), "reference": take(reference, rows)}


def slow_outputs(params, logits, labels):
  """The attack network, layer by layer in float64."""
  layers = [params[f"Dense_{i}"] for i in range(10)]
  layers = [(np.float64(layer["kernel"]), np.float64(layer["bias"])) for layer in layers]

  def through(x, some):
    for kernel, bias in some:
      x = np.maximum(x @ kernel + bias, 0.0)
    return x

  probabilities = scipy.special.softmax(np.float64(logits), axis=-1)
  one_hot = np.eye(logits.shape[-1])[labels]
  branches = through(probabilities, layers[:3]), through(one_hot, layers[3:5])
  x = through(np.concatenate(branches, axis=-1), layers[5:9])
  return 1.0 / (1.0 + np.exp(-(x @ layers[9][0] + layers[9][1])[:, 0]))


def slow_cross_entropy(logits, labels):
  log_p = scipy.special.log_softmax(np.float64(logits), axis=-1)
  return -np.mean(log_p[np.arange(len(labels)), labels])


def assert_same(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def assert_identical(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_attack_network_is_as_published():
  params = advreg(MODULE, SETTINGS).init(KEY, SHAPE).attacker.params
  shapes = [params[f"Dense_{i}"]["kernel"].shape for i in range(len(params))]
  assert shapes == [
    *[(NUM_CLASSES, 1024), (1024, 512), (512, 64)],
    *[(NUM_CLASSES, 128), (128, 64)],
    *[(128, 512), (512, 256), (256, 128), (128, 64), (64, 1)],
  ]
  for layer in params.values():
    assert not np.any(layer["bias"])
    error = 0.01 / np.sqrt(2 * layer["kernel"].size)
    assert np.std(layer["kernel"]) == pytest.approx(0.01, abs=5 * error)


def test_the_attack_network_answers_as_the_slow_reference():
  generator = np.random.default_rng(0)
  logits = generator.normal(0, 3, (20, NUM_CLASSES)).astype(np.float32)
  labels = generator.integers(0, NUM_CLASSES, 20)
  params = start(advreg(MODULE, SETTINGS), scale=20.0).attacker.params
  expected = slow_outputs(params, logits, labels)
  assert np.ptp(expected) > 0.1
  np.testing.assert_allclose(attack_outputs(params, logits, labels), expected, rtol=1e-4)


def test_the_classifier_s_losses_are_the_slow_reference():
  """In training mode: with the batch's statistics, and the dropout of its own step."""
  recipe = advreg(MODULE, SETTINGS, alpha=4.0)
  state = start(recipe, scale=20.0)
  state = state._replace(classifier=state.classifier._replace(step=jnp.int32(5)))
  batch = batch_of()
  logits, _ = MODULE.apply(
    state_variables(state.classifier),
    batch["members"]["images"].astype(np.float32) / 255.0,
    train=True,
    mutable=["batch_stats"],
    rngs={"dropout": jax.random.fold_in(KEY, 5)},
  )
  labels = batch["members"]["labels"]
  plain = slow_cross_entropy(logits, labels)
  outputs = slow_outputs(state.attacker.params, logits, labels)
  assert abs(np.mean(outputs) - 0.5) > 0.05
  expected = {"classifier": plain, "regularised": plain + 4.0 * (np.mean(outputs) - 0.5)}
  for kind, loss in expected.items():
    _, metrics = jax.jit(recipe.kinds[kind].step)(state, batch, KEY)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-4)
    accuracy = np.mean(np.argmax(logits, axis=-1) == labels)
    assert float(metrics["accuracy"]) == pytest.approx(accuracy)


def test_the_gradient_goes_through_the_attack_network():
  """Against central differences of the slow loss; Adam keeps a tenth of its first gradient."""
  recipe = advreg(Linear(), dataclasses.replace(SETTINGS, weight_decay=0.0), alpha=50.0)
  state, batch = start(recipe, scale=20.0), batch_of()
  labels = batch["members"]["labels"]
  inputs = np.float64(batch["members"]["images"]).reshape(BATCH, -1) / 255.0
  kernel = np.float64(state.classifier.params["Dense_0"]["kernel"])

  def slow_loss(kernel):
    logits = inputs @ kernel
    outputs = slow_outputs(state.attacker.params, logits, labels)
    return slow_cross_entropy(logits, labels) + 50.0 * (np.mean(outputs) - 0.5)

  def difference(place):
    step = np.zeros(kernel.shape)
    step[place] = 1e-6
    return (slow_loss(kernel + step) - slow_loss(kernel - step)) / 2e-6

  expected = np.reshape([difference(i) for i in np.ndindex(kernel.shape)], kernel.shape)
  after, _ = jax.jit(recipe.kinds["regularised"].step)(state, batch, KEY)
  moments = [
    s for s in jax.tree.leaves(after.classifier.opt_state, is_leaf=_is_adam) if _is_adam(s)
  ]
  gradient = np.asarray(moments[0].mu["Dense_0"]["kernel"]) * 10.0
  np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)


def _is_adam(state):
  return hasattr(state, "mu")


def test_the_attack_s_loss_is_the_slow_reference():
  """The classifier is asked in evaluation mode: running statistics, no dropout."""
  recipe = advreg(MODULE, SETTINGS)
  state, batch = start(recipe, scale=20.0), batch_of()
  state, _ = jax.jit(recipe.kinds["classifier"].step)(state, batch, KEY)  # moves the statistics
  errors, outputs = [], {}
  for group, truth in (("members", 1.0), ("reference", 0.0)):
    images = batch[group]["images"].astype(np.float32) / 255.0
    logits = models.predictor(MODULE, state_variables(state.classifier))(None, images)
    outputs[group] = slow_outputs(state.attacker.params, logits, batch[group]["labels"])
    errors.append(np.square(outputs[group] - truth))
  _, metrics = jax.jit(recipe.kinds["attack"].step)(state, batch, KEY)
  assert float(metrics["loss"]) == pytest.approx(np.mean(errors), rel=1e-4)
  assert float(metrics["attack_output"]) == pytest.approx(outputs["members"].mean(), rel=1e-4)
  right = np.concatenate([outputs["members"] > 0.5, outputs["reference"] <= 0.5])
  assert float(metrics["attack_accuracy"]) == pytest.approx(right.mean())


@pytest.mark.parametrize(
  ("kind", "moves", "rests"),
  [
    ("classifier", "classifier", "attacker"),
    ("attack", "attacker", "classifier"),
    ("regularised", "classifier", "attacker"),
  ],
)
def test_a_step_changes_one_player_and_leaves_the_other_to_the_bit(kind, moves, rests):
  recipe = advreg(MODULE, SETTINGS)
  before = recipe.init(KEY, SHAPE)
  after, metrics = jax.jit(recipe.kinds[kind].step)(before, batch_of(), KEY)
  assert_identical(getattr(before, rests), getattr(after, rests))
  moved, still = getattr(after, moves), getattr(before, moves)
  assert int(moved.step) == int(still.step) + 1
  assert np.any(moved.params["Dense_0"]["kernel"] != still.params["Dense_0"]["kernel"])
  assert "loss" in metrics


@examples(max_examples=60, deadline=None)
@given(num=st.integers(1, 60), epochs=st.integers(1, 5), batch=st.integers(2, 20))
@example(num=16, epochs=2, batch=8)
@example(num=24, epochs=2, batch=8)  # the last round is cut
@example(num=16, epochs=1, batch=8)
def test_the_turns_are_as_published(num, epochs, batch):
  settings = TrainSettings(num, epochs, batch, 1e-3, 0.0)
  schedule = advreg_schedule(settings)
  assert sum(kind != "attack" for kind in schedule) == settings.num_steps
  assert schedule[-1] != "attack"
  turns = [(kind, len(list(run))) for kind, run in itertools.groupby(schedule)]
  plain = -(-num // batch)
  assert turns[0] == ("classifier", plain)
  rest = settings.num_steps - plain
  rounds = [2] * (rest // 2) + [1] * (rest % 2)
  attacks = [26] * len(rounds)
  if rounds:
    attacks[0] += 5 * -(-num // (batch // 2))
  expected = [[("attack", a), ("regularised", r)] for a, r in zip(attacks, rounds, strict=True)]
  assert turns[1:] == list(itertools.chain(*expected))


def test_batches_are_half_reference_and_members_are_seen_equally_often():
  settings = TrainSettings(20, 4, 8, 1e-3, 0.0)
  recipe = advreg(MODULE, settings)
  sizes = {"members": 20, "reference": 9}
  streams = {name: kind.batches(sizes, SEED, 0) for name, kind in recipe.kinds.items()}
  seen, attacked, references = [], [], []
  for kind in recipe.schedule:
    rows = next(streams[kind])
    assert tuple(rows) == recipe.kinds[kind].groups
    if kind == "attack":
      assert [len(own) for own in rows.values()] == [4, 4]
      attacked.append(rows["members"])
      references.append(rows["reference"])
    else:
      seen.append(rows["members"])
  np.testing.assert_array_equal(np.bincount(np.concatenate(seen)), [4] * 20)
  assert np.ptp(np.bincount(np.concatenate(attacked), minlength=20)) <= 1
  assert np.ptp(np.bincount(np.concatenate(references), minlength=9)) <= 1
  # A run that goes on finds the batch that it would have come to.
  again = next(recipe.kinds["regularised"].batches(sizes, SEED, 3))["members"]
  np.testing.assert_array_equal(again, seen[recipe.schedule.count("classifier") + 3])


def test_a_leak_is_learnt_and_then_closed():
  """Members are answered with confidence, others are not."""
  settings = TrainSettings(32, 2, 32, 0.1, 0.0)
  recipe = advreg(Linear(), settings, alpha=20.0)
  labels = np.arange(32, dtype=np.int32) % NUM_CLASSES

  def bright(value):
    images = np.zeros((32, 16), np.uint8)
    images[np.arange(32), labels] = value
    return {"images": images.reshape(32, *SHAPE), "labels": labels}

  batch = batch_of(bright(255), bright(60), size=32)
  state = start(recipe, scale=6.0)
  kernel = np.zeros((16, NUM_CLASSES), np.float32)
  kernel[:NUM_CLASSES] = 5.0 * np.eye(NUM_CLASSES)
  params = {"Dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(NUM_CLASSES)}}
  state = state._replace(classifier=state.classifier._replace(params=params))
  steps = {name: jax.jit(kind.step) for name, kind in recipe.kinds.items()}
  _, before = steps["attack"](state, batch, KEY)
  for _ in range(120):
    state, _ = steps["attack"](state, batch, KEY)
  _, learnt = steps["attack"](state, batch, KEY)
  assert learnt["attack_output"] > before["attack_output"] + 0.3
  assert learnt["attack_accuracy"] == 1.0

  after = {}
  for kind in ("classifier", "regularised"):
    moved = state
    for _ in range(20):
      moved, _ = steps[kind](moved, batch, KEY)
    after[kind] = steps["attack"](moved, batch, KEY)[1]["attack_output"]
  assert after["regularised"] < learnt["attack_output"] - 0.1
  assert after["regularised"] < after["classifier"] - 0.1


@pytest.fixture
def small_attacker(monkeypatch):
  """Where whole trainings are compared, which do the same whatever its size."""
  monkeypatch.setattr(module_of_advreg, "AttackNetwork", SmallAttacker)


def train(directory, recipe, seed=SEED, reference=REFERENCE):
  return train_classifier(
    recipe,
    MEMBERS,
    reference,
    checkpoint_every=1000,
    seed=seed,
    mesh=parallel.batch_mesh(),
    directory=directory,
  )


def test_a_classifier_is_trained_and_the_seed_decides_it(tmp_path, small_attacker):
  recipe = advreg(MODULE, SETTINGS)
  assert recipe.needs_reference
  first, again = (train(tmp_path / name, recipe) for name in "ab")
  assert_identical(first, again)
  assert set(first) == {"params", "batch_stats"}
  other = train(tmp_path / "c", recipe, seed=SEED + 1)
  assert np.any(first["params"]["Dense_0"]["kernel"] != other["params"]["Dense_0"]["kernel"])
  with pytest.raises(ValueError, match="reference set"):
    train(tmp_path / "d", recipe, reference=None)


def test_without_weight_it_is_the_undefended_classifier(tmp_path, small_attacker):
  game = train(tmp_path / "game", advreg(MODULE, SETTINGS, alpha=0.0))
  plain = train(tmp_path / "plain", undefended(MODULE, SETTINGS))
  assert_same(game, plain, rtol=1e-4, atol=1e-5)


POOL = draw(2 * NUM, 2)
MEMBERSHIP = np.stack([np.random.default_rng(i).permutation(2 * NUM) < NUM for i in range(3)])
NAMES = [f"shadow/{i}" for i in range(3)]


def ensemble(recipe, chosen, at_once):
  kept = {}
  train_ensemble(
    recipe,
    POOL,
    REFERENCE,
    MEMBERSHIP[chosen],
    names=[NAMES[i] for i in chosen],
    keep=kept.__setitem__,
    seed=SEED,
    mesh=parallel.batch_mesh(),
    models_at_once=at_once,
  )
  return {i: kept[place] for place, i in enumerate(chosen)}


def test_a_model_of_an_ensemble_is_what_plain_steps_make_of_its_members(small_attacker):
  recipe = advreg(MODULE, SETTINGS)
  kept = ensemble(recipe, [1], 1)
  own = np.flatnonzero(MEMBERSHIP[1])
  state = recipe.init(rng.stream(SEED, "shadow/1/init"), SHAPE)
  steps = {name: compile_step(kind.step) for name, kind in recipe.kinds.items()}
  order = rng.numpy_seed(SEED, "shadow/1/order")
  sizes = {"members": NUM, "reference": len(REFERENCE["labels"])}
  streams = {name: kind.batches(sizes, order, 0) for name, kind in recipe.kinds.items()}
  for kind in recipe.schedule:
    rows = next(streams[kind])
    batch = {"members": take(POOL, own[rows["members"]])}
    if kind == "attack":
      batch["reference"] = take(REFERENCE, rows["reference"])
    state, _ = steps[kind](state, batch, rng.stream(SEED, "shadow/1/steps"))
  assert_same(kept[1], recipe.variables(state), rtol=1e-4, atol=1e-5)


def test_several_at_once_are_the_same_models_as_one_after_another(small_attacker):
  recipe = advreg(MODULE, SETTINGS)
  alone, together = ensemble(recipe, [0, 1, 2], 1), ensemble(recipe, [0, 1, 2], 2)
  assert sorted(alone) == sorted(together) == [0, 1, 2]
  assert_same(alone, together, rtol=1e-3, atol=1e-4)
  kernels = [alone[i]["params"]["Dense_0"]["kernel"] for i in alone]
  for a, b in itertools.combinations(kernels, 2):
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), "6", True])
def test_a_weight_that_is_none_is_refused(alpha):
  with pytest.raises(ValueError, match="alpha is"):
    advreg(MODULE, SETTINGS, alpha=alpha)


def test_a_batch_that_cannot_be_halved_is_refused():
  with pytest.raises(ValueError, match="batch_size is 1"):
    advreg(MODULE, dataclasses.replace(SETTINGS, batch_size=1))
