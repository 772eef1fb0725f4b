"""The contract of policies, for ours and a user's: labels, early exit, repeated queries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from defense.test_protect import SCHEDULE, denoise, images_of, predict
from hypothesis import given, settings
from hypothesis import strategies as st

import diffence_jax as dj
from diffence_jax.audit.predictors import Defended, ModelRecord, Predictor, fit_predictors
from diffence_jax.defense import POLICIES, AggregatePolicy, Policy, RankPolicy, Record
from diffence_jax.defense import interval as interval_module
from diffence_jax.defense.blend import _blend
from diffence_jax.defense.policy import answer, ranks
from diffence_jax.defense.select import ACCEPTED, rank_options

OWN = ("defense.own_policies:least_sure", "defense.own_policies:half_way")
CHOICES = {name: POLICIES.choose(name) for name in (*POLICIES.known, *OWN)}
NUM_CLASSES, NUM_CANDIDATES = 5, 6
CHANGING = ["average", "majority"]
# What is made of the raw prediction, without candidates.
OF_THE_RAW = ("constant", "temperature", "rounded", "levels")


@functools.cache
def records():
  """The answers of a tiny classifier to known members, which it is surer of, and to others."""
  found = []
  for seed, scale in ((0, 1.3), (1, 1.0)):
    images = jax.random.uniform(jax.random.key(seed), (40, 4, 4, 1))
    surer = lambda key, images, scale=scale: scale * predict(key, images)
    raw = np.asarray(surer(None, images))
    candidates = dj.candidate_logits(
      jax.random.key(seed), surer, denoise, SCHEDULE, images, num_candidates=NUM_CANDIDATES
    )
    labels = np.random.default_rng(seed).integers(0, NUM_CLASSES, 40)
    found.append(Record(raw, np.asarray(candidates), labels))
  return found


@functools.cache
def fitted(name) -> Policy:
  return POLICIES.call(CHOICES[name], *records())


RANKED = [name for name in CHOICES if isinstance(fitted(name), RankPolicy)]
AGGREGATES = [name for name in CHOICES if name not in RANKED]


def test_there_are_both_kinds_and_they_say_what_they_are():
  assert {"scenario_1", "scenario_2", "scenario_3", "scenario_3_published"} < set(RANKED)
  assert {"undefended", "average"} < set(AGGREGATES)
  for name in CHOICES:
    policy = fitted(name)
    assert isinstance(policy, RankPolicy | AggregatePolicy)
    assert policy.keeps_labels == (name not in CHANGING)
    assert policy.draws == (name not in ("undefended", *OF_THE_RAW, OWN[1]))
    has_interval = name in ("scenario_1", "scenario_2", "scenario_3_published")
    assert (policy.interval is not None) == has_interval


def test_intervals_are_those_of_the_functions():
  members, nonmembers = records()
  known = members.candidates, members.raw, nonmembers.candidates, nonmembers.raw
  assert fitted("scenario_1").interval == dj.fit_interval(*known)
  assert fitted("scenario_2").interval == dj.member_interval(*known[:2])
  published = interval_module.published_interval(*known)
  assert fitted("scenario_3_published").interval == published


@pytest.mark.parametrize("name", CHOICES)
def test_an_answer_has_the_shape_and_dtype_of_the_raw_prediction(name):
  record = records()[1]
  for dtype in (jnp.float32, jnp.bfloat16):
    given = jnp.asarray(record.candidates, dtype), jnp.asarray(record.raw, dtype)
    answers = fitted(name).answer(*given)
    assert answers.dtype == dtype and answers.shape == record.raw.shape


# Few distinct values, so that ties and near-ties are common.
VALUES = [-1.0, 0.0, 0.99999994, 1.0, 1.0000001, 30.0, 3e38, -np.inf]


def rows_of(values, num, size, random):
  """Rows of any of the values, and as many of two of them each."""
  some = random.choice(values, (num, size))
  two = random.choice(values, (num, 2))
  return np.concatenate([some, np.take_along_axis(two, random.integers(0, 2, some.shape), 1)])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", [name for name in CHOICES if fitted(name).keeps_labels])
def test_the_label_of_the_raw_prediction_is_kept_whatever_the_logits(name, dtype):
  random, num = np.random.default_rng(0), 400
  raw = rows_of(VALUES, num, NUM_CLASSES, random)
  raw[np.all(raw == -np.inf, axis=1)] = 0.0  # which is no prediction
  raw = jnp.asarray(raw, dtype)
  candidates = rows_of([*VALUES, np.nan, np.inf], 2 * num, NUM_CLASSES, random)
  candidates = jnp.asarray(random.permutation(candidates), dtype).reshape(2 * num, 2, -1)
  answers = answer(fitted(name), candidates, raw)
  assert answers.dtype == dtype
  np.testing.assert_array_equal(jnp.argmax(answers, axis=-1), jnp.argmax(raw, axis=-1))
  # What is selected is taken over bit for bit.
  if name in RANKED:
    selection = fitted(name).select(candidates, raw)
    options = np.asarray(jnp.concatenate([candidates, raw[:, None]], axis=1))
    chosen = options[np.arange(2 * num), selection.index]
    np.testing.assert_array_equal(selection.logits, chosen)


def test_what_may_change_labels_says_so_and_does():
  raw, candidates = np.float32([[1.0, 0.0]]), np.float32([[[0.0, 5.0], [1.0, 0.0]]])
  changing = [name for name in CHOICES if not fitted(name).keeps_labels]
  assert changing == CHANGING
  candidates = np.concatenate([candidates, candidates[:, :1]], axis=1)
  for name in changing:
    assert int(jnp.argmax(fitted(name).answer(candidates, raw)[0])) == 1


def look_up(table, logits):
  """A rank that depends on the first two logits, 0, 1 or 2, and is any of the table."""
  return table[(3 * logits[..., 0] + logits[..., 1]).astype(jnp.int32)]


@pytest.mark.parametrize("temperature", [0.05, 1.0, 8.85, 20.0])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_blend_of_any_temperature_keeps_the_label_of_huge_logits(temperature, weight):
  """Compiled too: where no candidate keeps it, raw logits are divided as they are."""
  table = jnp.log(jnp.full((NUM_CLASSES, NUM_CLASSES), 0.1) + 0.5 * jnp.eye(NUM_CLASSES))
  numbers = (jnp.float32(temperature), jnp.float32(weight), table)
  policy = AggregatePolicy(jax.tree_util.Partial(_blend, *numbers), keeps_labels=True)
  random = np.random.default_rng(1)
  raw = rows_of([*VALUES, 1e5, 1e9], 400, NUM_CLASSES, random)
  raw[np.all(raw == -np.inf, axis=1)] = 0.0
  raw = jnp.asarray(raw, jnp.float32)
  answers = np.asarray(answer(policy, jnp.zeros((len(raw), 2, NUM_CLASSES)), raw))
  np.testing.assert_array_equal(answers.argmax(axis=-1), np.asarray(raw).argmax(axis=-1))
  assert answers.max() < 1e-5 and not np.isnan(answers).any()  # log-probabilities


@settings(max_examples=60, deadline=None)
@given(
  table=st.lists(
    st.sampled_from([np.nan, np.inf, -np.inf, -7.0, ACCEPTED, -0.5, 0.0, 2.0, 3e38]),
    min_size=9,
    max_size=9,
  ),
  seed=st.integers(0, 1000),
)
def test_no_rank_can_lose_a_label(table, seed):
  """Ranks decide between options that keep it, and only `ACCEPTED` is taken at once."""
  rng = np.random.default_rng(seed)
  logits = jnp.asarray(rng.integers(0, 3, (4, 6, 3)), jnp.float32)
  rank = jax.tree_util.Partial(look_up, jnp.asarray(table, jnp.float32))
  policy = RankPolicy(rank)
  selection = policy.select(logits[:, :-1], logits[:, -1])
  labels = np.asarray(jnp.argmax(logits, axis=-1))
  index = np.asarray(selection.index)
  np.testing.assert_array_equal(labels[np.arange(4), index], labels[:, -1])
  found = np.asarray(rank_options(logits[:, :-1], logits[:, -1], policy.rank))
  np.testing.assert_array_equal(np.isinf(found), labels != labels[:, -1:])
  kept = found[np.isfinite(found)]
  assert np.all((kept == ACCEPTED) | (kept >= 0.0))
  given_ranks = np.asarray(rank(logits))[np.isfinite(found)]
  np.testing.assert_array_equal(kept == ACCEPTED, given_ranks == ACCEPTED)


@pytest.mark.parametrize("name", CHOICES)
def test_a_policy_is_a_pytree_and_its_numbers_are_arguments(name):
  policy, record = fitted(name), records()[1]
  leaves, structure = jax.tree.flatten(policy)
  again = jax.tree.unflatten(structure, leaves)
  expected = answer(policy, record.candidates, record.raw)
  np.testing.assert_array_equal(answer(again, record.candidates, record.raw), expected)
  # Other numbers need no other program.
  compiled = answer._cache_size()
  other = jax.tree.unflatten(structure, [0.5 * leaf for leaf in leaves])
  answer(other, record.candidates, record.raw)
  assert answer._cache_size() == compiled


@pytest.mark.parametrize("name", CHOICES)
def test_every_image_is_answered_by_itself(name):
  policy, record = fitted(name), records()[0]
  order = np.random.default_rng(0).permutation(40)
  whole = np.asarray(answer(policy, record.candidates, record.raw))
  moved = answer(policy, record.candidates[order], record.raw[order])
  np.testing.assert_allclose(moved, whole[order], rtol=1e-6)


def protected(name, **changes):
  options = {"num_candidates": NUM_CANDIDATES, "chunk_size": 16, "policy": fitted(name)}
  return dj.protect(predict, denoise, SCHEDULE, **(options | changes))


@pytest.mark.parametrize("name", CHOICES)
def test_protect_answers_with_the_policy(name):
  images, key = images_of(9, 5), jax.random.key(2)
  candidates = dj.candidate_logits(
    key, predict, denoise, SCHEDULE, images, num_candidates=NUM_CANDIDATES
  )
  expected = fitted(name).answer(candidates, predict(key, images))
  np.testing.assert_allclose(protected(name)(key, images), expected, atol=1e-5)


@pytest.mark.parametrize("name", RANKED)
def test_early_exit_answers_as_drawing_all_candidates_does(name):
  images, ids = images_of(37, 4), np.arange(37) * 7
  for seed in range(3):
    key = jax.random.key(seed)
    expected = protected(name)(key, images, ids)
    early = protected(name, constant_time=False)(key, images, ids)
    np.testing.assert_allclose(early, expected, atol=1e-5)


@pytest.mark.parametrize("name", AGGREGATES)
def test_what_looks_at_all_candidates_has_no_early_exit(name):
  with pytest.raises(ValueError, match="expected a RankPolicy"):
    protected(name, constant_time=False)


@pytest.mark.parametrize("name", [name for name in CHOICES if not fitted(name).draws])
def test_what_needs_no_candidates_draws_none(name):
  def never(x, t):
    raise AssertionError("drawn")

  images, key = images_of(3), jax.random.key(0)
  asked = dj.protect(predict, never, SCHEDULE, policy=fitted(name))
  expected = fitted(name).answer(None, predict(key, images))
  np.testing.assert_array_equal(asked(key, images), expected)


def one_by_one(policy, raw, candidates, num_candidates, num_queries):
  """Asks again and again; each query about an image goes on where its last one ended."""
  images, num_recorded = np.arange(len(raw))[:, None], candidates.shape[1]
  answers, position = [], np.zeros(len(raw), int)
  for _ in range(num_queries):
    places = (position[:, None] + np.arange(num_candidates)) % num_recorded
    window = candidates[images, places]
    answers.append(np.asarray(answer(policy, window, raw)))
    used = num_candidates
    if isinstance(policy, RankPolicy):
      accepted = np.asarray(ranks(policy, window, raw))[:, :-1] == ACCEPTED
      used = np.where(accepted.any(axis=1), accepted.argmax(axis=1) + 1, num_candidates)
    position = (position + used) % num_recorded
  return np.stack(answers, axis=1)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("num_candidates", [2, 3])
def test_repeated_queries_are_answered_as_independent_ones(name, num_candidates):
  policy, (_, record) = fitted(name), records()
  own = Defended(Predictor(name, CHOICES[name]), policy)
  model = ModelRecord(record.raw[:, None], record.candidates[:, None])
  num_queries = NUM_CANDIDATES // num_candidates
  repeated = own.answer_repeatedly(
    model, num_candidates=num_candidates, num_queries=num_queries
  )
  answers = one_by_one(policy, record.raw, record.candidates, num_candidates, num_queries)
  found = repeated.logits[:, 0]
  assert found.shape[1] == (num_queries if policy.draws else 1)
  expected = answers if policy.draws else answers[:, :1]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  assert repeated.reused == 0.0


@pytest.mark.parametrize("name", RANKED)
def test_compiled_ranks_are_those_of_the_selection(name):
  record = records()[0]
  found = np.asarray(ranks(fitted(name), record.candidates, record.raw))
  selection = fitted(name).select(record.candidates, record.raw)
  np.testing.assert_array_equal(found.argmin(axis=1), selection.index)


@pytest.mark.parametrize("num_classes", [2, 4])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 6))
def test_the_interval_search_selects_as_select_does(num_classes, seed, steps):
  """Whole numbers of two classes: phi is exact, on ends and equally far from midpoints."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(0, 2, shape)
  grid = np.sort(rng.uniform(-2, 6, 2))
  grid = np.linspace(*grid, steps + 1)
  if num_classes == 2:
    draw = lambda *shape: rng.integers(-3, 4, shape)
    grid = rng.integers(-2, 5) + np.arange(steps + 1.0)
  raw = draw(15, num_classes).astype(np.float32)
  candidates = draw(15, 5, num_classes).astype(np.float32)
  odd = rng.random(candidates.shape) < 0.1
  candidates[odd] = rng.choice([-np.inf, np.inf, np.nan], odd.sum())
  phi, valid = interval_module._phi_of_options(candidates, raw, "member")
  pairs = np.array([(i, j) for i in range(steps + 1) for j in range(i + 1, steps + 1)])
  found = interval_module._selected_phi(phi, valid, grid, pairs)
  for own, (i, j) in zip(found, pairs, strict=True):
    selection = dj.select(candidates, raw, (grid[i], grid[j]))
    np.testing.assert_array_equal(own, phi[np.arange(15), selection.index])


@pytest.mark.parametrize(
  "name, options, message",
  [
    (OWN[0], {"tolerance": "x"}, r"policies\.least_sure\.tolerance is 'x'; expected a finite"),
    (OWN[0], {"tolerence": 1.0}, "has no option 'tolerence'; did you mean 'tolerance'"),
    (OWN[0], {"members": 1}, "has no option 'members'"),
    ("scenario_1", {"steps": 30}, "'scenario_1' has no option 'steps'; it takes none"),
    ("scenario_4", {}, "There is no policy 'scenario_4'; did you mean 'scenario_"),
    ("defense.own_policies:most_sure", {}, "most_sure' cannot be imported"),
  ],
)
def test_what_is_no_policy_or_no_option_is_refused(name, options, message):
  with pytest.raises(ValueError, match=message):
    POLICIES.choose(name, options)


def test_options_of_a_user_s_own_policy_reach_it():
  choice = POLICIES.choose(OWN[1], {"weight": 1})
  assert choice.options == {"weight": 1.0}
  raw = records()[0].raw
  np.testing.assert_array_equal(POLICIES.call(choice, *records()).answer(None, raw), 0.0 * raw)


def test_what_returns_no_policy_is_refused():
  choice = POLICIES.choose("defense.own_policies:no_policy")
  with pytest.raises(
    TypeError, match=r"The policy .*no_policy' is a function; expected a RankPolicy"
  ):
    fit_predictors([Predictor("mine", choice)], *records())
  with pytest.raises(TypeError, match="policy is a function; expected a RankPolicy"):
    dj.protect(predict, denoise, SCHEDULE, policy=lambda candidates, raw: raw)
  with pytest.raises(ValueError, match="interval and policy are both given"):
    protected("scenario_3", interval=(0.0, 1.0))
