"""Saved models that a config names: taken as they are, refused where they do not fit."""

import json

import jax
import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax import rng
from diffence_jax.experiment.config import as_json, base_config
from diffence_jax.experiment.plan import plan
from diffence_jax.experiment.presets import shrink
from diffence_jax.experiment.run import compute, open_store, run
from diffence_jax.models import saved as saved_model


def config(**changes):
  own = base_config()
  own.data.num_members = own.data.num_nonmembers = 48
  shrink(own)
  own.update_from_flattened_dict(changes)
  return own


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A classifier and a denoiser, saved; the index file of the classifier's members."""
  folder = tmp_path_factory.mktemp("saved")
  fields = {"width": 4, "stages": (1,)}
  classifier = dj.models.make_classifier("small_resnet", num_classes=10, **fields)
  fields = {"channels": 8, "multipliers": (1, 2), "attention_levels": (), "num_res_blocks": 1}
  colour = dj.models.make_denoiser("ddpm_unet", out_channels=3, **fields)
  for name, module, channels in (("classifier", classifier, 1), ("denoiser", colour, 3)):
    variables = dj.models.init(module, jax.random.key(0), (8, 8, channels))
    saved_model.save_model(folder / name, module, variables, image_channels=channels)
  ids = np.arange(96).tolist()
  index = {"members": ids[:48], "nonmembers": ids[48:]}
  (folder / "index.json").write_text(json.dumps(index))
  return folder


def named(saved, **changes):
  return config(
    **{
      "data.index_file": str(saved / "index.json"),
      "classifier.saved_model": str(saved / "classifier"),
      "diffusion.saved_model": str(saved / "denoiser"),
      **changes,
    }
  )


def test_saved_models_are_run_as_they_are(saved, tmp_path):
  results = run(named(saved), tmp_path)
  assert results.classifier.model == "small_resnet"
  assert results.diffusion.trained_on is None and results.diffusion.loss is None
  # Gray images go through the network for colour ones.
  assert tuple(results.settings["diffusion"]["image_shape"]) == (8, 8, 3)
  module, variables = saved_model.load_model(saved / "classifier")
  raw = np.load(next((tmp_path / "queries").glob("*/raw.npy")))
  experiment = plan(named(saved))
  ids = np.concatenate([experiment.split.members, experiment.split.nonmembers])
  images = experiment.dataset.take(ids).images.astype(np.float32) / 255.0
  own = dj.models.predictor(module, variables)(None, images)
  np.testing.assert_allclose(raw, own, atol=1e-5)
  assert all(row.label_changes == 0 for row in results.predictors if row.name != "average")


def test_the_folder_is_not_part_of_what_a_result_depends_on(saved, tmp_path):
  moved = tmp_path / "elsewhere"
  (saved / "classifier").rename(moved)
  try:
    there = plan(named(saved, **{"classifier.saved_model": str(moved)})).stages
  finally:
    moved.rename(saved / "classifier")
  here = plan(named(saved)).stages
  assert {n: s.fingerprint for n, s in here.items()} == {
    n: s.fingerprint for n, s in there.items()
  }
  assert here["classifier"].fingerprint != plan(config()).stages["classifier"].fingerprint


def test_another_normalisation_than_the_configs_is_refused(saved):
  given = named(saved)
  given.classifier.fields.mean = (0.4,)
  with pytest.raises(ValueError, match=r"fields.mean is \(0.4,\), and the saved model .*0.5"):
    plan(given)
  for same in ((0.5,), (0.5, 0.5, 0.5)):
    given.classifier.fields.mean = same
    plan(given)


@pytest.mark.parametrize(
  "changes",
  [{"diffusion.image_shape": (16, 16, 3)}, {"diffusion.schedule.beta_end": 0.03}],
)
def test_what_a_saved_diffusion_model_was_trained_for_is_of_the_queries(saved, changes):
  before, after = (plan(named(saved, **own)).stages for own in ({}, changes))
  assert before["diffusion"].fingerprint == after["diffusion"].fingerprint
  for name in ("queries", "samples", "audit"):
    assert before[name].fingerprint != after[name].fingerprint, name


@pytest.fixture
def with_schedule(saved, tmp_path):
  """`with_schedule(schedule) -> folder` of the saved denoiser, for that schedule."""
  module, variables = saved_model.load_model(saved / "denoiser")

  def save(schedule):
    folder = tmp_path / f"denoiser-{len(list(tmp_path.iterdir()))}"
    saved_model.save_model(folder, module, variables, image_channels=3, schedule=schedule)
    return str(folder)

  return save


def test_the_schedule_of_a_saved_model_is_the_experiments(saved, with_schedule):
  schedule = {"kind": "cosine", "num_steps": 1000}
  own = plan(named(saved, **{"diffusion.saved_model": with_schedule(schedule)}))
  expected = dj.make_schedule(**schedule)
  np.testing.assert_array_equal(own.purification.full_schedule().alpha_bar, expected.alpha_bar)
  assert as_json(own.settings)["diffusion"]["schedule"] == schedule
  before = plan(named(saved)).stages
  assert own.stages["diffusion"].fingerprint == before["diffusion"].fingerprint
  assert own.stages["queries"].fingerprint != before["queries"].fingerprint


@pytest.mark.parametrize("predicts", ["v", "edm"])
def test_a_network_that_predicts_something_else_re_generates_by_the_noise_that_follows(
  saved, tmp_path, predicts
):
  module, variables = saved_model.load_model(saved / "denoiser")
  options, folder = {"kind": "cosine", "num_steps": 1000}, str(tmp_path / "other")
  saved_model.save_model(
    folder, module, variables, image_channels=3, schedule=options, predicts=predicts
  )
  own = named(saved, **{"diffusion.saved_model": folder})
  experiment = plan(own)
  fingerprint = experiment.stages["diffusion"].fingerprint
  assert fingerprint != plan(named(saved)).stages["diffusion"].fingerprint
  store = open_store(tmp_path / "run")
  compute(experiment, store, ("split", "classifier", "diffusion", "queries"))
  finished = dj.load_run(tmp_path / "run", own)
  schedule = dj.make_schedule(**options)
  denoise = dj.diffusion.as_noise(dj.models.denoiser(module, variables), schedule, predicts)
  record = experiment.queries.load(store)
  expected = dj.candidate_logits(
    rng.stream(0, "queries"),
    finished.predict,
    denoise,
    schedule,
    experiment.queries.samples.images[:5] / np.float32(255),
    ids=experiment.queries.samples.ids[:5],
    **finished.settings,
  )
  np.testing.assert_allclose(record.candidates[:5], expected, rtol=1e-3, atol=1e-3)
  x, t = np.full((2, 8, 8, 3), 0.5, np.float32), np.array([10, 500])
  np.testing.assert_allclose(finished.denoise(x, t), denoise(x, t), rtol=1e-4, atol=1e-4)


def test_the_usual_schedule_is_the_same_told_and_untold(saved, with_schedule):
  linear = {"num_steps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
  told, untold = (
    plan(named(saved, **changes)).stages
    for changes in ({"diffusion.saved_model": with_schedule(linear)}, {})
  )
  assert {n: s.fingerprint for n, s in told.items()} == {
    n: s.fingerprint for n, s in untold.items()
  }


def test_another_schedule_than_the_saved_models_is_refused(saved, with_schedule):
  linear = {"num_steps": 1000, "beta_start": 1e-4, "beta_end": 0.03}
  changes = {"diffusion.saved_model": with_schedule({"kind": "cosine", "num_steps": 1000})}
  with pytest.raises(ValueError, match=r"schedule is .*0\.03.*another one: kind cosine"):
    plan(named(saved, **changes, **{"diffusion.schedule.beta_end": 0.03}))
  changes = {"diffusion.saved_model": with_schedule(linear)}
  plan(named(saved, **changes, **{"diffusion.schedule.beta_end": 0.03}))
  short = {"diffusion.saved_model": with_schedule({"kind": "betas", "betas": [0.1, 0.2]})}
  with pytest.raises(ValueError, match="step"):  # of which there are two
    plan(named(saved, **short))


@pytest.mark.parametrize(
  "changes, error, message",
  [
    ({"classifier.saved_model": "nowhere"}, FileNotFoundError, "no saved model nowhere"),
    ({"classifier.saved_model": "{saved}/denoiser"}, ValueError, "expected a classifier"),
    ({"diffusion.saved_model": "{saved}/classifier"}, ValueError, "expected a denoiser"),
    ({"data.index_file": ""}, ValueError, "name them in data.index_file"),
    ({"classifier.defense": "hamp"}, ValueError, "leave one of them out"),
    ({"shadow.num_canaries": 2}, ValueError, "set it to 0"),
    ({"data.source": "photographs"}, ValueError, "tells 10 classes apart"),
    ({"diffusion.image_shape": (8, 8, 1)}, ValueError, "for images of 3 channels"),
  ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(
  saved, changes, error, message
):
  changes = {
    name: value.format(saved=saved) if isinstance(value, str) else value
    for name, value in changes.items()
  }
  with pytest.raises(error, match=message):
    plan(named(saved, **changes))


def test_the_architecture_of_a_saved_model_replaces_that_of_the_config(saved):
  own = as_json(plan(named(saved)).settings)
  assert (
    own["classifier"]["fields"]["width"] == 4 and own["diffusion"]["fields"]["channels"] == 8
  )
