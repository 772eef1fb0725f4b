"""The contract of attacks, for every one of ours: a leak and none, order, NaN, what is seen."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from attacks.memorizers import memorizer, networks_of

from diffence_jax import metrics
from diffence_jax.attacks import ATTACKS, View, attack, ensemble_of, run_attack
from diffence_jax.attacks.attack import NEEDS, declaration_of

# Enough to see a leak, in seconds.
OPTIONS = {
  "nn": {"epochs": 40},
  "noise_robustness": {"sigma": 0.15, "num_draws": 16},
  "transfer": {"num_queries": 3, "num_sizes": 8},
  "oslo": {"num_budgets": 80, "num_steps": 1, "least_sure": 0.4},
  "hop_skip_jump": {
    "num_iterations": 1,
    "initial_evaluations": 10,
    "max_evaluations": 10,
    "init_trials": 5,
  },
}
CHOICES = {name: ATTACKS.choose(name, OPTIONS.get(name)) for name in ATTACKS.known}
WITH_SHADOWS = [name for name in CHOICES if "shadows" in declaration_of(name).needs]
THAT_ASK = [name for name in CHOICES if "ask" in declaration_of(name).needs]
THAT_READ = [name for name in CHOICES if name not in THAT_ASK]
NUM, NUM_CLASSES, NUM_MODELS, QUERIES = 400, 3, 8, 2
# What a view has of every need.
FIELDS = {
  "is_known": "known", "shadow_logits": "shadows", "images": "images", "ask": "ask",
  "networks": "networks",
}  # fmt: skip
# Three bands of two rows: what a label is.
BANDS = np.repeat(np.eye(NUM_CLASSES), 8, axis=0)


@functools.cache
def world(leak):
  """All that a view takes, by name: members are surer, and are shown more clearly, by `leak`.

  Half of each side is known. The images' bands are gray and rough, the label's is brighter,
  mostly, and a member's more so: its label survives more, as it does where a classifier
  leans to the labels that it was trained on.
  """
  rng = np.random.default_rng(5)
  member, known = np.arange(NUM) % 2 == 0, np.arange(NUM) % 4 < 2
  labels = rng.integers(0, NUM_CLASSES, NUM)
  one_hot = np.eye(NUM_CLASSES)[labels]
  half = np.arange(NUM_MODELS)[:, None] < NUM_MODELS // 2
  membership = rng.permuted(np.repeat(half, NUM, axis=1), axis=0)

  def answers(inside):
    noise = rng.normal(0, 1, (*inside.shape, QUERIES, NUM_CLASSES))
    signal = (1.0 + leak * inside)[..., None, None] * one_hot[:, None]
    return (noise + signal).astype(np.float32)

  margin = np.clip(rng.normal(4.0, 5.0, NUM) + 5.0 * leak * member, -20.0, 60.0)
  bands = 100.0 + margin[:, None] * one_hot
  images = np.repeat(bands, 2, axis=1)[:, :, None, None] + rng.integers(0, 30, (NUM, 6, 4, 1))
  images = images.astype(np.uint8)
  # The class whose band is brightest, and what is remembered.
  target = memorizer(BANDS, images, labels, member, 0.2 * leak)
  return {
    "logits": answers(member),
    "labels": labels,
    "is_known": known,
    "is_member": member,
    "shadow_logits": answers(membership),
    "membership": membership,
    "images": images,
    "ask": lambda asked: jnp.argmax(target(None, asked), axis=-1),
    "networks": networks_of(BANDS, images, labels, membership, 0.2 * leak),
    "ids": rng.permutation(10 * NUM)[:NUM],
  }


def view_of(given):
  """The view of a world; what it lacks is not there."""
  shadows = None
  if given.get("shadow_logits") is not None:
    shadows = ensemble_of(given["shadow_logits"], given["membership"], given["labels"])
  names = ("labels", "is_known", "is_member", "images", "ask", "ids", "networks")
  return View(
    given["logits"], shadows=shadows, seed=3, name="p", **{n: given.get(n) for n in names}
  )


@functools.cache
def scores_with(name, leak):
  return run_attack(CHOICES[name], view_of(world(leak)))


def declared(name):
  """The part of a world that an attack has declared to need."""
  needs = declaration_of(name).needs
  return {f: v for f, v in world(3.0).items() if f not in FIELDS or FIELDS[f] in needs}


@functools.cache
def scores_of_what_it_may_see(name):
  """The scores where all that an attack must not read is gone or another, in one run.

  What it has not declared, who is a member where that is not known, and, where it asks, the
  answers.
  """
  known, member = world(3.0)["is_known"], world(3.0)["is_member"]
  given = {**declared(name), "is_member": np.where(known, member, ~member)}
  if name in THAT_ASK:
    given["logits"] = np.full_like(given["logits"], np.nan)
  return run_attack(CHOICES[name], view_of(given))


def target_roc(scores):
  member, known = world(0.0)["is_member"], world(0.0)["is_known"]
  return metrics.roc(scores[member & ~known], scores[~member & ~known])


@pytest.mark.parametrize("name", CHOICES)
def test_a_planted_leak_is_found(name):
  scores = scores_with(name, 3.0)
  assert scores.shape == (NUM,) and scores.dtype == np.float64
  result = target_roc(scores)
  # That labels are right more often is all that the gap attack sees.
  assert result.auc > (0.6 if name == "correctness" else 0.7)
  assert result.auc_interval[0] > 0.55


@pytest.mark.parametrize("name", THAT_READ)
@pytest.mark.parametrize("told", [1, 2])
def test_classes_may_have_a_probability_of_zero(name, told):
  """As behind a defense that tells the label alone, or the two likeliest classes."""

  def defended(logits):
    least = np.sort(logits, axis=-1)[..., -told, None]
    return np.where(logits < least, -np.inf, logits).astype(np.float32)

  given = dict(world(3.0))
  for field in ("logits", "shadow_logits"):
    given[field] = defended(given[field])
  scores = run_attack(CHOICES[name], view_of(given))
  assert np.isfinite(scores).all()
  assert target_roc(scores).auc > 0.45


@pytest.mark.parametrize("name", CHOICES)
def test_without_a_leak_half_lies_in_the_interval(name):
  result = target_roc(scores_with(name, 0.0))
  low, high = result.auc_interval
  # Of 99.9%, so that hardly any of the attacks fails by chance.
  wider = scipy.stats.norm.ppf(0.9995) / scipy.stats.norm.ppf(0.975)
  assert (
    result.auc - wider * (result.auc - low) < 0.5 < result.auc + wider * (high - result.auc)
  )
  assert high - low < 0.2


@pytest.mark.parametrize("name", CHOICES)
def test_scores_follow_the_samples_and_all_that_belongs_to_them(name):
  """What is trained on the known samples goes through them in their order, which stays."""
  given, rng = world(3.0), np.random.default_rng(0)
  order = rng.permutation(NUM)
  if declaration_of(name).family == "trained on known samples":
    places = np.flatnonzero(given["is_known"][order])
    order[places] = np.sort(order[places])
  moved = {
    field: value
    if callable(value)
    else value.take(order)
    if field == "networks"
    else value[:, order]
    if field in ("shadow_logits", "membership")
    else value[order]
    for field, value in given.items()
  }
  scores = run_attack(CHOICES[name], view_of(moved))
  assert not np.array_equal(order, np.arange(NUM))
  np.testing.assert_allclose(scores, scores_with(name, 3.0)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", THAT_READ)
def test_nan_in_the_answers_is_refused(name):
  logits = world(3.0)["logits"].copy()
  logits[NUM // 2 - 1, 0, 1] = np.nan
  with pytest.raises(ValueError, match=r"NaN|not finite"):
    run_attack(CHOICES[name], view_of({**world(3.0), "logits": logits}))


@pytest.mark.parametrize("name", WITH_SHADOWS)
def test_nan_in_the_answers_of_shadow_models_is_refused(name):
  shadow_logits = world(3.0)["shadow_logits"].copy()
  shadow_logits[4, 17, 0, 2] = np.nan
  with pytest.raises(ValueError, match="NaN"):
    run_attack(CHOICES[name], view_of({**world(3.0), "shadow_logits": shadow_logits}))


@pytest.mark.parametrize("name", THAT_ASK)
def test_an_attack_that_asks_reads_no_answers(name):
  scores = scores_of_what_it_may_see(name)
  np.testing.assert_array_equal(scores, scores_with(name, 3.0))


@pytest.mark.parametrize("name", CHOICES)
def test_it_sees_what_it_declared_and_nothing_else(name):
  needs = declaration_of(name).needs
  opened = view_of(world(3.0)).opened(needs)
  for need, fields in NEEDS.items():
    for field in fields:
      if need in needs:
        assert getattr(opened, field) is not None
        continue
      with pytest.raises(AttributeError, match=rf'no .{field}.*needs=\("{need}",\)'):
        getattr(opened, field)
  if "known" in needs:
    assert not np.any(opened.is_member & ~opened.is_known) and np.any(opened.is_member)


@pytest.mark.parametrize("name", CHOICES)
def test_what_it_declared_is_all_that_it_takes(name):
  """With nothing else the scores are the same; without one of its needs it is refused."""
  needs, kept = declaration_of(name).needs, declared(name)
  scores = scores_of_what_it_may_see(name)
  np.testing.assert_array_equal(scores, scores_with(name, 3.0))
  for field, need in FIELDS.items():
    if need in needs:
      with pytest.raises(ValueError, match=f"The attack '{name}' needs {need}"):
        run_attack(CHOICES[name], view_of({**kept, field: None}))


@pytest.mark.parametrize("name", [n for n in CHOICES if "known" in declaration_of(n).needs])
@pytest.mark.parametrize("side", [True, False])
def test_too_few_known_samples_of_a_side_are_refused(name, side):
  given, declared = world(3.0), declaration_of(name)
  known = given["is_known"].copy()
  rest = np.flatnonzero(known & (given["is_member"] == side))[declared.least_known - 1 :]
  known[rest] = False
  with pytest.raises(ValueError, match=f"'{name}' needs known"):
    run_attack(CHOICES[name], view_of({**given, "is_known": known}))


@pytest.mark.parametrize("name", CHOICES)
def test_who_is_a_member_is_not_read_where_it_is_not_known(name):
  scores = scores_of_what_it_may_see(name)
  np.testing.assert_array_equal(scores, scores_with(name, 3.0))


def own(function, **options):
  """Runs an attack of a user's own."""
  return run_attack(ATTACKS.choose(f"attacks.own_attacks:{function}", options), VIEW)


VIEW = view_of(world(3.0))


def test_a_plain_function_is_an_attack():
  expected = world(3.0)["logits"].max(axis=(1, 2))
  np.testing.assert_array_equal(own("surest"), expected)
  np.testing.assert_array_equal(own("surest", power=2), np.square(expected))
  declared = declaration_of("attacks.own_attacks:surest")
  assert (declared.title, declared.family, declared.needs) == ("surest", "others", ())


@pytest.mark.parametrize(
  "function, error, message",
  [
    ("one_too_many", ValueError, r"one_too_many' returned float64\[401\]; expected .* \[400\]"),
    ("a_column", ValueError, r"returned float64\[400, 1\]; expected a number a sample"),
    ("words", ValueError, r"returned <U6\[400\]; expected a number a sample"),
    ("not_a_number", ValueError, r"returned NaN for \d+ of 400 samples; expected numbers"),
    ("reads_membership", AttributeError, r'has not declared .* needs=\("known",\)'),
    ("reads_images", AttributeError, r'has not declared .* needs=\("images",\)'),
    ("reads_nothing", AttributeError, "A view has no 'gradients'"),
  ],
)
def test_what_an_attack_does_wrong_is_named(function, error, message):
  with pytest.raises(error, match=message):
    own(function)


def test_an_unknown_need_is_refused_where_it_is_declared():
  with pytest.raises(ValueError, match="'mine' needs 'gradients'; expected some of"):
    attack("mine", needs=("gradients",))


@pytest.mark.parametrize(
  "name, options, message",
  [
    ("nn", {"epochs": "many"}, r"attacks\.nn\.epochs is 'many'; expected a whole number"),
    ("nn", {"epochs": 1.5}, r"attacks\.nn\.epochs is 1\.5; expected a whole number"),
    ("nn", {"epocs": 3}, "'nn' has no option 'epocs'; did you mean 'epochs'"),
    ("lira_online", {"variance": 3}, r"attacks\.lira_online\.variance is 3; expected text"),
    ("lira_online_shrunk", {"variance": "global"}, "has no option 'variance'; it takes none"),
    ("rmia_online", {"gamma": True}, r"attacks\.rmia_online\.gamma is True"),
    ("attacks.own_attacks:surest", {"power": "x"}, r"attacks\.surest\.power is 'x'"),
    ("attacks.own_attacks:surest", {"view": 1}, "has no option 'view'"),
    ("attacks.own_attacks:weakest", {}, "own_attacks:weakest' cannot be imported"),
    ("lira", {}, "There is no attack 'lira'; did you mean 'lira_"),
  ],
)
def test_what_is_no_attack_or_no_option_is_refused(name, options, message):
  with pytest.raises(ValueError, match=message):
    ATTACKS.choose(name, options)


@pytest.mark.parametrize(
  "name, options, message",
  [
    ("lira_online", {"variance": "own"}, r"attacks\.lira_online\.variance is 'own'; expected"),
    ("rmia_offline", {"interpolation": 2.0}, r"attacks\.rmia_offline\.interpolation is 2\.0"),
    ("noise_robustness", {"sigma": -1.0}, r"attacks\.noise_robustness\.sigma is -1\.0"),
    ("hop_skip_jump", {"init_trials": 0}, r"attacks\.hop_skip_jump\.init_trials is 0"),
    ("quantile_regression", {"num_folds": 1}, r"attacks\.quantile_regression\.num_folds is 1"),
    ("nn", {"epochs": 0}, r"attacks\.nn\.epochs is 0; expected a whole number, 1 to"),
    ("augmentation_robustness", {"kind": "crop"}, r"attacks\.augmentation_robustness\.kind is"),
  ],
)
def test_an_option_out_of_its_range_is_named_by_its_path_when_it_is_chosen(
  name, options, message
):
  with pytest.raises(ValueError, match=message):
    ATTACKS.choose(name, options)


def test_folds_without_samples_are_refused():
  choice = ATTACKS.choose("quantile_regression", {"num_folds": 1000})
  with pytest.raises(
    ValueError, match=r"attacks\.quantile_regression\.num_folds is 1000 of 100"
  ):
    run_attack(choice, VIEW)


def test_an_ensemble_is_read_model_by_model_and_can_be_cut():
  given = world(3.0)
  shadows = ensemble_of(given["shadow_logits"], given["membership"], given["labels"])
  assert len(shadows) == NUM_MODELS
  models, samples = np.array([5, 2]), np.array([7, 0, 3])
  taken = shadows.take(models, samples)
  np.testing.assert_array_equal(taken.membership, given["membership"][models][:, samples])
  np.testing.assert_array_equal(taken[1], given["shadow_logits"][2, samples])
  mean = lambda logits, labels, versions: logits.mean(axis=(1, 2))
  expected = given["shadow_logits"].mean(axis=(2, 3))
  np.testing.assert_allclose(taken.statistic(mean), expected[models][:, samples], atol=1e-6)
  masked = shadows.take(np.arange(NUM_MODELS) % 2 == 0)
  np.testing.assert_array_equal(masked[3], given["shadow_logits"][6])
  for model in (NUM_MODELS, -1):
    with pytest.raises(IndexError, match=f"no shadow model {model}; there are {NUM_MODELS}"):
      shadows[model]
