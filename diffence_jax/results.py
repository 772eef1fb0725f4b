"""What came of an experiment, as the report and `results.json` have it."""

import json
from typing import Any

import numpy as np

from diffence_jax import models, stages
from diffence_jax.artifacts import Store
from diffence_jax.config import as_json
from diffence_jax.stages import Experiment

# What is chosen for a training-time or an output defense where there is none.
_NO_DEFENSE = ("undefended", "none")

# How the predictor without Diffence is called where it has another defense.
_ALONE = {"undefended": "alone"}

# Stage to the file with what its plots show.
_ARRAYS = {"audit": "arrays.npz", "samples": "images.npz", "shadow_audit": "arrays.npz"}


def results_of(experiment: Experiment, store: Store) -> dict[str, Any]:
  """The content of `results.json`, of an experiment that is computed up to "audit"."""
  about = {"settings": as_json(experiment.config), **store.record}
  results = {**_results(experiment, store), **about, "seed": experiment.config.seed}
  return _name_alone(results) if _is_defended(experiment) else results


def arrays_of(experiment: Experiment, store: Store) -> dict[str, np.ndarray]:
  """What the plots of the report show, of an experiment that is computed."""
  arrays = {}
  for name, file in _ARRAYS.items():
    if name in experiment.stages:
      arrays |= _load_arrays(store.path(experiment.stages[name]) / file)
  if not _is_defended(experiment):
    return arrays
  parts = {name: name.partition("/") for name in arrays}
  return {
    _ALONE.get(predictor, predictor) + slash + rest: arrays[name]
    for name, (predictor, slash, rest) in parts.items()
  }


def _results(experiment, store):
  """What was run and what came of it, as the report reads it."""
  config, split = experiment.config, experiment.split
  rows = json.loads((store.path(experiment.stages["audit"]) / "predictors.json").read_text())
  undefended = rows[0]
  return {
    "experiment": config.name,
    "variant": config.variant,
    "protocol": config.audit.protocol,
    "data": {
      "source": config.data.source,
      "image_shape": list(experiment.dataset.images.shape[1:]),
      "num_classes": experiment.dataset.num_classes,
      **{group: len(ids) for group, ids in split.groups().items()},
    },
    "purify": as_json(config.purify),
    "defense": {
      "training": config.classifier.defense,
      "output": config.output.defense,
      "options": {
        name: stages.options_of(config, name)
        for name in (config.classifier.defense, config.output.defense)
        if name not in _NO_DEFENSE
      },
      "guarantee": experiment.recipe.guarantee and experiment.recipe.guarantee._asdict(),
    },
    "classifier": {
      "model": config.classifier.model,
      "num_parameters": models.num_parameters(experiment.classifier.variables),
      "train_accuracy": undefended["member_accuracy"]["value"],
      "test_accuracy": undefended["test_accuracy"]["value"],
    },
    "diffusion": {
      "model": config.diffusion.model,
      "num_parameters": models.num_parameters(experiment.denoiser.variables),
      "trained_on": None if config.diffusion.checkpoint else config.diffusion.trained_on,
      "loss": _mean_last_loss(store.path(experiment.stages["diffusion"])),
    },
    "predictors": rows,
    "shadow": _shadow_results(experiment, store),
  }


def _is_defended(experiment):
  """Whether the classifier has another defense than Diffence."""
  config = experiment.config
  return (config.classifier.defense, config.output.defense) != _NO_DEFENSE


def _name_alone(results):
  """Calls the predictor without Diffence "alone", not "undefended"."""

  def renamed(value, key=None):
    if isinstance(value, dict):
      return {_ALONE.get(k, k): renamed(v, k) for k, v in value.items()}
    if isinstance(value, list):
      return [renamed(v, key) for v in value]
    return _ALONE.get(value, value) if key in ("name", "predictor") else value

  return {**results, **{name: renamed(results[name]) for name in ("predictors", "shadow")}}


def _shadow_results(experiment, store):
  """What shadow models show; None for an audit without them."""
  if "shadow_audit" not in experiment.stages:
    return None
  config, split = experiment.config, experiment.split
  tables = store.path(experiment.stages["shadow_audit"]) / "tables.json"
  num_examples = sum(map(len, stages.queried_groups(split).values()))
  return {
    "num_models": config.shadow.num_models,
    "num_examples": num_examples + config.shadow.num_canaries,
    "num_canaries": config.shadow.num_canaries,
    "train_size": (num_examples + config.shadow.num_canaries) // 2,
    "target_train_size": len(stages.training_set(experiment)[0]),
    **json.loads(tables.read_text()),
  }


def _mean_last_loss(path):
  """The mean of the logged losses over the last tenth of the steps; None: not trained here."""
  if not (path / "metrics.jsonl").is_file():
    return None
  lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
  last = [line["loss"] for line in lines if line["step"] > 0.9 * lines[-1]["step"]]
  return sum(last) / len(last)


def _load_arrays(path):
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)
