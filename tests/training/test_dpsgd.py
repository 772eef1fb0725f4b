"""DP-SGD: what a step descends, how batches are drawn, and what both guarantee."""

import dataclasses
import functools
import itertools
import math
import os
import subprocess
import sys

import dp_accounting
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
from jax_privacy import accounting

from diffence_jax import models, parallel
from diffence_jax.rng import own_key
from diffence_jax.training import TrainSettings, train_classifier, train_ensemble
from diffence_jax.training.accounting import epsilon, noise_for
from diffence_jax.training.dpsgd import dpsgd, poisson
from diffence_jax.training.private_gradient import private_gradient

SETTINGS = TrainSettings(40, epochs=3, batch_size=8, learning_rate=1e-2, weight_decay=1e-3)


class Classifier(nn.Module):
  """Small, with dropout."""

  @nn.compact
  def __call__(self, images, *, train: bool = False):
    x = nn.relu(nn.Dense(32)(images.reshape(len(images), -1)))
    return nn.Dense(3)(nn.Dropout(0.3, deterministic=not train)(x))


class Plain(nn.Module):
  """Small, and the same in both modes."""

  @nn.compact
  def __call__(self, images, *, train: bool = False):
    return nn.Dense(3)(nn.tanh(nn.Dense(16)(images.reshape(len(images), -1))))


class WithStatistics(nn.Module):
  """Has running statistics, and no other way."""

  @nn.compact
  def __call__(self, images, *, train: bool = False):
    x = nn.BatchNorm(use_running_average=not train)(images)
    return nn.Dense(3)(x.reshape(len(x), -1))


MODULE, PLAIN = Classifier(), Plain()

# "rbg" draws compile faster; under vmap they do not follow from each key alone, so not there.
fast_key = functools.partial(jax.random.key, impl="rbg")


def examples(num, padding=0, seed=0):
  rng = np.random.default_rng(seed)
  return {
    "images": rng.integers(0, 256, (num + padding, 4, 4, 1)).astype(np.uint8),
    "labels": rng.integers(0, 3, num + padding).astype(np.int32),
    "is_padding": np.arange(num + padding) >= num,
  }


@functools.cache
def params(module=MODULE):
  return models.init(module, fast_key(0), (4, 4, 1))["params"]


@functools.cache
def compiled(module, clip_norm, noise, **options):
  made = private_gradient(
    module, clip_norm=clip_norm, noise_multiplier=noise, batch_size=5, **options
  )
  return jax.jit(made)


def gradient_of(batch, key=0, module=MODULE, clip_norm=1.0, noise=0.0, **options):
  made = compiled(module, clip_norm, noise, **options)
  return made(params(module), batch, jax.random.key(key))


def assert_close(a, b, **tolerance):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


# What a step descends.


def one_by_one(batch):
  """Gradients, losses and hits of the examples, one after another."""

  @jax.jit
  def loss(params, image, label):
    logits = PLAIN.apply({"params": params}, image[None].astype(jnp.float32) / 255.0)[0]
    return -jax.nn.log_softmax(logits)[label], jnp.argmax(logits) == label

  found = []
  for image, label in zip(batch["images"], batch["labels"], strict=True):
    (value, hit), gradient = jax.value_and_grad(loss, has_aux=True)(params(PLAIN), image, label)
    found.append((jax.tree.map(np.asarray, gradient), float(value), bool(hit)))
  return zip(*found, strict=True)


def test_gradients_are_clipped_one_by_one_and_summed():
  batch = examples(12)
  gradients, losses, hits = one_by_one(batch)
  norms = [float(optax.global_norm(gradient)) for gradient in gradients]
  clip = float(np.median(norms))
  assert min(norms) < 0.9 * clip and max(norms) > 1.1 * clip
  scales = [min(1.0, clip / norm) for norm in norms]
  expected = jax.tree.map(
    lambda *each: sum(s * g for s, g in zip(scales, each, strict=True)) / 5, *gradients
  )
  found, metrics = gradient_of(batch, module=PLAIN, clip_norm=clip)
  assert_close(found, expected, rtol=1e-4, atol=1e-6)
  expected = {"loss": np.mean(losses), "accuracy": np.mean(hits), "clipped": 0.5}
  assert_close(metrics, expected, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"microbatch_size": 4}])
def test_padding_counts_for_nothing(options):
  clean = gradient_of(examples(6))
  for seed in (1, 2):
    batch, other = examples(6, 5), examples(6, 5, seed=seed)
    for name in ("images", "labels"):
      batch[name] = np.concatenate([examples(6)[name], other[name][6:]])
    assert_close(gradient_of(batch, **options), clean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"microbatch_size": 4}])
def test_a_batch_of_nobody_has_no_gradient_and_a_finite_loss(options):
  gradient, metrics = gradient_of(examples(0, 11), **options)
  assert all((leaf == 0.0).all() for leaf in jax.tree.leaves(gradient))
  assert metrics == {"loss": 0.0, "accuracy": 0.0, "clipped": 0.0}


@pytest.mark.parametrize("microbatch_size", [4, 16])
def test_microbatches_change_nothing(microbatch_size):
  # Dropout is part of it: an example's does not depend on what it is computed with.
  batch = examples(7, 4)
  whole = gradient_of(batch, noise=0.5)
  parts = gradient_of(batch, noise=0.5, microbatch_size=microbatch_size)
  assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_dropout_differs_between_examples_and_keys():
  same = {name: np.repeat(values, 11, axis=0) for name, values in examples(1).items()}
  kernel = lambda batch, key: np.asarray(
    gradient_of(batch, key=key, clip_norm=1e6)[0]["Dense_0"]["kernel"]
  )
  alone = lambda place: {**same, "is_padding": np.arange(11) != place}
  one, other = kernel(alone(0), 0), kernel(alone(1), 0)
  assert np.abs(one - other).max() > 1e-3
  assert np.abs(one - kernel(alone(0), 1)).max() > 1e-3
  both = kernel({**same, "is_padding": np.arange(11) > 1}, 0)
  np.testing.assert_allclose(both, one + other, rtol=1e-4, atol=1e-6)


def test_noise_has_the_deviation_that_is_accounted_for():
  clip, noise, start = 0.7, 1.3, params()
  keys = jax.random.split(jax.random.key(3), 200)
  flat = lambda gradient: jax.flatten_util.ravel_pytree(gradient)[0]

  @functools.partial(jax.jit, static_argnums=0)
  def draw(noise, batch):
    made = compiled(MODULE, clip, noise)
    return jax.vmap(lambda key: flat(made(start, batch, key)[0]))(keys)

  # The same keys, so the same dropout.
  drawn = np.asarray(draw(noise, examples(6)) - draw(0.0, examples(6)), np.float64)
  # Nor does it depend on who is in the batch, or whether anybody is.
  np.testing.assert_allclose(draw(noise, examples(0, 6)), drawn, atol=1e-5)
  expected = noise * clip / 5
  normal = drawn / expected
  n = normal.size
  assert normal.shape == (200, models.num_parameters(start))
  # Each bound is 5 deviations of what it bounds; leaves are of different sizes, so by column.
  assert abs(normal.mean()) < 5 / math.sqrt(n)
  assert abs(normal.var() - 1.0) < 5 * math.sqrt(2 / n)
  assert abs(np.mean(normal**4) - 3.0) < 5 * math.sqrt(96 / n)
  assert np.abs(normal.var(0) - 1.0).max() < 6 * math.sqrt(2 / len(normal))
  # No parameter's noise is another's, nor one key's another's.
  for matrix in (normal, normal.T):
    correlation = np.corrcoef(matrix) - np.eye(len(matrix))
    assert np.abs(correlation).max() < 6.5 / math.sqrt(matrix.shape[1])


def test_examples_may_be_on_several_devices():
  # Left to itself, XLA computes the gradients of the convolution's kernel wrongly.
  code = """
import jax, numpy as np
from flax import linen as nn
from diffence_jax import parallel
from diffence_jax.training.private_gradient import private_gradient

class Classifier(nn.Module):
  @nn.compact
  def __call__(self, images, *, train=False):
    x = nn.tanh(nn.Conv(4, (3, 3))(images)).mean((1, 2))
    return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))

rng = np.random.default_rng(0)
batch = {
  "images": rng.integers(0, 256, (8, 4, 4, 2)).astype(np.uint8),
  "labels": np.arange(8) % 3,
  "is_padding": np.arange(8) > 5,
}
params = Classifier().init(jax.random.key(0), batch["images"] / 255.0)["params"]
found = []
for num, size in ((1, None), (2, None), (2, 3)):
  made = jax.jit(private_gradient(
    Classifier(), clip_norm=0.3, noise_multiplier=0.0, batch_size=5, microbatch_size=size
  ))
  mesh = parallel.batch_mesh(jax.devices()[:num])
  given = parallel.shard_batch(mesh, batch)
  assert len(given["images"].sharding.device_set) == num
  gradient = made(parallel.replicate(mesh, params), given, jax.random.key(1))
  found.append(jax.device_get(gradient))
for other in found[1:]:
  same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  jax.tree.map(same, other, found[0])
assert np.abs(found[0][0]["Conv_0"]["kernel"]).max() > 1e-3
assert 0 < found[0][1]["clipped"] <= 1
"""
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
  env = {**os.environ, "XLA_FLAGS": flags}
  ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
  assert ran.returncode == 0, ran.stderr


def test_a_step_descends_the_private_gradient():
  recipe = dpsgd(MODULE, SETTINGS, clip_norm=0.7, noise_multiplier=0.9)
  state = recipe.init(fast_key(1), (4, 4, 1))
  batch, key = examples(6, 2), fast_key(5)
  made = private_gradient(MODULE, clip_norm=0.7, noise_multiplier=0.9, batch_size=8)
  after, opt_state, gradients = state.params, state.opt_state, []
  step = jax.jit(recipe.kinds["train"].step)
  for number in range(2):
    gradient, expected = jax.jit(made)(after, batch, jax.random.fold_in(own_key(key), number))
    updates, opt_state = SETTINGS.optimizer.update(gradient, opt_state, after)
    after = optax.apply_updates(after, updates)
    gradients.append(gradient)
    state, metrics = step(state, {"members": batch}, key)
    assert_close(metrics, expected, rtol=1e-5)
  assert state.step == 2
  assert_close(state.params, after, rtol=1e-5, atol=1e-6)
  leaves = [np.asarray(gradient["Dense_0"]["bias"]) for gradient in gradients]
  assert np.abs(leaves[0] - leaves[1]).min() > 1e-4  # noise of its own for each step


# Batches.


def drawn(settings, num, seed=3, first=0, batches=1):
  stream = poisson(settings)({"members": num, "reference": 0}, seed, first)
  return [next(stream)["members"] for _ in range(batches)]


def inclusions(settings, num, batches, seed=3):
  """bool[batches, num]."""
  found = np.zeros((batches, num), bool)
  for row, rows in zip(found, drawn(settings, num, seed, batches=batches), strict=True):
    row[rows[rows >= 0]] = True
  return found


@pytest.mark.parametrize(
  ("num", "batch_size", "widest"), [(400, 64, 128), (25_000, 128, 224), (12, 4, 13)]
)
def test_batches_have_one_size_and_end_in_padding(num, batch_size, widest):
  settings = TrainSettings(num, 1, batch_size, 1e-3, 0.0)
  batches = drawn(settings, num, batches=50)
  assert {len(rows) for rows in batches} == {len(batches[0])}
  size = len(batches[0])
  assert batch_size < size <= widest
  # The last place is never taken.
  assert scipy.stats.binom.sf(size - 1, num, batch_size / num) <= 1e-12
  for rows in batches:
    count = np.sum(rows >= 0)
    assert count < size and (rows[count:] == -1).all()
    assert (np.diff(rows[:count]) > 0).all() and rows[:count].max(initial=0) < num


def test_every_member_is_in_a_batch_by_a_coin_of_its_own():
  num, batches, probability = 60, 2000, 0.2
  found = inclusions(TrainSettings(num, 1, 12, 1e-3, 0.0), num, batches)
  variance = probability * (1 - probability)
  sizes = found.sum(1)
  assert abs(sizes.mean() - 12) < 5 * math.sqrt(num * variance / batches)
  # A batch of fixed size has no variance, one of coins that of the binomial distribution.
  assert abs(sizes.var() / (num * variance) - 1.0) < 5 * math.sqrt(2 / batches)
  assert np.abs(found.mean(0) - probability).max() < 5 * math.sqrt(variance / batches)
  for matrix in (found, found.T):  # batches are independent, and so are members
    other = np.corrcoef(matrix[:60]) - np.eye(60)
    assert np.abs(other).max() < 6 / math.sqrt(matrix.shape[1])
  lagged = np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]
  assert abs(lagged) < 5 / math.sqrt(found.size)


def test_the_chance_does_not_hang_on_how_many_there_are():
  # A member more or less must change nothing for the others.
  settings = TrainSettings(60, 1, 12, 1e-3, 0.0)
  found = inclusions(settings, 40, 1000)
  assert abs(found.mean() - 0.2) < 5 * math.sqrt(0.16 / found.size)
  assert len(drawn(settings, 40)[0]) == len(drawn(settings, 60)[0])


@pytest.mark.parametrize("seed", [3, [3, 77]])
def test_any_batch_can_be_had_at_once(seed):
  whole = drawn(SETTINGS, 40, seed, batches=6)
  for first in range(6):
    np.testing.assert_array_equal(drawn(SETTINGS, 40, seed, first)[0], whole[first])
  for a, b in itertools.combinations(whole, 2):
    assert (a != b).any()
  assert (drawn(SETTINGS, 40, 4)[0] != whole[0]).any()


def test_nobody_is_cut_off_where_a_batch_is_too_large(monkeypatch):
  monkeypatch.setattr("diffence_jax.training.dpsgd._OVERFLOW", 0.3)
  batches = drawn(SETTINGS, 40, batches=100)
  monkeypatch.undo()
  expected = drawn(SETTINGS, 40, batches=100)
  assert {len(rows) for rows in batches} == {10, 20}
  for rows, whole in zip(batches, expected, strict=True):
    assert rows[-1] == -1
    np.testing.assert_array_equal(rows[rows >= 0], whole[whole >= 0])


def test_all_members_at_once():
  settings = TrainSettings(12, 1, 12, 1e-3, 0.0)
  for rows in drawn(settings, 12, batches=3):
    np.testing.assert_array_equal(rows, [*range(12), -1])


# What it guarantees.


@pytest.mark.parametrize(("noise", "num_steps"), [(0.05, 100), (0.1, 100), (1.0, 4), (8.0, 50)])
def test_epsilon_of_full_batches_is_that_of_one_gaussian(noise, num_steps):
  # Balle & Wang 2018, theorem 8, for the sum of all steps.
  mu, delta = math.sqrt(num_steps) / noise, 1e-5

  def excess(found):
    upper = scipy.stats.norm.logcdf(mu / 2 - found / mu)
    lower = found + scipy.stats.norm.logcdf(-mu / 2 - found / mu)
    return math.log(math.exp(upper) - math.exp(lower)) - math.log(delta)

  exact = scipy.optimize.brentq(excess, 1e-3, mu**2 / 2 + 10 * mu)
  assert exact * (1 - 1e-6) <= epsilon(noise, 1.0, num_steps, delta) <= exact * 1.001


def test_epsilon_of_one_step_is_the_integral():
  noise, probability, delta = 0.8, 0.3, 1e-4
  normal = lambda x, mean: scipy.stats.norm.pdf(x, mean, noise)
  without = lambda x: normal(x, 0.0)
  mixed = lambda x: (1 - probability) * normal(x, 0.0) + probability * normal(x, 1.0)

  def beyond(found, p, q):
    part = lambda x: max(p(x) - math.exp(found) * q(x), 0.0)
    return scipy.integrate.quad(part, -12.0, 13.0, limit=500, points=np.arange(-8.0, 9.0))[0]

  crossing = lambda p, q: scipy.optimize.brentq(
    lambda found: beyond(found, p, q) - delta, 0.0, 8.0, xtol=1e-6
  )
  exact = max(crossing(mixed, without), crossing(without, mixed))
  assert exact - 1e-4 <= epsilon(noise, probability, 1, delta) <= exact + 1e-3


@pytest.mark.parametrize(
  ("noise", "num", "batch_size", "num_steps"),
  [(1.1, 60_000, 256, 3516), (0.6, 400, 64, 750), (4.0, 60_000, 600, 10_000)],
)
def test_epsilon_is_what_other_accounts_find(noise, num, batch_size, num_steps):
  found = epsilon(noise, batch_size / num, num_steps, 1e-5)
  parameters = accounting.DpParams(
    noise_multipliers=noise, num_samples=num, delta=1e-5, batch_size=batch_size
  )
  account = lambda config: accounting.DpsgdTrainingAccountant(config).compute_epsilon(
    num_steps, parameters
  )
  assert found == pytest.approx(account(accounting.PldAccountantConfig()), rel=1e-3)
  assert 0.5 * account(accounting.RdpAccountantConfig()) < found
  assert found < account(accounting.RdpAccountantConfig())


def test_epsilon_is_no_more_than_published():
  # Abadi et al., section 5.2: 1.26 by the moments accountant, which is looser.
  assert 0.8 < epsilon(4.0, 0.01, 10_000, 1e-5) < 1.26


@pytest.mark.parametrize("noise", [0.001, 0.05, 0.1])
@pytest.mark.parametrize(("num", "batch_size", "epochs"), [(25_000, 128, 100), (400, 64, 120)])
def test_little_noise_has_a_finite_epsilon_and_promises_nothing(noise, num, batch_size, epochs):
  settings = TrainSettings(num, epochs, batch_size, 1e-3, 0.0)
  found, delta, reported = dpsgd(MODULE, settings, noise_multiplier=noise).guarantee
  assert 5000 < found < math.inf and delta == 1e-5 and reported == noise
  # One step in which the member is seen for certain loses about 1 / (2 noise^2); all steps are
  # no worse than that many full batches.
  mu = math.sqrt(settings.num_steps) / noise
  assert found < (mu**2 / 2 + 6 * mu) * (1 if noise >= 0.05 else 2)


def test_epsilon_falls_with_noise_and_grows_with_all_else():
  assert epsilon(1.0, 0.1, 100, 1e-5) > epsilon(1.1, 0.1, 100, 1e-5)
  assert epsilon(1.0, 0.1, 100, 1e-5) < epsilon(1.0, 0.11, 100, 1e-5)
  assert epsilon(1.0, 0.1, 100, 1e-5) < epsilon(1.0, 0.1, 110, 1e-5)
  assert epsilon(1.0, 0.1, 100, 1e-5) < epsilon(1.0, 0.1, 100, 1e-6)
  # The package's own finds infinity at 0.26.
  found = [epsilon(noise, 4096 / 50_000, 1221, 1e-5) for noise in (0.25, 0.26, 0.27)]
  assert 800 > found[0] > found[1] > found[2] > 600


@pytest.mark.parametrize("target", [0.01, 2.0, 500.0])
def test_the_target_is_reached(target):
  recipe = dpsgd(MODULE, SETTINGS, target_epsilon=target)
  assert 0.99 * target <= recipe.guarantee.epsilon <= target
  assert recipe.guarantee.delta == 1e-5
  noise = recipe.guarantee.noise_multiplier
  event = dp_accounting.SelfComposedDpEvent(
    dp_accounting.PoissonSampledDpEvent(8 / 40, dp_accounting.GaussianDpEvent(noise)), 15
  )
  accountant = dp_accounting.pld.PLDAccountant(value_discretization_interval=1e-3 * target)
  assert accountant.compose(event).get_epsilon(1e-5) == pytest.approx(target, rel=0.02)


def test_delta_alone_may_be_enough():
  # A member takes part with a chance of less than delta, or what it changes is less likely.
  assert epsilon(1e6, 0.2, 100, 1e-5) == epsilon(1.0, 1e-6, 1, 1e-5) == 0.0
  assert epsilon(1.0, 0.2, 1, 0.9) == 0.0
  assert noise_for(1.0, 0.2, 1, 0.9) < 0.01
  # In 3 steps 48.8 % take part: a delta just above is enough, one just below is not.
  assert epsilon(1e-3, 0.2, 3, 0.4881) == 0.0 < epsilon(1e-3, 0.2, 3, 0.4879)


def test_the_noise_for_the_target_is_the_noise_of_a_step():
  recipe = dpsgd(MODULE, SETTINGS, target_epsilon=2.0)
  noise = noise_for(2.0, 8 / 40, len(recipe.schedule), recipe.guarantee.delta)
  same = dpsgd(MODULE, SETTINGS, noise_multiplier=noise)
  assert same.guarantee == recipe.guarantee and noise > 0.5
  state, batch = recipe.init(fast_key(1), (4, 4, 1)), {"members": examples(3, 2)}
  after = [
    jax.jit(one.kinds["train"].step)(state, batch, fast_key(2))[0].params
    for one in (recipe, same)
  ]
  assert_close(*after)


def test_the_guarantee_counts_the_steps_that_are_taken():
  recipe = dpsgd(MODULE, SETTINGS, noise_multiplier=1.5)
  assert recipe.schedule == ("train",) * 15
  assert recipe.guarantee == (epsilon(1.5, 0.2, 15, 1e-5), 1e-5, 1.5)
  large = dataclasses.replace(SETTINGS, num_members=100_000)
  assert dpsgd(MODULE, large, noise_multiplier=1.5).guarantee.delta == 5e-6


# Models.


def test_a_residual_network_is_trained_with_group_normalisation():
  module = models.SmallResNet(num_classes=3, width=4, stages=(1,))
  recipe = dpsgd(module, SETTINGS)
  assert module.norm == "batch" and recipe.module == module.clone(norm="group")
  assert recipe.answering is recipe.module
  state = jax.eval_shape(lambda key: recipe.init(key, (4, 4, 1)), fast_key(0))
  assert state.model_state == {} and set(recipe.variables(state)) == {"params"}
  batch = {"members": examples(5, 1)}
  after, metrics = jax.eval_shape(recipe.kinds["train"].step, state, batch, fast_key(0))
  same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), after, state)
  assert jax.tree.all(same) and set(metrics) == {"loss", "accuracy", "clipped"}


def test_running_statistics_are_refused():
  recipe = dpsgd(WithStatistics(), SETTINGS)
  with pytest.raises(ValueError, match="WithStatistics has the variables batch_stats beside"):
    recipe.init(jax.random.key(0), (4, 4, 1))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"clip_norm": 0.0}, "clip_norm is 0.0; expected a finite number, above 0"),
    ({"clip_norm": math.inf}, "clip_norm is inf"),
    ({"noise_multiplier": 0.0}, "noise_multiplier is 0.0; expected a number, 1e-06 to"),
    ({"noise_multiplier": "much"}, "noise_multiplier is 'much'"),
    ({"delta": 0.0}, "delta is 0.0; expected a number, 1e-100 to"),
    ({"delta": 1.0}, "delta is 1.0; expected less than 1"),
    ({"target_epsilon": 0.0}, "target_epsilon is 0.0; expected a number, 0.01 to 1000"),
    ({"target_epsilon": 1e6}, "target_epsilon is 1000000.0; expected a number, 0.01 to 1000"),
    ({"target_epsilon": 1.0, "noise_multiplier": 1.0}, "give only one"),
  ],
)
def test_settings_out_of_range_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    dpsgd(MODULE, SETTINGS, **options)


@pytest.mark.parametrize("size", [0, 2.5])
def test_a_microbatch_has_examples(size):
  message = f"microbatch_size is {size}; expected a whole number, at least 1"
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SETTINGS, microbatch_size=size)


def test_batches_larger_than_the_data_are_refused():
  with pytest.raises(ValueError, match="batch_size is 41; expected a whole number, 1 to 40"):
    dpsgd(MODULE, dataclasses.replace(SETTINGS, batch_size=41))


def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "jax_privacy", None)
  with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[dp\]'") as caught:
    dpsgd(MODULE, SETTINGS)
  assert caught.value.name == "jax_privacy"


def test_the_package_is_imported_only_where_it_is_used():
  code = (
    "import sys, diffence_jax.training.dpsgd\n"
    "print([name for name in ('jax_privacy', 'dp_accounting') if name in sys.modules])"
  )
  ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert ran.stdout == "[]\n"


# Training.


def learnable(num, seed=0):
  """Three classes, told apart by which part of the image is bright."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 3, num).astype(np.int32)
  images = rng.integers(0, 100, (num, 4, 4, 1))
  images[np.arange(num), labels] += 120
  return {"images": images.astype(np.uint8), "labels": labels}


def trained(directory, seed=0, **options):
  settings = TrainSettings(200, 20, 40, 3e-2, 0.0)
  recipe = dpsgd(PLAIN, settings, **options)
  variables = train_classifier(
    recipe,
    learnable(200),
    checkpoint_every=1000,
    seed=seed,
    mesh=parallel.batch_mesh(),
    directory=directory,
  )
  held_out = learnable(300, seed=1)
  logits = models.predictor(recipe.answering, variables)(None, held_out["images"] / 255.0)
  return variables, np.mean(np.argmax(logits, -1) == held_out["labels"]), recipe


def test_it_learns_the_same_again_from_the_same_seed(tmp_path):
  variables, accuracy, recipe = trained(tmp_path / "a", target_epsilon=8.0)
  assert accuracy > 0.8 and recipe.guarantee.epsilon <= 8.0
  jax.tree.map(
    np.testing.assert_array_equal,
    trained(tmp_path / "b", target_epsilon=8.0)[0],
    variables,
  )
  with pytest.raises(AssertionError):
    assert_close(trained(tmp_path / "c", seed=1, target_epsilon=8.0)[0], variables, rtol=0.1)


def test_noise_that_promises_much_leaves_nothing_to_learn(tmp_path):
  _, accuracy, _ = trained(tmp_path, noise_multiplier=200.0)
  assert accuracy < 0.7


@pytest.mark.parametrize("microbatch_size", [None, 5])
def test_several_at_once_are_the_same_models_as_one_after_another(microbatch_size):
  settings = TrainSettings(20, 3, 8, 1e-2, 1e-4, microbatch_size)
  recipe = dpsgd(MODULE, settings, noise_multiplier=0.5)
  membership = np.zeros((3, 40), bool)
  for row, start in zip(membership, (0, 9, 20), strict=True):
    row[start : start + 20] = True

  def train(at_once):
    kept = {}
    train_ensemble(
      recipe,
      learnable(40),
      None,
      membership,
      names=["a", "b", "c"],
      keep=kept.__setitem__,
      seed=7,
      mesh=parallel.batch_mesh(),
      models_at_once=at_once,
    )
    return kept

  alone, together = train(1), train(2)
  assert sorted(alone) == [0, 1, 2]
  # Adam divides by the root of small squares: rounding is not small everywhere.
  assert_close(together, alone, rtol=1e-3, atol=1e-4)
  with pytest.raises(AssertionError):
    assert_close(alone[0], alone[1], atol=1e-2)
