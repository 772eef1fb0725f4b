"""A diffusion model that is trained by itself is the experiment's, and is saved once."""

import jax
import numpy as np
import pytest
from cli.command import SMOKE, refused

import diffence_jax as dj
from diffence_jax.cli import main
from diffence_jax.experiment.config import base_config
from diffence_jax.experiment.diffusion_alone import train_diffusion
from diffence_jax.experiment.presets import shrink


@pytest.fixture(scope="module")
def config():
  config = base_config()
  config.data.num_members = config.data.num_nonmembers = 48
  shrink(config)
  config.diffusion.num_steps = 3
  config.diffusion.fields.channels = 8
  return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp("run")


def test_what_is_saved_is_what_an_experiment_trains(config, workdir, tmp_path, capsys):
  for name in ("first", "second"):
    train_diffusion(config, workdir, tmp_path / name)
  (stage,) = (workdir / "diffusion").iterdir()  # trained once
  module, variables = dj.load_model(tmp_path / "first")
  again = dj.load_model(tmp_path / "second")[1]
  jax.tree.map(np.testing.assert_array_equal, variables, again)
  run = dj.load_run(workdir, config)
  x, t = np.full((2, 8, 8, 1), 0.5, np.float32), np.array([10, 500])
  np.testing.assert_array_equal(run.denoise(x, t), dj.models.denoiser(module, variables)(x, t))
  assert run.experiment.diffusion.fingerprint == stage.name


def test_every_image_can_be_taken(config, workdir, tmp_path):
  train_diffusion(config, workdir, tmp_path / "all", samples="all")
  assert len(list((workdir / "diffusion").iterdir())) == 2
  assert (tmp_path / "all" / "model.json").is_file()


def test_a_saved_model_is_not_replaced_and_nothing_else_is_written(tmp_path):
  output = tmp_path / "there"
  output.mkdir()
  common = ["train-diffusion", SMOKE, f"--workdir={tmp_path / 'new'}"]
  for arguments, message in (
    ([f"--output={output}"], "is there already, and is not overwritten"),
    ([f"--output={tmp_path}/a", "--samples=some"], "samples is 'some'; expected"),
    ([f"--output={tmp_path}/a", "--config.diffusion.saved_model=b"], "leave it out"),
    ([], "--output is missing"),
  ):
    assert message in refused(*common, *arguments)
  assert list(tmp_path.iterdir()) == [output]


def test_help_says_how(capsys):
  assert main.run(["diffence", "train-diffusion", "--help"]) == 0
  assert "--samples" in capsys.readouterr().out
