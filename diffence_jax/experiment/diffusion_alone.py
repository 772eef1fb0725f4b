"""A diffusion model by itself: the stage of an experiment, without the classifier."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from diffence_jax import data
from diffence_jax.checks import check_choice
from diffence_jax.data import SOURCES
from diffence_jax.disk import check_free, private_files
from diffence_jax.experiment.config import validate
from diffence_jax.experiment.plan import plan
from diffence_jax.experiment.plan_models import plan_diffusion
from diffence_jax.experiment.run import compute_stages, open_store
from diffence_jax.experiment.samples import samples_of
from diffence_jax.experiment.store import locked
from diffence_jax.models.saved import save_model

SAMPLES = ("config", "all")


def train_diffusion(
  config: ConfigDict | Mapping[str, Any],
  workdir: str | os.PathLike,
  output: str | os.PathLike,
  *,
  samples: str = "config",
) -> None:
  """Trains the diffusion model of an experiment, which predicts the noise, and saves it.

  Args:
    config: as `run` takes it; the sections `data`, `diffusion` and `compute` matter.
    workdir: checkpoints and the trained model go there; a killed training goes on from there,
      and an experiment with the same config finds the model there.
    output: the folder of the saved model, as `models.load_model` reads it.
    samples: "config": those that the experiment trains it on, of `diffusion.trained_on`;
      "all": every image of the data.

  Raises:
    ValueError: a setting or the data are not right, or the config names a saved model.
    FileNotFoundError: the data are not there.
    FileExistsError: there is something at `output`.
    ArtifactError: the workdir is in use, or something in it is damaged.
  """
  check_choice("samples", samples, SAMPLES)
  output = Path(output).expanduser()
  check_free(output)
  stage, compute = _stage(config, samples)
  store = open_store(workdir)
  with private_files(), locked(store.workdir):
    store.prepare()
    compute_stages({"diffusion": stage}, store, compute)
    module, variables = stage.load(store)
  channels, schedule = stage.model_shape[-1], dict(stage.schedule)
  save_model(output, module, variables, image_channels=channels, schedule=schedule)


def _stage(config, samples):
  settings = validate(config)
  if settings.diffusion.saved_model:
    raise ValueError(
      f"diffusion.saved_model is {settings.diffusion.saved_model}, a trained model; leave it "
      "out to train one."
    )
  if samples == "config":
    return plan(config).diffusion, settings.compute
  dataset = data.load(SOURCES.choose(settings.data.source, settings.data.options))
  # As an experiment's whose reference set they all are.
  diffusion = dataclasses.replace(settings.diffusion, trained_on="reference")
  settings = dataclasses.replace(settings, diffusion=diffusion)
  everything = {"reference": samples_of(dataset, dataset.ids)}
  return plan_diffusion(settings, dataset, everything, None), settings.compute
