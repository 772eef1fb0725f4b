"""The scheduler of a Diffusers pipeline: its schedule, with the network wherever that goes."""

import json
import warnings

import numpy as np
import pytest
from fixtures.load import load_fixture, pseudo_state_dict

import diffence_jax as dj
from diffence_jax.cli import main
from diffence_jax.interop import from_torch, read_schedule
from diffence_jax.interop.scheduler import schedule_options
from diffence_jax.models.saved import read_manifest

LINEAR = {"num_steps": 1000, "beta_start": 1e-4, "beta_end": 0.02}


def options_of(**config):
  return schedule_options(config, "scheduler_config.json")


@pytest.fixture
def pipeline(tmp_path):
  """`pipeline(**options) -> folder`, with a scheduler of these options."""
  safetensors = pytest.importorskip("safetensors.numpy", reason="writes safetensors files")
  manifest, _ = load_fixture("diffusers_unet")
  (tmp_path / "unet").mkdir()
  (tmp_path / "scheduler").mkdir()
  (tmp_path / "unet" / "config.json").write_text(json.dumps(manifest["configs"]["other"]))
  weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
  safetensors.save_file(pseudo_state_dict(manifest), weights)

  def write(**options):
    text = json.dumps({"_class_name": "DDPMScheduler", **options})
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(text)
    return tmp_path

  return write


def test_the_default_is_the_linear_one():
  assert options_of() == options_of(beta_schedule="linear", clip_sample=True) == LINEAR


@pytest.mark.parametrize(
  "config, options",
  [
    ({"num_train_timesteps": 4000}, {**LINEAR, "num_steps": 4000}),
    ({"beta_schedule": "scaled_linear"}, {"kind": "scaled_linear", **LINEAR}),
    ({"beta_schedule": "sigmoid"}, {"kind": "sigmoid", **LINEAR}),
    ({"beta_schedule": "squaredcos_cap_v2"}, {"kind": "cosine", "num_steps": 1000}),
    ({"trained_betas": [0.1, 0.2, 0.3]}, {"kind": "betas", "betas": [0.1, 0.2, 0.3]}),
    ({"_class_name": "DDIMScheduler", "beta_end": 0.012}, {**LINEAR, "beta_end": 0.012}),
  ],
)
def test_schedules_of_diffusers_become_ours(config, options):
  assert options_of(**config) == options
  assert (
    dj.make_schedule(**options).num_steps == len(config.get("trained_betas", []))
    or (options["num_steps"])
  )


@pytest.mark.parametrize(
  "config, message",
  [
    ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "of a FlowMatchEuler.*; expected one"),
    ({"_class_name": ["DDPMScheduler"]}, "expected one for networks"),
    ({"prediction_type": "v_prediction"}, "predicts 'v_prediction'"),
    ({"prediction_type": "sample"}, "predicts 'sample'"),
    ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr, so no image follows"),
    ({"use_flow_sigmas": True}, "flow matching"),
    ({"variance_type": "learned_range"}, "variance_type 'learned_range'"),
    ({"beta_schedule": "laplace"}, "beta_schedule 'laplace'; expected one of linear"),
    ({"beta_schedule": ["linear"]}, "beta_schedule .*expected one of linear"),
    ({"beta_end": 2.0}, "The schedule of scheduler_config.json is not right: beta_end"),
    ({"beta_end": "0.02"}, "is not right"),
    ({"num_train_timesteps": 2.5}, "is not right"),
    ({"num_train_timesteps": 10**12}, "is not right: num_steps"),
    ({"trained_betas": [0.5, 1.5]}, "is not right: betas"),
    ({"trained_betas": "x"}, "is not right"),
  ],
)
def test_schedules_that_we_do_not_have_are_refused(config, message):
  with pytest.raises(ValueError, match=message):
    options_of(**config)


def test_the_library_says_where_the_schedule_is_another(pipeline):
  folder = pipeline(beta_schedule="squaredcos_cap_v2")
  with pytest.warns(UserWarning, match="another noise schedule.*read_schedule"):
    from_torch("ddpm_unet", folder)
  alpha_bar = read_schedule(folder).alpha_bar
  assert float(alpha_bar[160]) == pytest.approx(0.93, abs=0.01)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    from_torch("ddpm_unet", pipeline())
  np.testing.assert_array_equal(read_schedule(folder).alpha_bar, dj.linear_schedule().alpha_bar)


def test_a_folder_without_scheduler_has_no_schedule_to_read(pipeline):
  folder = pipeline()
  (folder / "scheduler" / "scheduler_config.json").unlink()
  with pytest.raises(FileNotFoundError, match=r"has no scheduler/scheduler_config\.json"):
    read_schedule(folder)


@pytest.mark.parametrize(
  "options, said",
  [
    (
      {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 4000},
      "cosine, num_steps 4",
    ),
    ({}, "linear, num_steps 1000"),
  ],
)
def test_the_command_saves_and_says_the_schedule(pipeline, tmp_path, capsys, options, said):
  command = ["diffence", "import-torch", "ddpm_unet", pipeline(**options)]
  assert main.run([*map(str, command), f"--output={tmp_path / 'saved'}"]) == 0
  assert f"Noise schedule: {said}" in capsys.readouterr().out
  manifest = read_manifest(tmp_path / "saved")
  assert dj.make_schedule(**manifest.schedule).num_steps == options.get(
    "num_train_timesteps", 1000
  )
  assert "scheduler_config.json" in manifest.source


def test_the_command_refuses_a_schedule_and_leaves_nothing(pipeline, tmp_path, capsys):
  command = ["diffence", "import-torch", "ddpm_unet", pipeline(rescale_betas_zero_snr=True)]
  assert main.run([*map(str, command), f"--output={tmp_path / 'saved'}"]) == 2
  assert "rescale_betas_zero_snr" in capsys.readouterr().err
  assert not (tmp_path / "saved").exists()
