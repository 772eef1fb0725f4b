"""Audits of a training procedure of any framework: its leak is seen, or none is there."""

import json

import jax
import numpy as np
import pytest
from experiment import own_procedures

from diffence_jax.cli import export as export_command
from diffence_jax.experiment.finished import FinishedRun
from diffence_jax.experiment.plan import plan
from diffence_jax.experiment.run import compute, open_store

HERE = "experiment.own_procedures"
STAGES = (
  "classifier", "diffusion", "queries", "regenerations", "shadow_queries", "shadow_audit"
)  # fmt: skip
MODELS = 6


def config(train="", **sections):
  few = {
    "data": {"num_members": 30, "num_nonmembers": 30, "num_reference": 10},
    "classifier": {"train": train and f"{HERE}:{train}"},
    "diffusion": {"model": "experiment.own_networks:Blur", "num_steps": 2, "batch_size": 16},
    "purify": {"num_candidates": 2, "step": 5, "policies": ("scenario_3",)},
    "shadow": {"num_models": MODELS, "main_attack": "lira_online"},
    "audit": {"attacks": ("loss", "lira_online", "noise_robustness"), "num_label_only": 2},
    "attacks": {"noise_robustness": {"num_draws": 2}},
  }
  return {key: {**few.get(key, {}), **sections.get(key, {})} for key in {*few, *sections}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  return open_store(tmp_path_factory.mktemp("procedures"))


@pytest.fixture(autouse=True)
def fresh_calls():
  own_procedures.CALLS.clear()
  own_procedures.FAIL_AT.clear()


def aucs(experiment, store):
  """Predictor to the AUC of the main attack with every shadow model in turn."""
  rows = experiment.shadow_audit.load(store).samples
  return {row.predictor: row.auc.value for row in rows if row.attack == "lira_online"}


def test_a_procedure_that_memorises_is_seen_also_when_it_was_interrupted(store):
  own_procedures.FAIL_AT.append(4)  # the target, two shadow models, and the third fails
  with pytest.raises(RuntimeError, match=r"memorise failed at the model shadow/2: KeyError"):
    compute(plan(config("memorise")), store, STAGES)
  assert len(own_procedures.CALLS) == 4
  experiment = plan(config("memorise"))
  assert [store.is_done(m) for m in experiment.stages["shadow_queries"].models[:3]] == [
    True, True, False
  ]  # fmt: skip
  seeds, own_procedures.CALLS[:] = own_procedures.CALLS[:], []
  own_procedures.FAIL_AT.clear()
  compute(experiment, store, STAGES)
  # No finished one again, and the one that failed with the same seed.
  assert len(own_procedures.CALLS) == MODELS - 2 and own_procedures.CALLS[0] == seeds[-1]
  assert len({*seeds, *own_procedures.CALLS}) == MODELS + 1
  found = aucs(experiment, store)
  assert found["undefended"] > 0.95 and found["scenario 3"] < found["undefended"] + 0.01

  # What has to ask the target itself trains it once more, and knows it again.
  own_procedures.CALLS.clear()
  compute(experiment, store, ("label_only", "inference_time", "audit"))
  assert seeds[:1] == own_procedures.CALLS
  rows = experiment.audit.load(store)
  assert rows[0].member_accuracy.value == 1 and rows[1].label_changes == 0
  finished = FinishedRun(experiment, store)
  images = np.asarray(experiment.classifier.members.images[:3] / np.float32(255))
  raw = finished.predict(None, images)
  np.testing.assert_allclose(
    np.max(raw, axis=1), 0, atol=1e-5
  )  # each image's distance to itself
  protected = finished.protect()(jax.random.key(0), images)
  np.testing.assert_array_equal(np.argmax(protected, axis=1), np.argmax(raw, axis=1))


def test_a_shadow_model_is_what_its_half_makes_of_it(store):
  """The record against the procedure called by hand, on images and on re-generations."""
  experiment = plan(config("memorise"))
  compute(experiment, store, STAGES[:-1])
  shadows = experiment.stages["shadow_queries"]
  membership, samples = shadows.membership(store), shadows.samples
  assert membership.shape == (MODELS, 60) and np.all(membership.sum(axis=0) == MODELS // 2)
  images = samples.images / np.float32(255)
  raw, made = experiment.stages["regenerations"].load(store)
  np.testing.assert_allclose(raw, images, atol=1e-7)
  assert made.shape == (60, 2, 8, 8, 1) and made.min() >= 0 and made.max() <= 1
  half = images[membership[1]], samples.labels[membership[1]].astype(np.int64)
  predict = own_procedures.memorise(*half, 0)
  record = shadows.load_model(store, 1)
  np.testing.assert_allclose(record.raw[:, 0], predict(images), rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(
    record.candidates[:, 0, 1], predict(np.asarray(made[:, 1])), rtol=1e-4, atol=1e-3
  )


def test_a_procedure_that_ignores_its_data_has_nothing_to_see(store):
  experiment = plan(config("ignore"))
  compute(experiment, store, STAGES)
  assert store.is_done(experiment.stages["regenerations"])
  for auc in aucs(experiment, store).values():
    assert 0.35 < auc < 0.65


def test_a_procedure_that_gives_another_model_is_found_out(store):
  experiment = plan(config("drifting"))
  compute(experiment, store, ("classifier", "diffusion"))
  with pytest.raises(ValueError, match="gave another classifier than before"):
    compute(plan(config("drifting")), store, ("queries",))


def test_a_fixed_predictor_of_jax_is_audited_with_shadow_models_of_a_procedure(store, tmp_path):
  index = {"members": list(range(30)), "nonmembers": list(range(30, 60))}
  (tmp_path / "index.json").write_text(json.dumps(index))
  (tmp_path / "weights.json").write_text("0.5")
  sections = {
    "data": {"index_file": str(tmp_path / "index.json")},
    "classifier": {
      "predictor": f"{HERE}:fixed",
      "predictor_options": {"weights": str(tmp_path / "weights.json")},
      "train": f"{HERE}:ignore",
    },
  }
  experiment = plan(config(**sections))
  compute(experiment, store, ("classifier", "diffusion", "queries"))
  images = experiment.queries.samples.images / np.float32(255)
  expected = own_procedures.fixed(str(tmp_path / "weights.json"))(None, images)
  record = experiment.queries.load(store)
  np.testing.assert_allclose(record.raw, expected, rtol=1e-5, atol=1e-5)
  # The content of the file that an option names is part of what was audited.
  (tmp_path / "weights.json").write_text("0.6")
  again = plan(config(**sections))
  assert again.classifier.fingerprint != experiment.classifier.fingerprint
  sections["data"]["index_file"] = ""
  with pytest.raises(ValueError, match="nothing says which samples it was trained on"):
    plan(config(**sections))


@pytest.mark.parametrize(
  ("classifier", "message"),
  [
    ({"train": "memorise"}, "classifier.train is 'memorise'; expected 'module:function'"),
    ({"train": f"{HERE}:no_seed"}, "expected 3 arguments"),
    ({"train": f"{HERE}:absent"}, "cannot be imported"),
    ({"train_options": {"sharp": 1.0}}, "did you mean 'sharpness'"),
    ({"train_options": {"sharpness": "1"}}, "classifier.train_options.sharpness is '1'"),
    ({"defense": "hamp"}, "which trains networks of Flax"),
    ({"saved_model": "x", "predictor": f"{HERE}:fixed"}, "no saved model x"),
  ],
)
def test_what_does_not_go_together_is_refused_when_planned(classifier, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    plan(config("memorise", classifier=classifier))


@pytest.mark.parametrize(
  ("train", "message"),
  [
    ("nothing", "nothing returned no predict"),
    ("labels_only", "labels_only returned no predict"),
  ],
)
def test_what_returns_no_predictor_is_refused(train, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    compute(plan(config(train)), open_store(tmp_path), ("classifier",))


def test_what_cannot_be_exported_says_so_before_it_is_trained_again(tmp_path):
  (tmp_path / "mine.py").write_text(
    "from diffence_jax.experiment.config import base_config\n"
    "from experiment.test_own_procedures import config\n"
    "def get_config():\n"
    "  mine = base_config()\n"
    "  for name, section in config('memorise').items():\n"
    "    mine[name].update(section)\n"
    "  return mine\n"
  )
  flags = {"config": tmp_path / "mine.py", "workdir": tmp_path, "output": tmp_path / "out"}
  with pytest.raises(ValueError, match=r"none of Flax, so it cannot be exported.*load_run"):
    export_command.run(["export", *(f"--{name}={value}" for name, value in flags.items())])
  assert not own_procedures.CALLS and not (tmp_path / "out").exists()


def test_options_are_in_the_names_of_what_is_trained():
  first, other = (
    plan(config("memorise", classifier={"train_options": {"sharpness": s}})).stages
    for s in (1.0, 2.0)
  )
  differ = {name for name in first if first[name].fingerprint != other[name].fingerprint}
  assert {"classifier", "queries", "shadow_queries", "audit"} <= differ
  assert not {"split", "diffusion", "regenerations"} & differ
