"""What the stages are planned from: canaries, training sets, the pool of the shadow models."""

import numpy as np
import pytest

from diffence_jax.experiment import run as pipeline
from diffence_jax.experiment.stages import models as stages
from diffence_jax.experiment.stages import shadow as shadow_stages

SHADOW = {"num_models": 6, "num_canaries": 10}
PRIVATE = {"defense": "dpsgd", "batch_size": 16}


def plan(**sections):
  data = {"num_members": 40, "num_nonmembers": 40, **sections.pop("data", {})}
  return pipeline.plan({"data": data, **sections})


def test_half_of_the_canaries_is_trained_on_with_wrong_labels():
  experiment = plan(shadow=SHADOW)
  canaries = stages.canaries_of(experiment.config, experiment.split, experiment.dataset)
  assert set(canaries.ids) <= set(experiment.split.reference)
  assert canaries.is_member.sum() == 5
  assert np.all(canaries.labels != experiment.dataset.take(canaries.ids).labels)
  images, labels = stages.training_set(experiment)
  assert len(images) == len(labels) == 45
  members = experiment.dataset.take(experiment.split.members)
  np.testing.assert_array_equal(images[:40], members.images)
  np.testing.assert_array_equal(labels[:40], members.labels)
  np.testing.assert_array_equal(labels[40:], canaries.labels[canaries.is_member])


def test_the_pool_tells_whom_the_target_was_trained_on():
  experiment = plan(shadow=SHADOW)
  images, pool = shadow_stages.pool_of(experiment)
  assert len(images) == 90 and pool.is_canary.sum() == 10
  trained, labels = stages.training_set(experiment)
  sorted_rows = lambda images, labels: sorted(
    (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
  )
  assert sorted_rows(images[pool.is_member], pool.labels[pool.is_member]) == sorted_rows(
    trained, labels
  )
  assert pool.is_known.sum() == 40 and not np.any(pool.is_known & pool.is_canary)


def test_without_canaries_the_target_is_trained_on_its_members_alone():
  experiment = plan()
  images, _ = stages.training_set(experiment)
  assert len(images) == 40
  # An audit with shadow models asks the same classifier.
  audited = plan(shadow={"num_models": 6})
  for name in ("classifier", "diffusion"):
    assert audited.stages[name].fingerprint == experiment.stages[name].fingerprint
  changed = plan(shadow=SHADOW)
  assert changed.stages["classifier"].fingerprint != experiment.stages["classifier"].fingerprint


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
    (
      {"classifier": PRIVATE},
      {"classifier": PRIVATE, "defenses": {"dpsgd": {"microbatch_size": 8}}},
      True,
    ),
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
    assert len(names) == (3 if name in ("audit", "shadow_audit") else 1), name


def test_how_many_models_train_at_once_and_steps_are_a_call_is_not():
  first = plan(shadow=SHADOW)
  steps = {name: {"steps_per_call": 8} for name in ("classifier", "diffusion")}
  second = plan(shadow={**SHADOW, "models_at_once": 4}, **steps)
  for name, stage in first.stages.items():
    assert second.stages[name].fingerprint == stage.fingerprint


def test_the_dtype_of_re_generation_is_of_the_queries_and_not_of_the_training(monkeypatch):
  plain, reduced = plan(), plan(purify={"dtype": "bfloat16"})
  for name in ("classifier", "diffusion"):
    assert plain.stages[name].fingerprint == reduced.stages[name].fingerprint
  assert plain.stages["queries"].fingerprint != reduced.stages["queries"].fingerprint
  monkeypatch.setattr(stages, "load_denoiser", lambda experiment, store: experiment.denoiser)
  dtypes = [stages.load_purifier(e, None).module.dtype for e in (plain, reduced)]
  assert [np.dtype(dtype).name for dtype in dtypes] == ["float32", "bfloat16"]


def test_a_network_for_classes_is_refused_before_anything_is_computed():
  with pytest.raises(ValueError, match="for 10 classes; an experiment takes one without"):
    plan(diffusion={"model": "adm_unet", "fields": {"num_classes": 10}})


def test_settings_read_back_from_json_are_the_same_experiment():
  """As `run.json` has them: tuples have become lists."""
  shadow = {**SHADOW, "queries": [1, 4]}
  expected = plan(shadow={**shadow, "queries": (1, 4)})
  assert plan(shadow=shadow).stages["audit"] == expected.stages["audit"]


@pytest.mark.parametrize(
  "settings, message",
  [
    ({"shadow": {"num_models": 7}}, "an even number from 6 on"),
    ({"shadow": {**SHADOW, "queries": (4, 16)}}, "rising numbers of queries from 1"),
    ({"shadow": {**SHADOW, "num_recorded": 3}}, "at least purify.num_candidates"),
    ({"shadow": {**SHADOW, "augmentation": "twirl"}}, "shadow.augmentation is 'twirl'"),
    ({"shadow": SHADOW, "data": {"num_reference": 5}}, "raise data.num_reference"),
    ({"data": {"num_nonmembers": 8}}, "at least 5 known non-members"),
    ({"defenses": {"hmap": {"gamma": 0.5}}}, "no defense 'hmap'; did you mean 'hamp'"),
    ({"classifier": {"defense": "own:hamp"}}, "called 'hamp', as one of ours is"),
    (
      {"output": {"defense": "memguard"}, "defenses": {"memguard": {"epochs": "many"}}},
      "epochs is 'many'; expected a whole number",
    ),
  ],
)
def test_what_would_fail_late_is_refused_at_once(settings, message):
  with pytest.raises(ValueError, match=message):
    plan(**settings)
