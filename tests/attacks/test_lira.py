"""LiRA against loops with scipy.stats, the closed form of Gaussians, and without a leak."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import attacks, metrics
from diffence_jax.attacks import shadow_phi
from diffence_jax.attacks.lira import VARIANCES, lira

MODES = [(online, variance) for online in (True, False) for variance in VARIANCES]


def gaussian(rng, num_models, num, shift, *, queries=None, means=None, scale_in=1.0, scale=1.0):
  """Phi ~ N(mean, scale) OUT and N(mean + shift * scale, scale_in * scale) IN.

  The means f[N,Q], drawn here unless given, and perhaps the scale f[N] are every example's own.
  Every example is IN for half of the models.

  Returns:
    Target and shadow phi, with an axis of queries unless these are None, and whom the shadow
    models and the target were trained with.
  """
  means = rng.normal(0, 5, (num, queries or 1)) if means is None else means
  half = np.arange(num_models)[:, None] < num_models // 2
  membership = rng.permuted(np.repeat(half, num, axis=1), axis=0)
  member = rng.random(num) < 0.5
  scale = np.broadcast_to(scale, num)[:, None]

  def draw(inside):
    noise = rng.normal(0, 1, (*inside.shape, queries or 1))
    phi = means + scale * np.where(inside[..., None], shift + scale_in * noise, noise)
    return phi[..., 0] if queries is None else phi

  return draw(member), draw(membership), membership, member


def roc(scores, member):
  return metrics.roc(scores[member], scores[~member])


def wide_interval(result):
  """The AUC's 95% interval widened to 99.99%, on the logit scale that it is symmetric on."""
  logit, ends = scipy.special.logit(result.auc), scipy.special.logit(result.auc_interval)
  ratio = scipy.stats.norm.ppf(0.99995) / scipy.stats.norm.ppf(0.975)
  return scipy.special.expit(logit + ratio * (ends - logit))


def slow_prior(variances, freedom, pooled):
  """Smyth 2004, section 6.2, by bisection, of examples with two models or more.

  Tiny variances are moved up to 1e-5 of the median, as in limma.
  """
  kept = [(s, d) for s, d in zip(variances, freedom, strict=True) if d > 0]
  least = 1e-5 * np.median([s for s, _ in kept])
  logs = [
    math.log(max(s, least)) - scipy.special.digamma(d / 2) + math.log(d / 2) for s, d in kept
  ]
  sampling = sum(scipy.special.polygamma(1, d / 2) for _, d in kept) / len(kept)
  excess = sum((e - sum(logs) / len(logs)) ** 2 for e in logs) / (len(logs) - 1) - sampling
  if excess <= 0:
    return pooled, math.inf
  difference = lambda log_y: math.log(scipy.special.polygamma(1, math.exp(log_y)) / excess)
  half = math.exp(scipy.optimize.brentq(difference, -30, 30, xtol=1e-14))
  prior = math.exp(sum(logs) / len(logs) + scipy.special.digamma(half) - math.log(half))
  return prior, 2 * half


def slow_fit(shadow, members, variance):
  """Means and variances of one query and one side."""
  groups = [shadow[members[:, i], i] for i in range(shadow.shape[1])]
  means = [np.mean(group) for group in groups]
  freedom = [len(group) - 1 for group in groups]
  own = [np.var(group, ddof=1) if len(group) > 1 else None for group in groups]
  pooled = sum(np.sum((g - m) ** 2) for g, m in zip(groups, means, strict=True)) / sum(freedom)
  if variance == "per_example":
    return means, own
  if variance == "global":
    return means, [pooled] * len(groups)
  prior, prior_freedom = slow_prior(own, freedom, pooled)
  if prior_freedom == math.inf:
    return means, [prior] * len(groups)
  return means, [
    (prior_freedom * prior + d * (s or 0.0)) / (prior_freedom + d)
    for s, d in zip(own, freedom, strict=True)
  ]


def slow_lira(target, shadow, membership, online, variance):
  """As the paper writes it, query by query."""
  if target.ndim == 1:
    target, shadow = target[:, None], shadow[:, :, None]
  total = np.zeros(len(target))
  for q in range(target.shape[1]):
    fits = [slow_fit(shadow[:, :, q], side, variance) for side in (~membership, membership)]
    for i in range(len(target)):
      gaussians = [scipy.stats.norm(fit[0][i], math.sqrt(fit[1][i])) for fit in fits]
      out, phi = gaussians[0], target[i, q]
      if online:
        total[i] += gaussians[1].logpdf(phi) - out.logpdf(phi)
      else:
        total[i] += out.logcdf(phi) - out.logsf(phi)
  return total / target.shape[1]


@pytest.mark.parametrize("spread", [0.0, 1.0], ids=["like_scales", "unlike_scales"])
@pytest.mark.parametrize("queries", [None, 1, 3])
@pytest.mark.parametrize(("online", "variance"), MODES)
def test_scores_are_the_slow_reference(online, variance, queries, spread):
  rng = np.random.default_rng(0)
  scale = np.exp(rng.normal(0, spread, 40))
  target, shadow, membership, _ = gaussian(rng, 12, 40, 1.0, queries=queries, scale=scale)
  # From 2 (or, where allowed, 1) to 11 models IN.
  least = 2 if variance == "per_example" else 1
  membership = np.arange(12)[:, None] < rng.integers(least, 13 - least, 40)
  scores = lira(target, shadow, membership, online=online, variance=variance)
  expected = slow_lira(target, shadow, membership, online, variance)
  assert scores.dtype == np.float64 and scores.shape == (40,)
  np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("queries", [1, 4])
def test_the_score_approaches_the_true_likelihood_ratio(variance, queries):
  """With S models the error falls as 1 / sqrt(S): tenfold from 40 to 4000 models."""
  rng, errors, means = np.random.default_rng(0), [], np.linspace(-5, 5, 200)[:, None]
  for num_models in (40, 4000):
    target, shadow, membership, _ = gaussian(
      rng, num_models, 200, 1.0, queries=queries, means=means, scale_in=0.5
    )
    inside = scipy.stats.norm.logpdf(target, means + 1.0, 0.5)
    truth = np.mean(inside - scipy.stats.norm.logpdf(target, means, 1.0), axis=-1)
    error = lira(target, shadow, membership, variance=variance) - truth
    errors.append(np.sqrt(np.mean(error**2)))
  assert errors[1] < 0.2 and errors[1] < errors[0] / 4


@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize(("online", "variance"), MODES)
def test_the_auc_is_that_of_the_gaussians(online, variance, queries):
  """Equal variances, a distance of d: AUC = Phi(d sqrt(Q) / sqrt(2)) online.

  Offline one query is ranked the same. Several are combined as p-values, a little less well.
  """
  rng = np.random.default_rng(1)
  target, shadow, membership, member = gaussian(rng, 400, 2500, 0.7, queries=queries)
  result = roc(lira(target, shadow, membership, online=online, variance=variance), member)
  closed_form = scipy.stats.norm.cdf(0.7 * np.sqrt(queries / 2))
  low, high = wide_interval(result)
  if online or queries == 1:
    assert low < closed_form < high
  else:
    assert scipy.stats.norm.cdf(0.7 * np.sqrt(1 / 2)) < low < closed_form


def test_offline_matches_the_closed_form_of_unequal_variances():
  """Members N(d, r), others N(0, 1): ranking by z gives AUC = Phi(d / sqrt(1 + r^2))."""
  rng = np.random.default_rng(2)
  target, shadow, membership, member = gaussian(rng, 400, 2500, 1.0, scale_in=2.0)
  result = roc(lira(target, shadow, membership, online=False), member)
  low, high = wide_interval(result)
  assert low < scipy.stats.norm.cdf(1.0 / np.sqrt(5.0)) < high
  # Online it also sees that members vary more.
  online = roc(lira(target, shadow, membership), member)
  assert online.auc_interval[0] > result.auc_interval[1]


@pytest.mark.parametrize(("online", "variance"), MODES)
def test_a_planted_leak_is_found_although_phi_itself_hides_it(online, variance):
  rng = np.random.default_rng(3)
  target, shadow, membership, member = gaussian(rng, 64, 2000, 2.0)
  result = roc(lira(target, shadow, membership, online=online, variance=variance), member)
  assert result.auc > 0.85 > 0.7 > roc(target, member).auc


@pytest.mark.parametrize("queries", [None, 3])
@pytest.mark.parametrize(("online", "variance"), MODES)
def test_without_a_leak_half_lies_in_the_interval(online, variance, queries):
  rng = np.random.default_rng(4)
  target, shadow, membership, member = gaussian(rng, 16, 2000, 0.0, queries=queries)
  result = roc(lira(target, shadow, membership, online=online, variance=variance), member)
  low, high = wide_interval(result)
  assert low < 0.5 < high and high - low < 0.15


@pytest.mark.parametrize(("online", "variance"), MODES)
def test_several_queries_beat_one(online, variance):
  rng = np.random.default_rng(5)
  target, shadow, membership, member = gaussian(rng, 32, 2000, 0.7, queries=8)
  attack = lambda *args: roc(lira(*args, online=online, variance=variance), member)
  one = attack(target[:, 0], shadow[:, :, 0], membership)
  assert attack(target, shadow, membership).auc_interval[0] > one.auc_interval[1]


def test_with_few_models_the_global_variance_beats_that_of_two_values():
  rng = np.random.default_rng(6)
  target, shadow, membership, member = gaussian(rng, 4, 4000, 2.0)
  results = {v: roc(lira(target, shadow, membership, variance=v), member) for v in VARIANCES}
  for better in ("global", "shrunk"):
    assert results[better].auc_interval[0] > results["per_example"].auc_interval[1]


def test_where_examples_vary_unlike_each_other_the_global_variance_loses():
  rng = np.random.default_rng(7)
  scale = np.exp(rng.normal(0, 1.0, 8000))
  target, shadow, membership, member = gaussian(rng, 32, 8000, 1.5, scale=scale)
  results = {v: roc(lira(target, shadow, membership, variance=v), member) for v in VARIANCES}
  for better in ("per_example", "shrunk"):
    assert results[better].auc_interval[0] > results["global"].auc_interval[1]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(9)))
@pytest.mark.parametrize(("online", "variance"), MODES)
def test_scores_follow_the_examples_and_not_the_order_of_models(online, variance, seed, order):
  rng, order = np.random.default_rng(seed), np.array(order)
  target, shadow, membership, _ = gaussian(rng, 9, 9, 1.0, queries=2)
  attack = lambda *args: lira(*args, online=online, variance=variance)
  scores = attack(target, shadow, membership)
  permuted = attack(target[order], shadow[:, order], membership[:, order])
  np.testing.assert_allclose(permuted, scores[order], rtol=1e-9, atol=1e-12)
  permuted = attack(target, shadow[order], membership[order])
  np.testing.assert_allclose(permuted, scores, rtol=1e-9, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0), shift=st.floats(-100.0, 100.0))
@pytest.mark.parametrize(("online", "variance"), MODES)
def test_the_units_of_phi_do_not_matter(online, variance, seed, scale, shift):
  target, shadow, membership, _ = gaussian(np.random.default_rng(seed), 9, 9, 1.0)
  scores, other = (
    lira(a * target + b, a * shadow + b, membership, online=online, variance=variance)
    for a, b in ((1.0, 0.0), (scale, shift))
  )
  np.testing.assert_allclose(other, scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("online", "variance"), MODES)
def test_blocks_and_memory_maps_change_nothing(online, variance, tmp_path, monkeypatch):
  target, shadow, membership, _ = gaussian(np.random.default_rng(8), 8, 50, 1.0, queries=3)
  shadow = shadow.astype(np.float32)
  shadow[0, 0, 0], shadow[1, 49, 2] = np.inf, -np.inf
  expected = lira(target, shadow, membership, online=online, variance=variance)
  stored = np.memmap(tmp_path / "phi", np.float32, "w+", shape=shadow.shape)
  stored[:] = shadow
  stored.flush()
  stored = np.memmap(tmp_path / "phi", np.float32, "r", shape=shadow.shape)
  # Blocks of 1, of 7 with a rest, and of exactly half.
  for size in (1, 7, 25):
    bytes_each = 8 * 8 * 3 * shadow_phi._NUM_TEMPORARIES
    monkeypatch.setattr(shadow_phi, "_BLOCK_BYTES", size * bytes_each)
    lengths = [len(values[0]) for _, values in shadow_phi._blocks(stored)]
    assert max(lengths) == size and sum(lengths) == 50
    scores = lira(target, stored, membership, online=online, variance=variance)
    np.testing.assert_allclose(scores, expected, rtol=1e-10, atol=1e-12)


def test_offline_keeps_the_order_of_extreme_scores_on_both_sides():
  """Where 1 - p rounds to 1, and log(1 - p) or log p to 0."""
  shadow = np.tile(np.array([[-1.0], [0.0], [1.0]]), (1, 8))
  target = np.array([-1e6, -60.0, -50.0, -9.0, 9.0, 50.0, 60.0, 1e6])
  membership = np.zeros((3, 8), bool)
  scores = lira(target, shadow, membership, online=False)
  assert np.all(np.isfinite(scores)) and np.all(np.diff(scores) > 0)
  np.testing.assert_allclose(scores, -scores[::-1])
  np.testing.assert_allclose(scores[4:6], -scipy.stats.norm.logsf([9.0, 50.0]))


@pytest.mark.parametrize(("online", "variance"), MODES)
def test_models_that_agree_exactly_give_finite_scores(online, variance):
  """Some examples, then all of them, without any variance."""
  target, shadow, membership, _ = gaussian(np.random.default_rng(9), 8, 20, 1.0)
  for still in (slice(0, 5), slice(None)):
    shadow[:, still] = np.where(membership[:, still], 1.0, 0.0)
    target[0], target[1] = 1.0, -1.0
    scores = lira(target, shadow, membership, online=online, variance=variance)
    assert np.all(np.isfinite(scores)) and scores[0] > 0.0 > scores[1]


@pytest.mark.parametrize(("online", "variance"), MODES)
def test_infinite_phi_is_the_largest_finite_one(online, variance):
  target, shadow, membership, _ = gaussian(np.random.default_rng(10), 8, 20, 1.0)
  shadow[3, 7] = -40.0
  clipped, clipped_shadow = target.copy(), shadow.copy()
  target[2], shadow[1, 4], shadow[2, 4], shadow[5, 9] = np.inf, np.inf, -np.inf, np.inf
  clipped[2] = 40.0
  clipped_shadow[1, 4], clipped_shadow[2, 4], clipped_shadow[5, 9] = 40.0, -40.0, 40.0
  np.testing.assert_array_equal(
    lira(target, shadow, membership, online=online, variance=variance),
    lira(clipped, clipped_shadow, membership, online=online, variance=variance),
  )


def test_mistakes_are_named():
  rng = np.random.default_rng(13)
  target, shadow, membership, _ = gaussian(rng, 8, 20, 1.0)
  all_in, one_in = membership.copy(), membership.copy()
  all_in[:, [4, 9]] = True
  one_in[:, 3] = np.arange(8) == 0
  nan_target, nan_shadow = target.copy(), shadow.copy()
  nan_target[0] = nan_shadow[0, 0] = np.nan
  each_one = np.arange(2)[:, None] == np.zeros((1, 20))
  for args, options, message in (
    ((target, shadow, membership), {"variance": "own"}, "variance is 'own'; expected one of"),
    ((target, shadow[:, 1:], membership), {}, r"\[20\] and shadow_phi \[8, 19\]"),
    ((target[:, None], shadow, membership), {}, r"\[N, Q\] and \[S, N, Q\]"),
    ((target[:0], shadow[:, :0], membership[:, :0]), {}, "none of them 0"),
    ((target, shadow, membership[1:]), {}, r"bool\[7, 20\]; expected bool\[8, 20\]"),
    ((target, shadow, membership.astype(int)), {}, r"int64\[8, 20\]; expected bool"),
    ((nan_target, shadow, membership), {}, "target_phi has NaN"),
    ((target, nan_shadow, membership), {}, "shadow_phi has NaN"),
    ((target + np.inf, shadow + np.inf, membership), {}, "No phi is finite"),
    ((target, shadow, all_in), {"variance": "global"}, "2 of 20 .* no OUT model.* index 4"),
    ((target, shadow, ~all_in), {"variance": "shrunk"}, "2 of 20 .* no IN model.* index 4"),
    ((target, shadow, one_in), {}, "1 of 20 .* less than two IN models.* index 3"),
    ((target, shadow, ~one_in), {"online": False}, "less than two OUT models.* index 3"),
    ((target, shadow[:2], each_one), {"variance": "global"}, "No example has two OUT models"),
  ):
    with pytest.raises(ValueError, match=message):
      lira(*args, **options)
  # What one attack lacks, another does without.
  assert np.all(np.isfinite(lira(target, shadow, one_in, variance="shrunk")))
  assert np.all(np.isfinite(lira(target, shadow, ~all_in, online=False)))


def test_arguments_of_other_kinds_are_named():
  rng = np.random.default_rng(0)
  phi, shadow = rng.normal(size=6), rng.normal(size=(8, 6))
  membership = np.arange(8)[:, None] % 2 == np.arange(6) % 2
  for own, options, message in (
    ((phi, shadow, [[True], [True, False]]), {}, "membership are no array"),
    ((phi, shadow, membership), {"online": "no"}, "online is 'no'; expected True or False"),
    (
      (1e200 * phi, shadow, membership),
      {},
      "largest finite phi is .*; expected at most 1e.150",
    ),
  ):
    with pytest.raises(ValueError, match=message):
      attacks.lira(*own, **options)
  log_p = -np.abs(phi), -np.abs(shadow)
  for options, message in (
    ({"online": "offline"}, "online is 'offline'"),
    ({"break_ties": 1}, "break_ties is 1"),
  ):
    with pytest.raises(ValueError, match=message):
      attacks.rmia(*log_p, membership, *log_p, **options)
