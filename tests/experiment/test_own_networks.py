"""Experiments with networks of a user's own: run, versioned by their file, saved, refused."""

import importlib
import json
import sys

import jax
import numpy as np
import pytest
from experiment.own_networks import Blur, Flat, Nameless

import diffence_jax as dj
from diffence_jax.experiment.finished import FinishedRun
from diffence_jax.experiment.plan import plan
from diffence_jax.experiment.run import compute, open_store
from diffence_jax.models.saved import read_manifest

HERE = "experiment.own_networks"


def config(**sections):
  few = {
    "data": {"num_members": 24, "num_nonmembers": 24, "num_reference": 4},
    "classifier": {"model": f"{HERE}:Flat", "epochs": 2, "batch_size": 16},
    "diffusion": {"model": f"{HERE}:Blur", "num_steps": 4, "batch_size": 16},
    "purify": {"num_candidates": 2, "step": 20, "policies": ("scenario_3",)},
    "samples": {"num_images": 1, "num_reconstructions": 1, "num_ddim_steps": 1},
    "audit": {"attacks": ("loss",)},
  }
  return {key: {**few.get(key, {}), **sections.get(key, {})} for key in {*few, *sections}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A run of both, as far as its audit."""
  experiment = plan(config(classifier={"fields": {"width": 6}}))
  store = open_store(tmp_path_factory.mktemp("own"))
  compute(experiment, store, ("classifier", "diffusion", "queries", "audit"))
  return FinishedRun(experiment, store)


def test_a_run_takes_both_by_their_names(finished):
  assert finished.experiment.classifier.architecture == f"{HERE}:Flat"
  assert finished.classifier.module == Flat(10, width=6)
  assert finished.diffusion.module == Blur(1)
  defended = finished.experiment.audit.load(finished.store)[1]
  assert defended.name == "scenario 3" and defended.label_changes == 0
  images = np.zeros((2, 8, 8, 1), np.float32)
  assert finished.protect()(jax.random.key(0), images).shape == (2, 10)


def test_what_a_run_trained_is_saved_and_named_by_another(finished, tmp_path):
  run = finished
  dj.save_model(tmp_path / "flat", *run.classifier, image_channels=1)
  dj.save_model(tmp_path / "blur", *run.diffusion, image_channels=1)
  assert read_manifest(tmp_path / "flat").name == f"{HERE}:Flat"
  assert read_manifest(tmp_path / "blur").role == "denoiser"
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
    "diffusion": {"saved_model": str(tmp_path / "blur")},
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
