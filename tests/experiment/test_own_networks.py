"""Experiments with networks of a user's own: run, versioned by their file, saved, refused."""

import importlib
import json
import sys

import jax
import numpy as np
import pytest
from experiment.own_networks import Blur, Flat, Nameless, PerClass

import diffence_jax as dj
from diffence_jax import parallel, rng
from diffence_jax.diffusion import under_predicted_label
from diffence_jax.experiment.finished import FinishedRun
from diffence_jax.experiment.plan import plan
from diffence_jax.experiment.run import compute, open_store
from diffence_jax.models.saved import read_manifest
from diffence_jax.training.denoiser import DenoiserSettings, train_denoiser

HERE = "experiment.own_networks"
PER_CLASS = {"model": f"{HERE}:PerClass", "fields": {"num_classes": 10}}
PROCEDURE = "experiment.own_procedures:ignore"


def config(**sections):
  few = {
    "data": {"num_members": 24, "num_nonmembers": 24, "num_reference": 4},
    "classifier": {"model": f"{HERE}:Flat", "epochs": 2, "batch_size": 16},
    "diffusion": {"model": f"{HERE}:Blur", "num_steps": 3, "batch_size": 16},
    "purify": {"num_candidates": 2, "step": 20, "policies": ("scenario_3",)},
    "samples": {"num_images": 1, "num_reconstructions": 1, "num_ddim_steps": 1},
    "audit": {"attacks": ("loss",)},
  }
  return {key: {**few.get(key, {}), **sections.get(key, {})} for key in {*few, *sections}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A run of both, as far as what is recorded; the denoiser is class-conditional."""
  sections = {
    "classifier": {"fields": {"width": 6}},
    "diffusion": PER_CLASS,
    "purify": {"step": 400},
    "shadow": {"num_models": 6},
  }
  experiment = plan(config(**sections))
  store = open_store(tmp_path_factory.mktemp("own"))
  names = ("classifier", "diffusion", "queries", "samples", "shadow", "shadow_queries")
  compute(experiment, store, names)
  return FinishedRun(experiment, store)


def test_a_run_takes_both_by_their_names(finished):
  assert finished.experiment.classifier.architecture == f"{HERE}:Flat"
  assert finished.classifier.module == Flat(10, width=6)
  assert finished.diffusion.module == PerClass(1, 10)
  images = np.zeros((2, 8, 8, 1), np.float32)
  assert finished.predict(None, images).shape == (2, 10)


def test_what_a_run_trained_is_saved_and_named_by_another(finished, tmp_path):
  run = finished
  dj.save_model(tmp_path / "flat", *run.classifier, image_channels=1)
  dj.save_model(tmp_path / "shades", *run.diffusion, image_channels=1)
  assert read_manifest(tmp_path / "flat").name == f"{HERE}:Flat"
  assert read_manifest(tmp_path / "shades").role == "denoiser"
  module, variables = dj.load_model(tmp_path / "flat", Flat)
  assert module == run.classifier.module
  jax.tree.map(np.testing.assert_array_equal, variables, run.classifier.variables)
  with pytest.raises(ValueError, match=r"pass the class: load_model\(path, Flat\)"):
    dj.load_model(tmp_path / "flat")
  with pytest.raises(ValueError, match=r"expected that class, not 'Blur'"):
    dj.load_model(tmp_path / "flat", Blur)
  index = {"members": list(range(24)), "nonmembers": list(range(24, 48))}
  (tmp_path / "index.json").write_text(json.dumps(index))
  sections = {
    "data": {"index_file": str(tmp_path / "index.json")},
    "classifier": {"saved_model": str(tmp_path / "flat")},
    "diffusion": {**PER_CLASS, "saved_model": str(tmp_path / "shades")},
  }
  named = plan(config(**sections))
  assert named.classifier.bound.module == run.classifier.module
  assert named.settings.classifier.fields["width"] == 6
  with pytest.raises(ValueError, match=r"classifier\.model is 'vit', expected the class"):
    plan(config(**{**sections, "classifier": {**sections["classifier"], "model": "vit"}}))


def test_the_file_of_a_class_is_part_of_what_is_trained(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  text = "from experiment.own_networks import Blur, Flat\n"
  stages = []
  for content in (text, text, text + "# another version\n"):
    (tmp_path / "versioned_networks.py").write_text(content)
    importlib.invalidate_caches()
    sys.modules.pop("versioned_networks", None)
    networks = {"model": "versioned_networks:Flat"}, {"model": "versioned_networks:Blur"}
    stages.append(plan(config(classifier=networks[0], diffusion=networks[1])).stages)
  first, same, other = stages
  for name in ("classifier", "diffusion", "queries"):
    assert first[name].fingerprint == same[name].fingerprint != other[name].fingerprint
  assert first["split"].fingerprint == other["split"].fingerprint


@pytest.mark.parametrize(
  ("sections", "message"),
  [
    ({"classifier": {"model": f"{HERE}:Nothing"}}, "cannot be imported"),
    ({"classifier": {"model": f"{HERE}:Nameless"}}, "has no field num_classes"),
    ({"diffusion": {"model": f"{HERE}:Nameless"}}, "has no field out_channels"),
    ({"classifier": {"model": f"{HERE}:Plain"}}, "the class Plain; expected a class of flax"),
    ({"classifier": {"model": "json:loads"}}, "is function; expected a class of flax"),
    ({"classifier": {"fields": {"widht": 3}}}, "did you mean 'width'"),
    ({"classifier": {"fields": {"width": "3"}}}, "expected a whole number"),
    ({"purify": {"dtype": "bfloat16"}}, "Blur has no field dtype"),
  ],
)
def test_what_is_no_network_for_it_is_refused_before_anything_is_trained(sections, message):
  with pytest.raises(ValueError, match=message):
    plan(config(**sections))


def test_a_class_without_the_field_is_not_saved(tmp_path):
  with pytest.raises(ValueError, match="has the field num_classes"):
    dj.save_model(tmp_path / "a", Nameless(), {}, image_channels=1)


def test_the_shades_of_the_classes_that_are_there_are_trained(finished):
  stage = finished.experiment.diffusion
  first = dj.models.init(finished.diffusion.module, rng.stream(0, "diffusion/init"), (8, 8, 1))
  shades = [v["params"]["shades"]["embedding"] for v in (first, finished.diffusion.variables)]
  changed = np.any(np.asarray(shades[0]) != np.asarray(shades[1]), axis=-1)
  np.testing.assert_array_equal(np.flatnonzero(changed), np.unique(stage.trained_on.labels))


def test_every_shadow_model_is_asked_about_regenerations_under_its_own_label(finished):
  experiment, store = finished.experiment, finished.store
  shadows = experiment.stages["shadow_queries"]
  images = shadows.samples.images / np.float32(255)
  module, stacked = shadows.shadow.load_stacked(store)
  predict = dj.models.predictor(module, jax.tree.map(lambda leaf: leaf[5], stacked))
  denoise = under_predicted_label(dj.models.denoiser(*finished.diffusion), predict)
  expected = dj.candidate_logits(
    rng.stream(0, "shadow_queries"), predict, denoise, finished.schedule, images,
    num_candidates=2, step=400,
  )  # fmt: skip
  first, record = (shadows.load_model(store, model) for model in (0, 5))
  np.testing.assert_allclose(record.candidates[:, 0], expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(record.raw[:, 0], predict(None, images), rtol=1e-4, atol=1e-4)
  labels = [np.argmax(of_model.raw[:, 0], axis=-1) for of_model in (first, record)]
  assert np.any(labels[0] != labels[1])  # else one label would do for all


def test_labels_are_kept(finished):
  record = finished.experiment.queries.load(finished.store)
  selection = dj.select(record.candidates, record.raw)
  assert np.any(np.asarray(selection.index) < 2)  # a candidate was taken for some
  labels = [np.argmax(logits, axis=-1) for logits in (selection.logits, record.raw)]
  np.testing.assert_array_equal(*labels)
  # `protect` asks what a finished run gives it under the predicted label.
  assert finished.denoise.args[1] is finished.predict


@pytest.mark.parametrize(
  ("sections", "message"),
  [
    (
      {"diffusion": {**PER_CLASS, "fields": {"num_classes": 7}}},
      "for 7 classes, and the data have 10",
    ),
    ({"diffusion": PER_CLASS, "classifier": {"train": PROCEDURE}}, "asked outside of JAX"),
  ],
)
def test_what_does_not_go_with_a_class_conditional_network_is_refused(sections, message):
  with pytest.raises(ValueError, match=message):
    plan(config(**sections))


def test_labels_of_another_kind_are_refused(tmp_path):
  module = dj.models.make_denoiser("adm_unet", out_channels=1, channels=2, multipliers=(1,))
  given = {"checkpoint_every": 1, "seed": 0, "mesh": parallel.batch_mesh(),
           "directory": tmp_path}  # fmt: skip
  images, schedule = np.zeros((4, 8, 8, 1), np.uint8), dj.linear_schedule()
  train = lambda module, labels: train_denoiser(
    module, images, schedule, DenoiserSettings(), labels=labels, **given
  )
  with pytest.raises(ValueError, match="is not class-conditional"):
    train(module, np.zeros(4, int))
  conditional = module.clone(num_classes=3)
  for labels, message in ((None, "one for each of the 4 images"), (np.arange(4), "0 to 2")):
    with pytest.raises(ValueError, match=message):
      train(conditional, labels)
