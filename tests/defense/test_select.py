"""Selection, intervals and averaging: the published results, slow references, properties."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from fixtures.load import load_fixture
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

import diffence_jax as dj
from diffence_jax.defense import published_interval

GROUPS = ("known_mem", "known_non", "target_mem", "target_non")


@functools.cache
def published():
  return load_fixture("selection")


def fixture_logits(group):
  """Candidate and raw logits of a group; the fixture keeps the raw ones last."""
  both = published()[1][f"{group}_candidates"]
  return both[:, :-1], both[:, -1]


def known_logits():
  return (*fixture_logits("known_mem"), *fixture_logits("known_non"))


def slow_phi(logits):
  p = scipy.special.softmax(np.asarray(logits, np.float64), axis=-1).max(axis=-1)
  return np.log(p / (1.0 - p))


def slow_select(candidates, raw, interval):
  """Index and count of one sample, spelt out."""
  label = raw.argmax()
  kept = [j for j, c in enumerate(candidates) if c.argmax() == label]
  if interval is None:
    return (kept[0] if kept else len(candidates)), len(kept)
  lo, hi = interval
  options = [*kept, len(candidates)]
  phi = {j: slow_phi([*candidates, raw][j]) for j in options}
  for j in options:
    if lo <= phi[j] <= hi:
      return j, len(kept)
  return min(options, key=lambda j: abs(phi[j] - (lo + hi) / 2)), len(kept)


def random_logits(seed, num=40, num_candidates=6, num_classes=4):
  rng = np.random.default_rng(seed)
  raw = rng.normal(0, 2, (num, num_classes)).astype(np.float32)
  noise = rng.normal(0, 1, (num, num_candidates, num_classes)).astype(np.float32)
  return raw[:, None] + noise, raw


def test_published_intervals():
  expected = published()[0]["intervals"]
  known = known_logits()
  np.testing.assert_allclose(dj.fit_interval(*known), expected["scenario1"], atol=1e-6)
  np.testing.assert_allclose(dj.member_interval(*known[:2]), expected["scenario2"], atol=1e-6)
  np.testing.assert_allclose(published_interval(*known), expected["scenario3"], atol=1e-6)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("scenario", ["scenario1", "scenario2", "scenario3"])
def test_published_selection_with_our_own_intervals(group, scenario):
  known = known_logits()
  interval = {
    "scenario1": dj.fit_interval(*known),
    "scenario2": dj.member_interval(*known[:2]),
    "scenario3": published_interval(*known),
  }[scenario]
  selection = dj.select(*fixture_logits(group), interval)
  expected = published()[1][f"{group}_{scenario}_selected"]
  np.testing.assert_array_equal(selection.index, expected)


@pytest.mark.parametrize("interval", [None, (0.0, 1.0), (-5.0, -4.0), (2.0, 2.0)])
@pytest.mark.parametrize("seed", range(3))
def test_select_is_the_slow_reference(seed, interval):
  candidates, raw = random_logits(seed)
  selection = dj.select(candidates, raw, interval)
  expected = [slow_select(c, r, interval) for c, r in zip(candidates, raw, strict=True)]
  np.testing.assert_array_equal(selection.index, [index for index, _ in expected])
  np.testing.assert_array_equal(selection.kept, [kept for _, kept in expected])
  options = np.concatenate([candidates, raw[:, None]], axis=1)
  chosen = options[np.arange(len(raw)), np.asarray(selection.index)]
  np.testing.assert_array_equal(selection.logits, chosen)


def slow_fit(member_candidates, member_raw, nonmember_candidates, nonmember_raw):
  """The grid search with loops, numpy.histogram and SciPy's distance."""

  def kept_phi(candidates, raw):
    return slow_phi(candidates)[candidates.argmax(-1) == raw.argmax(-1)[:, None]]

  def selected_phi(candidates, raw, interval):
    options = np.concatenate([candidates, raw[:, None]], axis=1)
    pairs = zip(candidates, raw, strict=True)
    index = [slow_select(c, r, interval)[0] for c, r in pairs]
    return slow_phi(options)[np.arange(len(raw)), index]

  low = kept_phi(member_candidates, member_raw).min()
  high = kept_phi(nonmember_candidates, nonmember_raw).max()
  best, least = None, np.inf
  for interval in itertools.combinations(np.linspace(low, high, 21), 2):
    member_phi = selected_phi(member_candidates, member_raw, interval)
    nonmember_phi = selected_phi(nonmember_candidates, nonmember_raw, interval)
    counts, edges = np.histogram(nonmember_phi, bins=100)
    distance = jensenshannon(np.histogram(member_phi, bins=edges)[0], counts)
    if distance < least:
      best, least = interval, distance
  return best


@pytest.mark.parametrize("seed", range(3))
def test_fit_interval_is_the_slow_reference(seed):
  members, nonmembers = random_logits(seed, num=30), random_logits(seed + 100, num=25)
  members = tuple(2.0 * logits for logits in members)
  fitted = dj.fit_interval(*members, *nonmembers)
  np.testing.assert_allclose(fitted, slow_fit(*members, *nonmembers), atol=1e-4)


def test_an_interval_needs_a_candidate_that_keeps_its_label():
  raw = np.tile(np.float32([3, 0, 0]), (5, 1))
  flipped = np.tile(np.float32([0, 3, 0]), (5, 2, 1))
  with pytest.raises(ValueError, match="members keeps its label"):
    dj.member_interval(flipped, raw)
  with pytest.raises(ValueError, match="non-members keeps its label"):
    dj.fit_interval(raw[:, None], raw, flipped, raw)


def test_average_is_the_mean_probability():
  candidates, _ = random_logits(0)
  expected = scipy.special.softmax(candidates.astype(np.float64), axis=-1).mean(axis=1)
  averaged = np.asarray(dj.average(candidates), np.float64)
  np.testing.assert_allclose(np.exp(averaged), expected, rtol=1e-5)


def test_scaled_logit_stays_finite_and_takes_a_label():
  logits = np.float32([[40.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
  np.testing.assert_allclose(dj.scaled_logit(logits)[0], 40.0 - np.log(2.0), rtol=1e-6)
  np.testing.assert_allclose(dj.scaled_logit(logits)[1], slow_phi(logits[1]), rtol=1e-5)
  labelled = dj.scaled_logit(logits, np.array([1, 0]))
  p = scipy.special.softmax(logits.astype(np.float64), axis=-1)[[0, 1], [1, 0]]
  np.testing.assert_allclose(labelled, np.log(p / (1.0 - p)), rtol=1e-5)


# Few distinct values, so that ties and near-ties are common.
close_logits = st.sampled_from([-1.0, 0.0, 0.99999994, 1.0, 1.0000001, 30.0, 3e38])


@settings(max_examples=200, deadline=None)
@given(
  values=st.lists(close_logits, min_size=3 * 4 * 3, max_size=3 * 4 * 3),
  interval=st.sampled_from(
    [None, (0.0, 0.0), (-1.0, 3.0), (3e38, 3.2e38), (-3e38, -3e38), (-3.4e38, 3.4e38)]
  ),
  dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
)
def test_the_label_of_the_raw_prediction_is_kept_whatever_the_logits(values, interval, dtype):
  logits = jnp.asarray(values, dtype).reshape(3, 4, 3)
  selection = dj.select(logits[:, :-1], logits[:, -1], interval)
  assert selection.logits.dtype == dtype
  np.testing.assert_array_equal(
    jnp.argmax(selection.logits, axis=-1), jnp.argmax(logits[:, -1], axis=-1)
  )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(8)))
def test_samples_are_selected_independently(seed, order):
  candidates, raw = random_logits(seed, num=8)
  whole = dj.select(candidates, raw, (0.0, 1.0))
  permuted = dj.select(candidates[order], raw[order], (0.0, 1.0))
  np.testing.assert_array_equal(whole.index[np.array(order)], permuted.index)


def test_a_class_of_probability_zero_is_no_reason_to_pass_over_a_candidate():
  raw = np.float32([[2.0, 1.0, -np.inf]])
  candidates = np.float32([[[2.5, 1.0, -np.inf], [3.0, 1.0, 0.0]]])
  for interval in (None, (0.0, 2.0)):
    selection = dj.select(candidates, raw, interval)
    assert (int(selection.index[0]), int(selection.kept[0])) == (0, 2)


def test_candidates_that_are_not_finite_are_passed_over():
  raw = np.float32([[2.0, 1.0]])
  candidates = np.float32([[[np.nan, 0.0], [np.inf, 0.0], [3.0, 0.0]]])
  selection = dj.select(candidates, raw)
  assert (int(selection.index[0]), int(selection.kept[0])) == (2, 1)


@pytest.mark.parametrize(
  "candidates, raw, interval",
  [
    (np.zeros((2, 3, 4), np.float32), np.zeros((2, 5), np.float32), None),
    (np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32), None),
    (np.zeros((2, 3, 4), np.float32), np.zeros((2, 4), np.float16), None),
    (np.zeros((2, 3, 4), np.float32), np.zeros((2, 4), np.float32), (1.0, 0.0)),
    (np.zeros((2, 3, 4), np.float32), np.zeros((2, 4), np.float32), (0.0, np.nan)),
    (np.zeros((2, 3, 4), np.float32), np.zeros((2, 4), np.float32), (1e39, 1e40)),
    (np.zeros((2, 3, 1), np.float32), np.zeros((2, 1), np.float32), (0.0, 1.0)),
  ],
)
def test_what_does_not_fit_is_refused(candidates, raw, interval):
  with pytest.raises(ValueError, match=r"expected|at least 2 classes"):
    dj.select(candidates, raw, interval)


def test_an_interval_is_of_one_classifiers_answers():
  logits = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
  with pytest.raises(ValueError, match="member_raw has 3 classes and nonmember_raw 2"):
    dj.fit_interval(logits, logits[:, 0], logits[..., :2], logits[:, 0, :2])


@pytest.mark.parametrize("interval", [{1: 2, 3: 4}, {1.0, 3.0}, b"\0\1", "12", 3.0, (1, 2, 3)])
def test_what_is_no_pair_is_no_interval(interval):
  raw = np.zeros((2, 4), np.float32)
  with pytest.raises(ValueError, match=r"interval is .*; expected two numbers, \(lo, hi\)"):
    dj.select(np.zeros((2, 3, 4), np.float32), raw, interval)


def test_probabilities_are_no_logits():
  raw = np.random.default_rng(0).dirichlet(np.ones(4), 20).astype(np.float32)
  with pytest.raises(ValueError, match="member_raw look like probabilities"):
    dj.fit_interval(raw[:, None], raw, raw[:, None], raw)
  with pytest.raises(ValueError, match="raw_logits look like probabilities"):
    dj.fit_blend(raw[:, None], raw, np.arange(20) % 4)
