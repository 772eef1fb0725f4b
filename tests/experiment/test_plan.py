"""What stages are planned from, and what each of them is named for."""

import numpy as np
import pytest

from diffence_jax.attacks import attack
from diffence_jax.experiment import plan as planning

SHADOW = {"num_models": 6, "num_canaries": 10}
PRIVATE = {"defense": "dpsgd", "batch_size": 16}


def plan(**sections):
  data = {"num_members": 40, "num_nonmembers": 40, **sections.pop("data", {})}
  return planning.plan({"data": data, **sections})


def fingerprints(experiment):
  return {name: stage.fingerprint for name, stage in experiment.stages.items()}


def test_half_of_the_canaries_is_trained_on_with_wrong_labels():
  experiment = plan(shadow=SHADOW)
  pool = experiment.shadow_audit.pool
  canaries = pool.take(pool.is_canary)
  assert set(canaries.ids) <= set(experiment.split.reference)
  assert canaries.is_member.sum() == 5
  assert np.all(canaries.labels != experiment.dataset.take(canaries.ids).labels)
  trained = experiment.classifier.members
  assert len(trained.images) == len(trained.labels) == 45
  members = experiment.dataset.take(experiment.split.members)
  np.testing.assert_array_equal(trained.images[:40], members.images)
  np.testing.assert_array_equal(trained.labels[:40], members.labels)
  np.testing.assert_array_equal(trained.labels[40:], canaries.labels[canaries.is_member])


def test_kinds_of_canaries_follow_one_another_with_images_of_their_own():
  kinds = ("mislabelled", "clean", "blank", "out_of_distribution")
  experiment = plan(shadow={**SHADOW, "canaries": kinds})
  alone, dataset = plan(shadow=SHADOW).shadow_audit, experiment.dataset
  stage = experiment.shadow_audit
  masks = stage.masks_of_canaries()
  assert list(masks) == ["mislabelled", "clean", "blank", "out of distribution"]
  # A kind more leaves the first ones as they are.
  first, second, third, fourth = (stage.pool.take(mask) for mask in masks.values())
  for values, expected in zip(first, alone.pool.take(alone.pool.is_canary), strict=True):
    np.testing.assert_array_equal(values, expected)
  np.testing.assert_array_equal(second.labels, dataset.take(second.ids).labels)
  assert [pool.is_member.sum() for pool in (first, second, third, fourth)] == [5] * 4
  images = experiment.stages["shadow_queries"].samples.images
  for pool, mask in zip((first, second), list(masks.values())[:2], strict=True):
    np.testing.assert_array_equal(images[mask], dataset.take(pool.ids).images)
  assert np.ptp(images[masks["blank"]], axis=(1, 2, 3)).max() <= 2
  # What the target is trained on, and what it is asked about, is what the pool says.
  trained = experiment.classifier.members
  expected = np.concatenate(
    [images[mask][stage.pool.is_member[mask]] for mask in masks.values()]
  )
  np.testing.assert_array_equal(trained.images[40:], expected)
  np.testing.assert_array_equal(
    experiment.queries.samples.images, dataset.take(stage.pool.natural.ids).images
  )
  # The diffusion model and the target's queries know nothing of it.
  assert experiment.diffusion.fingerprint == plan(shadow=SHADOW).diffusion.fingerprint


def test_without_canaries_their_kinds_change_nothing():
  kinds = {"num_models": 6, "canaries": ("blank", "clean")}
  assert fingerprints(plan(shadow=kinds)) == fingerprints(plan(shadow={"num_models": 6}))


def test_the_pool_tells_whom_the_target_was_trained_on():
  experiment = plan(shadow=SHADOW)
  pool = experiment.shadow_audit.pool
  images = experiment.stages["shadow_queries"].samples.images
  assert len(images) == 90 and pool.is_canary.sum() == 10
  trained = experiment.classifier.members
  sorted_rows = lambda images, labels: sorted(
    (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
  )
  assert sorted_rows(images[pool.is_member], pool.labels[pool.is_member]) == sorted_rows(
    trained.images, trained.labels
  )
  assert pool.is_known.sum() == 40 and not np.any(pool.is_known & pool.is_canary)


def test_without_canaries_the_target_is_trained_on_its_members_alone():
  experiment = plan()
  assert len(experiment.classifier.members.images) == 40
  # An audit with shadow models asks the same classifier.
  audited = plan(shadow={"num_models": 6})
  for name in ("classifier", "diffusion"):
    assert audited.stages[name].fingerprint == experiment.stages[name].fingerprint
  changed = plan(shadow=SHADOW)
  assert changed.stages["classifier"].fingerprint != experiment.stages["classifier"].fingerprint


def test_attacks_that_lack_something_are_left_out_with_what_they_lack():
  bare = plan()
  run = {choice.name for choice in bare.audit.attacks}
  assert {"correctness", "loss", "nn", "quantile_regression"} <= run
  assert not run & set(bare.left_out)
  assert bare.left_out["lira_online"] == ("shadow models (shadow.num_models)",)
  assert "audit.num_label_only" in bare.left_out["noise_robustness"][0]
  full = plan(shadow=SHADOW, audit={"num_label_only": 3})
  assert not full.left_out and len(full.audit.attacks) == len(bare.left_out) + len(run)


def test_the_gap_attack_is_always_run_and_the_rest_as_asked():
  experiment = plan(audit={"attacks": ("nn", "loss")})
  assert [choice.name for choice in experiment.audit.attacks] == ["correctness", "nn", "loss"]


@attack("asks and compares", needs=("ask", "shadows"))
def asks_and_compares(view):
  """Cannot be run: of shadow models there are answers only."""


@attack("asks", needs=("ask",))
def asks(view):
  """Is run on the target, never with every model in turn."""


def test_what_asks_is_run_on_the_target_alone():
  own = f"{__name__}:asks"
  experiment = plan(shadow=SHADOW, audit={"num_label_only": 3, "attacks": (own, "loss")})
  named = lambda stage: {choice.name for choice in stage.attacks}
  assert own in named(experiment.audit) and own in named(experiment.stages["label_only"])
  assert own not in named(experiment.shadow_audit)
  with pytest.raises(ValueError, match="needs both 'ask' and 'shadows'"):
    attacks = (f"{__name__}:asks_and_compares",)
    plan(shadow=SHADOW, audit={"num_label_only": 3, "attacks": attacks})


@attack("differentiates", needs=("networks",))
def differentiates(view):
  """Cannot be run: networks are there beside what asks."""


def test_shadow_networks_are_there_for_what_needs_them_and_asks():
  audit = {"num_label_only": 3, "attacks": ("transfer", "noise_robustness")}
  experiment = plan(shadow=SHADOW, audit=audit)
  assert experiment.stages["label_only"].shadow is experiment.stages["shadow"]
  without = plan(shadow=SHADOW, audit={**audit, "attacks": ("noise_robustness",)})
  assert without.stages["label_only"].shadow is None
  assert "shadow.num_models" in plan(audit=audit).left_out["transfer"][0]
  with pytest.raises(ValueError, match="needs 'networks' and not 'ask'"):
    plan(shadow=SHADOW, audit={"attacks": (f"{__name__}:differentiates",)})


def test_predictors_are_named_for_what_they_are():
  names = lambda **own: [p.name for p in plan(**own).audit.predictors]
  expected = ["undefended", "scenario 1", "scenario 2", "scenario 3", "average"]
  assert names() == expected
  assert names(classifier={"defense": "hamp"}) == ["alone", *expected[1:]]
  assert names(output={"defense": "memguard"})[0] == "alone"
  assert names(purify={"policies": ("average", "undefended")}) == ["undefended", "average"]
  paper = plan(audit={"protocol": "paper"}).audit.predictors
  assert [p.name for p in paper] == expected
  assert paper[3].policy.name == "scenario_3_published"


def test_what_comes_out_where_a_policy_is_undone_is_attacked_too():
  policies = ("blend", "scenario_3", "temperature", "constant", "mean_kept")
  audited = plan(purify={"policies": policies}).audit.predictors
  assert [(p.name, p.policy.name) for p in audited] == [
    ("undefended", "undefended"),
    ("blend", "blend"),
    ("blend, undone", "mean_kept"),
    ("scenario 3", "scenario_3"),
    ("temperature", "temperature"),
    ("temperature, undone", "undefended"),
    ("constant", "constant"),
    ("mean kept", "mean_kept"),
  ]


def test_what_is_timed_and_told_of_is_a_policy_that_answers():
  timed = lambda *policies: plan(purify={"policies": policies}).inference_time
  assert timed("blend", "mean_kept").policy == "blend"
  assert timed("undefended") is None


@pytest.mark.parametrize(
  "settings",
  [
    {"shadow": {**SHADOW, "num_canaries": 8}},
    {"shadow": {**SHADOW, "num_recorded": 50}},
    {"shadow": {**SHADOW, "queries": (1, 4)}},
    {"shadow": {**SHADOW, "augmentation": "flip"}},
    {"shadow": {**SHADOW, "near_duplicates": True}},
    {"shadow": SHADOW, "classifier": {"fields": {"width": 8}}},
    {"shadow": SHADOW, "purify": {"step": 80}},
    {"shadow": SHADOW, "seed": 1},
  ],
)
def test_what_the_audit_depends_on_is_in_its_name(settings):
  first, second = plan(shadow=SHADOW), plan(**settings)
  for name in ("shadow_audit", "audit"):
    assert first.stages[name].fingerprint != second.stages[name].fingerprint


@pytest.mark.parametrize(
  ("before", "after", "same"),
  [
    # What is told a defense that is not chosen changes nothing.
    ({}, {"defenses": {"hamp": {"gamma": 0.5}}}, True),
    ({"classifier": {"defense": "hamp"}}, {}, False),
    (
      {"classifier": {"defense": "hamp"}},
      {"classifier": {"defense": "hamp"}, "defenses": {"hamp": {"gamma": 0.5}}},
      False,
    ),
    # To give the default is to give nothing.
    (
      {"classifier": {"defense": "hamp"}},
      {"classifier": {"defense": "hamp"}, "defenses": {"hamp": {"gamma": 0.8}}},
      True,
    ),
    # How many gradients are in memory at a time changes the result by rounding only.
    ({"classifier": PRIVATE}, {"classifier": PRIVATE, "compute": {"microbatch_size": 8}}, True),
    (
      {"classifier": PRIVATE},
      {"classifier": PRIVATE, "defenses": {"dpsgd": {"delta": 1e-6}}},
      False,
    ),
    # The reference set matters to who trains with it.
    ({}, {"data": {"num_reference": 100}}, True),
    (
      {"classifier": {"defense": "advreg"}},
      {"classifier": {"defense": "advreg"}, "data": {"num_reference": 100}},
      False,
    ),
  ],
)
def test_a_classifier_is_named_for_all_it_is_trained_with_and_no_more(before, after, same):
  first, second = plan(shadow=SHADOW, **before), plan(shadow=SHADOW, **after)
  for name in ("classifier", "shadow"):
    equal = first.stages[name].fingerprint == second.stages[name].fingerprint
    assert equal == same


def test_a_defense_of_the_answers_is_in_the_audit_only():
  plain, guarded = plan(shadow=SHADOW), plan(shadow=SHADOW, output={"defense": "memguard"})
  other = plan(
    shadow=SHADOW, output={"defense": "memguard"}, defenses={"memguard": {"epochs": 7}}
  )
  for name in plain.stages:
    names = {e.stages[name].fingerprint for e in (plain, guarded, other)}
    assert len(names) == (3 if name in ("audit", "shadow_audit", "inference_time") else 1), name


def test_the_dtype_of_re_generation_is_of_the_queries_and_not_of_the_training():
  plain, reduced = plan(), plan(purify={"dtype": "bfloat16"})
  for name in ("classifier", "diffusion"):
    assert plain.stages[name].fingerprint == reduced.stages[name].fingerprint
  assert plain.stages["queries"].fingerprint != reduced.stages["queries"].fingerprint
  networks = [own.purification.network(own.diffusion.bound) for own in (plain, reduced)]
  dtypes = [np.dtype(network.module.dtype).name for network in networks]
  assert dtypes == ["float32", "bfloat16"]


def test_settings_read_back_from_json_are_the_same_experiment():
  """As `run.json` has them: tuples have become lists."""
  shadow = {**SHADOW, "queries": [1, 4]}
  expected = plan(shadow={**shadow, "queries": (1, 4)})
  assert fingerprints(plan(shadow=shadow)) == fingerprints(expected)


@pytest.mark.parametrize(
  "settings, message",
  [
    ({"shadow": {"num_models": 7}}, "expected 0, or an even number from 6 to 10,000"),
    ({"shadow": {**SHADOW, "queries": (4, 16)}}, "rising numbers of queries from 1"),
    ({"shadow": {**SHADOW, "num_recorded": 3}}, "at least purify.num_candidates"),
    ({"shadow": {**SHADOW, "augmentation": "twirl"}}, "shadow.augmentation is 'twirl'"),
    ({"shadow": SHADOW, "data": {"num_reference": 5}}, "raise data.num_reference"),
    (
      {"shadow": {**SHADOW, "canaries": ()}},
      "shadow.canaries is .*; expected one or more kinds",
    ),
    ({"shadow": {**SHADOW, "canaries": ("blnk",)}}, "no kind of canary 'blnk'; did you mean"),
    (
      {
        "shadow": {**SHADOW, "canaries": ("out_of_distribution",)},
        "canaries": {"out_of_distribution": {"source": "digits"}},
      },
      "canaries.out_of_distribution.source is 'digits', as data.source is",
    ),
    ({"data": {"num_nonmembers": 8}}, "'quantile_regression' needs at least 5 known members"),
    ({"purify": {"step": 0}}, "purify.step is 0; with a schedule of 1000 steps expected 1"),
    (
      {"purify": {"num_candidates": 0}},
      "purify.num_candidates is 0; expected a whole number, 1 to",
    ),
    ({"data": {"known_fraction": 1.5}}, "data.known_fraction is 1.5; expected a number"),
    ({"data": {"num_reference": -1}}, "asks for -1 reference samples"),
    ({"audit": {"attacks": ("nm",)}}, "no attack 'nm'; did you mean 'nn'"),
    ({"purify": {"policies": ("scenario_4",)}}, "no policy 'scenario_4'; did you mean 'scen"),
    ({"purify": {"policies": ("average", "average")}}, "two of them are called 'average'"),
    ({"shadow": {**SHADOW, "main_attack": "nn"}}, "not run with every model in turn"),
    ({"output": {"defense": "math:sqrt"}}, "'math:sqrt' takes .*; expected 3 arguments"),
    ({"classifier": {"defense": "math:sqrt"}}, "'math:sqrt' takes .*; expected 2 arguments"),
    ({"attacks": {"rmia_online": {"gamma": 0}}}, "attacks.rmia_online.gamma is 0.0; expected"),
    ({"attacks": {"nn": {"epochs": 2.5}}}, "attacks.nn.epochs is 2.5; expected a whole"),
    (
      {"classifier": {"defense": "hamp"}, "defenses": {"hamp": {"gamma": 3}}},
      "defenses.hamp.gamma is 3.0; expected a number, 0.0 to 1.0",
    ),
    (
      {"output": {"defense": "memguard"}, "defenses": {"memguard": {"epochs": "many"}}},
      "defenses.memguard.epochs is 'many'; expected a whole number",
    ),
  ],
)
def test_what_would_fail_late_is_refused_at_once(settings, message):
  with pytest.raises(ValueError, match=message):
    plan(**settings)
