"""PMIA against loops over examples, models and proxies, and with a leak that phi hides."""

import math

import numpy as np
import pytest
import scipy.stats
from attacks.test_lira import gaussian, roc, slow_fit, wide_interval
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax.attacks import lira, pmia
from diffence_jax.attacks.pmia import PROXIES

EVERY_KIND = pytest.mark.parametrize("proxies", PROXIES)
LABELS = np.random.default_rng(1).integers(0, 3, 40)


def slow_proxies(i, proxies, num_proxies, labels, means):
  """Indices of the proxies of an example, one of which may be the example."""
  if proxies == "global":
    return range(len(means))
  if proxies == "class":
    return [j for j in range(len(means)) if labels[j] == labels[i]]
  ranks = sorted(range(len(means)), key=lambda j: means[j])
  width = min(num_proxies + 1, len(means))
  first = max(0, min(ranks.index(i) - num_proxies // 2, len(means) - width))
  return ranks[first : first + width]


def slow_pmia(target, shadow, membership, labels, proxies, num_proxies, variance):
  if target.ndim == 1:
    target, shadow = target[:, None], shadow[:, :, None]
  outs = [slow_fit(shadow[:, :, q], ~membership, variance) for q in range(target.shape[1])]
  out_means = [
    np.mean([shadow[s, i] for s in range(len(shadow)) if not membership[s, i]])
    for i in range(len(target))
  ]
  scores = []
  for i in range(len(target)):
    chosen = slow_proxies(i, proxies, num_proxies, labels, out_means)
    total = 0.0
    for q, (means, variances) in enumerate(outs):
      values = [
        shadow[s, j, q]
        for s in range(len(shadow))
        for j in chosen
        if membership[s, j] and not membership[s, i]
      ]
      inside = scipy.stats.norm(np.mean(values), np.std(values, ddof=1))
      outside = scipy.stats.norm(means[i], math.sqrt(variances[i]))
      total += inside.logpdf(target[i, q]) - outside.logpdf(target[i, q])
    scores.append(total / target.shape[1])
  return np.array(scores)


@pytest.mark.parametrize(
  "proxies, num_proxies", [("global", 1), ("class", 1), ("behaviour", 7), ("behaviour", 99)]
)
@pytest.mark.parametrize("queries, variance", [(None, "global"), (2, "per_example")])
def test_scores_are_the_slow_reference(proxies, num_proxies, queries, variance):
  rng = np.random.default_rng(0)
  target, shadow, _, _ = gaussian(rng, 10, 40, 1.0, queries=queries)
  # From 1 to 8 models IN.
  membership = rng.permuted(np.arange(10)[:, None] < rng.integers(1, 9, 40), axis=0)
  args = (target, shadow, membership, LABELS)
  options = {"proxies": proxies, "num_proxies": num_proxies, "variance": variance}
  scores = pmia(*args, **options)
  assert scores.dtype == np.float64 and scores.shape == (40,)
  np.testing.assert_allclose(scores, slow_pmia(*args, **options), rtol=1e-8, atol=1e-8)


@EVERY_KIND
def test_what_models_trained_with_an_example_answer_about_it_is_not_read_for_it(proxies):
  target, shadow, membership, _ = gaussian(np.random.default_rng(2), 10, 40, 1.0)
  changed = shadow.copy()
  changed[membership[:, 5], 5] += 3.0
  scores = pmia(target, shadow, membership, LABELS, proxies=proxies)
  others = pmia(target, changed, membership, LABELS, proxies=proxies)
  np.testing.assert_allclose(others[5], scores[5], rtol=1e-10)
  assert not np.allclose(others, scores)


@EVERY_KIND
def test_a_planted_leak_is_found_although_phi_itself_hides_it(proxies):
  target, shadow, membership, member = gaussian(np.random.default_rng(3), 16, 2000, 2.0)
  scores = pmia(target, shadow, membership, np.arange(2000) % 4, proxies=proxies)
  # Where every example has a mean of its own, all others stand for it badly.
  least = 0.85 if proxies == "behaviour" else 0.75
  assert roc(scores, member).auc > least > 0.7 > roc(target, member).auc


def test_it_is_above_lira_where_how_far_members_are_raised_depends_on_how_hard_they_are():
  """The lower the phi of OUT models, the more training raises it; easy ones hardly move."""
  rng = np.random.default_rng(5)
  means = rng.normal(0, 3, 3000)
  shift = np.where(means < 0, 3.0, 0.0)
  membership = rng.permuted(np.repeat(np.arange(16)[:, None] < 8, 3000, axis=1), axis=0)
  member = rng.random(3000) < 0.5
  draw = lambda inside: means + shift * inside + rng.normal(0, 1, inside.shape)
  args = draw(member), draw(membership), membership
  proxies, one_sided = pmia(*args), lira(*args, online=False, variance="global")
  assert roc(proxies, member).auc > roc(one_sided, member).auc + 0.02


@EVERY_KIND
def test_without_a_leak_half_lies_in_the_interval(proxies):
  target, shadow, membership, member = gaussian(np.random.default_rng(4), 16, 2000, 0.0)
  result = roc(pmia(target, shadow, membership, np.arange(2000) % 4, proxies=proxies), member)
  low, high = wide_interval(result)
  assert low < 0.5 < high and high - low < 0.15


@settings(max_examples=10, deadline=None)
@given(
  seed=st.integers(0, 1000),
  order=st.permutations(range(10)),
  scale=st.floats(0.01, 100.0),
  shift=st.floats(-100.0, 100.0),
)
@EVERY_KIND
def test_neither_order_nor_units_matter(proxies, seed, order, scale, shift):
  order = np.array(order)
  target, shadow, membership, _ = gaussian(np.random.default_rng(seed), 10, 10, 1.0, queries=2)
  labels = np.arange(10) % 2
  score = lambda *args: pmia(*args, proxies=proxies, num_proxies=6)
  scores = score(target, shadow, membership, labels)
  for arguments, expected in (
    ((target[order], shadow[:, order], membership[:, order], labels[order]), scores[order]),
    ((target, shadow[order], membership[order], labels), scores),
    ((scale * target + shift, scale * shadow + shift, membership, labels), scores),
  ):
    np.testing.assert_allclose(score(*arguments), expected, rtol=1e-5, atol=1e-5)


@EVERY_KIND
def test_models_that_agree_and_infinite_phi_give_finite_scores(proxies):
  target, shadow, membership, _ = gaussian(np.random.default_rng(9), 10, 40, 1.0)
  target[2], shadow[1, 4] = np.inf, -np.inf
  assert np.all(np.isfinite(pmia(target, shadow, membership, LABELS, proxies=proxies)))
  shadow[:] = np.where(membership, 1.0, 0.0)
  target[0], target[1] = 1.0, 0.0
  scores = pmia(target, shadow, membership, LABELS, proxies=proxies)
  assert np.all(np.isfinite(scores)) and scores[0] > 0.0 > scores[1]


def test_who_has_too_few_proxies_has_all_others():
  target, shadow, membership, _ = gaussian(np.random.default_rng(8), 8, 40, 1.0)
  alone = np.where(np.arange(40) == 7, 9, LABELS)
  by_class, of_all = (
    pmia(target, shadow, membership, alone, proxies=proxies) for proxies in ("class", "global")
  )
  assert by_class[7] == pytest.approx(of_all[7])
  assert np.mean(np.isclose(by_class, of_all)) < 0.1


def test_mistakes_are_named():
  target, shadow, membership, _ = gaussian(np.random.default_rng(13), 8, 40, 1.0)
  partners = np.arange(8)[:, None] < np.full(40, 4)
  for args, options, message in (
    ((target, shadow, membership), {"proxies": "image"}, "proxies is 'image'; expected"),
    ((target, shadow, membership), {"num_proxies": 0}, "num_proxies is 0; expected a whole"),
    ((target, shadow, membership), {"variance": "none"}, "variance is 'none'; expected"),
    ((target, shadow, membership), {"proxies": "class"}, "need labels; got none"),
    ((target, shadow, membership, LABELS[1:]), {"proxies": "class"}, r"labels is int64\[39\]"),
    ((target, shadow, partners), {}, "40 of 40 examples have fewer than two proxies"),
    ((target, np.where(shadow < 0, np.nan, shadow), membership), {}, "shadow_phi has NaN"),
    ((target, shadow, membership | True), {}, "no OUT models"),
  ):
    with pytest.raises(ValueError, match=message):
      pmia(*args, **options)
