"""RMIA against the double loop over examples and population; a planted leak, and none."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import metrics
from diffence_jax.attacks.rmia import rmia


def log_p(rng, shape, member, leak):
  """Log p of logits that are `leak` higher for members, with a difficulty of every example."""
  logits = rng.normal(0, 2, shape[-1]) + rng.normal(0, 0.7, shape)
  return scipy.special.log_expit(logits + leak * member)


def world(seed, num_models=12, num=60, num_population=25, leak=1.5, population_in=False):
  """Arguments of `rmia`, and whom the target was trained with; half of the models are IN."""
  rng = np.random.default_rng(seed)

  def samples(num, inside):
    half = np.arange(num_models)[:, None] < (num_models // 2 if inside else 0)
    membership = rng.permuted(np.repeat(half, num, axis=1), axis=0)
    member = (rng.random(num) < 0.5) & inside
    both = np.concatenate([member[None], membership])
    values = log_p(rng, both.shape, both, leak)
    return values[0], values[1:], membership, member

  *examples, member = samples(num, True)
  # The target never saw the population; some shadow models may have.
  target, shadow, membership, _ = samples(num_population, population_in)
  return (*examples, target, shadow, membership if population_in else None), member


def slow_p(shadow, members, online, a):
  """The p of one sample, from its probabilities by all models."""
  mean_out = np.mean([p for p, m in zip(shadow, members, strict=True) if not m])
  if not online:
    return (1 + a) / 2 * mean_out + (1 - a) / 2
  if not any(members):
    return mean_out
  return (np.mean([p for p, m in zip(shadow, members, strict=True) if m]) + mean_out) / 2


def slow_rmia(
  target, shadow, membership, z_target, z_shadow, z_membership=None, online=True, a=0.3, gamma=1
):
  """All pairs, in probabilities."""
  if z_membership is None:
    z_membership = np.zeros(z_shadow.shape, bool)
  scores = []
  for i in range(len(target)):
    ratio = math.exp(target[i]) / slow_p(np.exp(shadow[:, i]), membership[:, i], online, a)
    hits = 0
    for j in range(len(z_target)):
      p = slow_p(np.exp(z_shadow[:, j]), z_membership[:, j], online, a)
      hits += ratio / (math.exp(z_target[j]) / p) >= gamma * (1 - 1e-13)
    scores.append(hits / len(z_target))
  return np.array(scores)


def roc(scores, member):
  return metrics.roc(scores[member], scores[~member])


@pytest.mark.parametrize("population_in", [False, True])
@pytest.mark.parametrize("gamma", [0.8, 1.0, 1.25])
@pytest.mark.parametrize(
  ("online", "a"), [(True, 0.3), (False, 0.0), (False, 0.3), (False, 1.0)]
)
def test_scores_are_the_double_loop(online, a, gamma, population_in):
  args, _ = world(0, population_in=population_in)
  scores = rmia(*args, online=online, interpolation=a, gamma=gamma)
  assert scores.dtype == np.float64
  assert len(np.unique(scores)) > 3
  np.testing.assert_array_equal(scores, slow_rmia(*args, online=online, a=a, gamma=gamma))


@pytest.mark.parametrize("gamma", [0.25, 0.3, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("online", [True, False])
def test_ties_count(online, gamma):
  """Examples whose ratio is a population sample's, or gamma times as much."""
  *_, z_target, z_shadow, _ = world(1, num_population=40)[0]
  z_target -= 3.0
  membership = np.arange(12)[:, None] < np.full(40, 6)
  z_shadow[6:] = z_shadow[:6]
  same = (z_target, z_shadow, membership, z_target, z_shadow)
  ranks = scipy.stats.rankdata(slow_ratios(z_target, z_shadow, online), "max")
  assert len(np.unique(ranks)) == 40
  np.testing.assert_array_equal(rmia(*same, online=online), ranks / 40)
  scaled = (z_target + math.log(gamma), *same[1:])
  np.testing.assert_array_equal(rmia(*scaled, online=online, gamma=gamma), ranks / 40)
  below = (z_target + math.log(gamma) - 1e-9, *same[1:])
  np.testing.assert_array_equal(rmia(*below, online=online, gamma=gamma), (ranks - 1) / 40)


def slow_ratios(target, shadow, online):
  means = np.mean(np.exp(shadow), axis=0)
  return np.exp(target) / (means if online else 0.65 * means + 0.35)


@pytest.mark.parametrize("online", [True, False])
def test_breaking_ties_keeps_the_order_and_leaves_none(online):
  arguments, _ = world(4, num=200)
  shares, scores = (
    rmia(*arguments, online=online),
    rmia(*arguments, online=online, break_ties=True),
  )
  num_population = len(arguments[3])
  assert len(np.unique(shares)) <= num_population + 1 < len(np.unique(scores))
  above = shares[:, None] > shares[None]
  assert np.all((scores[:, None] > scores[None])[above])
  assert np.all((scores >= shares) & (scores < shares + 1.0 / num_population))


def test_constant_predictions_tie_although_means_round():
  """Means of 3 and of 7 equal numbers do not add up to exactly those numbers."""
  values = np.full((10, 50), math.log(0.3))
  membership = np.arange(10)[:, None] < np.full(50, 3)
  for online in (True, False):
    scores = rmia(values[0], values, membership, values[0], values, online=online)
    np.testing.assert_array_equal(scores, 1.0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), data=st.data())
@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("population_in", [False, True])
def test_only_the_examples_have_an_order(population_in, online, seed, data):
  """Scores follow the examples; models and population samples can be shuffled."""
  *args, z_in = world(seed, 6, 9, 7, population_in=population_in)[0]
  target, shadow, membership, z_target, z_shadow = args
  scores = rmia(*args, z_in, online=online)
  order, models, population = (
    np.array(data.draw(st.permutations(range(num)))) for num in (9, 6, 7)
  )
  permuted = rmia(
    target[order],
    shadow[np.ix_(models, order)],
    membership[np.ix_(models, order)],
    z_target[population],
    z_shadow[np.ix_(models, population)],
    None if z_in is None else z_in[np.ix_(models, population)],
    online=online,
  )
  np.testing.assert_array_equal(permuted, scores[order])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), gammas=st.lists(st.floats(0.1, 10.0), min_size=2, max_size=2))
@pytest.mark.parametrize("online", [True, False])
def test_scores_rise_with_the_target_and_fall_with_gamma(online, seed, gammas):
  target, *rest = world(seed, 6, 9, 7)[0]
  low, high = (rmia(target, *rest, online=online, gamma=g) for g in sorted(gammas))
  assert np.all(low >= high)
  assert np.all(
    rmia(target / 2, *rest, online=online, gamma=gammas[0])
    >= (rmia(target, *rest, online=online, gamma=gammas[0]))
  )


@pytest.mark.parametrize("num_models", [2, 16])
@pytest.mark.parametrize("online", [True, False])
def test_a_planted_leak_is_found_with_few_models(online, num_models):
  args, member = world(2, num_models, 4000, 500)
  result = roc(rmia(*args, online=online), member)
  assert result.auc_interval[0] > roc(args[0], member).auc_interval[1]
  assert result.auc > 0.7


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("population_in", [False, True])
def test_without_a_leak_half_lies_in_the_interval(population_in, online):
  """At 99.99%, the interval widened on the logit scale that it is symmetric on."""
  args, member = world(3, 8, 4000, 500, leak=0.0, population_in=population_in)
  result = roc(rmia(*args, online=online), member)
  logit, ends = scipy.special.logit(result.auc), scipy.special.logit(result.auc_interval)
  ratio = scipy.stats.norm.ppf(0.99995) / scipy.stats.norm.ppf(0.975)
  low, high = scipy.special.expit(logit + ratio * (ends - logit))
  assert low < 0.5 < high and high - low < 0.1


def test_nonmembers_score_evenly_against_a_population_like_them():
  """A share of ratios no larger than its own: uniform, so FPR at score >= 1 - q is near q."""
  args, _ = world(4, 16, 2000, 2000, leak=0.0, population_in=True)
  scores = rmia(*args, online=False)
  # The Kolmogorov-Smirnov distance between two samples of this size, at 99.99%.
  distance = np.max(np.abs(np.sort(scores) - (np.arange(2000) + 0.5) / 2000))
  assert distance < scipy.stats.kstwobign.isf(1e-4) * np.sqrt(2 / 2000)


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("population_in", [False, True])
def test_memory_maps_change_nothing(population_in, online, tmp_path):
  args = list(world(5, population_in=population_in)[0])
  for index in (1, 4):
    args[index] = args[index].astype(np.float32)
  expected = rmia(*args, online=online)
  for index in (1, 4):
    path, values = tmp_path / f"log_p_{index}", args[index]
    np.memmap(path, np.float32, "w+", shape=values.shape)[:] = values
    args[index] = np.memmap(path, np.float32, "r", shape=values.shape)
  np.testing.assert_array_equal(rmia(*args, online=online), expected)


def test_probabilities_of_zero_leave_no_nan():
  target, shadow, membership, z_target, z_shadow, _ = world(6)[0]
  # By all models; by the target only; by the shadow models only; and in the population.
  shadow[:, [0, 2]] = target[[0, 1]] = z_target[[0, 1]] = z_shadow[:, [0, 2]] = -np.inf
  for online in (True, False):
    for a in (0.3, 1.0):
      scores = rmia(
        target, shadow, membership, z_target, z_shadow, online=online, interpolation=a
      )
      assert np.all((scores >= 0.0) & (scores <= 1.0))
      assert scores[1] <= scores.min() + 2 / 25
      if online or a == 1.0:
        # Nothing is likelier than what no shadow model thought possible.
        assert scores[2] >= scores.max() - 1 / 25


def test_mistakes_are_named():
  args, _ = world(8, population_in=True)
  all_in = args[2].copy()
  all_in[:, [4, 9]] = True
  z_all_in = args[5].copy()
  z_all_in[:, 3] = True

  def changed(**values):
    return tuple(values.get(f"_{i}", arg) for i, arg in enumerate(args))

  for new, options, message in (
    (args, {"gamma": 0.0}, "gamma is 0.0"),
    (args, {"gamma": np.nan}, "gamma is nan"),
    (args, {"interpolation": 1.1}, r"interpolation is 1.1; expected a number, 0.0 to 1.0"),
    (args, {"interpolation": -0.1}, "interpolation is -0.1"),
    (changed(_0=args[0][1:]), {}, r"target_log_p \[59\] and shadow_log_p \[12, 60\]"),
    (changed(_4=args[4][:, 1:]), {}, r"population_target_log_p \[25\] and population_shadow"),
    (changed(_3=args[3][:0], _4=args[4][:, :0]), {}, "neither of them 0"),
    (changed(_4=args[4][1:]), {}, "12 shadow models of the examples and 11 of the population"),
    (changed(_0=np.exp(args[0])), {}, "^target_log_p has NaN or values above 0"),
    (changed(_1=args[1] * np.nan), {}, "shadow model's log-probability has NaN"),
    (changed(_3=args[3] * np.nan), {}, "population_target_log_p has NaN"),
    (changed(_2=None), {}, r"membership are a NoneType.* expected an array"),
    (changed(_2=args[2].astype(int)), {}, "int64"),
    (changed(_5=args[5].T), {}, "^population_membership is bool"),
    (changed(_2=~all_in), {}, "2 of 60 examples have no IN model.* index 4 of membership"),
    (changed(_2=all_in), {"online": False}, "2 of 60 examples have no OUT model.* index 4"),
    (changed(_5=z_all_in), {"online": False}, "1 of 25 .* index 3 of population_membership"),
  ):
    with pytest.raises(ValueError, match=message):
      rmia(*new, **options)
  assert np.all(np.isfinite(rmia(*changed(_2=~all_in), online=False)))
