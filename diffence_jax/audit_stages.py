"""The last stages: label-only attacks, and the audit of everything that was recorded."""

import json
from typing import Any

import numpy as np

from diffence_jax import attacks, audit, models, query_stages, rng, shadow_stages, stages
from diffence_jax.artifacts import Stage
from diffence_jax.attacks.hop_skip_jump import hop_skip_jump
from diffence_jax.attacks.label_only import augmentation_robustness, noise_robustness
from diffence_jax.attacks.nn import nn_scores
from diffence_jax.attacks.quantile import quantile_attack
from diffence_jax.config import as_json
from diffence_jax.stages import Experiment


def plan_stages(experiment: Experiment) -> dict[str, Stage]:
  """Names the stages; nothing is computed.

  Args:
    experiment: with all other stages in place.

  Returns:
    Name to stage, in the order they run.
  """
  config, before = experiment.config, experiment.stages
  found = {}
  if config.audit.num_label_only:
    settings = {"num_label_only": config.audit.num_label_only, "seed": config.seed}
    inputs = (before["split"], before["classifier"])
    found["label_only"] = Stage("label_only", settings, inputs)
  inputs = [before["split"], before["queries"], *found.values()]
  if "shadow_audit" in before:
    inputs.append(before["shadow_audit"])
  settings = as_json(config)["audit"]
  del settings["num_label_only"]
  settings = {**settings, **stages.output_settings(config), "seed": config.seed}
  found["audit"] = Stage("audit", settings, tuple(inputs), version=2)
  return found


def _compute_label_only(experiment, store, path):
  """Attacks that see labels only, on the classifier: Diffence returns the same labels."""
  config, dataset = experiment.config, experiment.dataset
  groups = {
    group: ids[: config.audit.num_label_only]
    for group, ids in stages.queried_groups(experiment.split).items()
  }
  ids = np.concatenate(list(groups.values()))
  samples = dataset.take(ids)
  images = np.asarray(samples.images, np.float32) / 255.0
  bound = stages.load_classifier(experiment, store)
  predict = models.predictor(*bound)
  key = lambda name: rng.stream(config.seed, f"label_only/{name}")
  asked = (predict, images, samples.labels)
  scores = {
    "augmentation_robustness": augmentation_robustness(key("augmentation"), *asked),
    "noise_robustness": noise_robustness(key("noise"), *asked, ids=ids),
    "hop_skip_jump": hop_skip_jump(key("boundary"), *asked, ids=ids).distance,
  }
  np.savez(path / "scores.npz", **_by_group(scores, groups))


def _compute_audit(experiment, store, path):
  config, protocol = experiment.config, experiment.config.audit.protocol
  records = query_stages.load_records(experiment, store)
  answers = audit.predictors(records, protocol)
  answers = audit.with_output_defense(answers, stages.fit_output(config, "target"))
  images = _images(experiment)
  labels = {group: record.labels for group, record in records.items()}
  scores: dict[str, dict[str, Any]] = {answer.name: {} for answer in answers}
  if "shadow_audit" in experiment.stages:
    scores = shadow_stages.load_scores(experiment, store)
  for answer in answers:
    found = scores[answer.name]
    groups = attacks.Groups(
      **{g: attacks.Group(answer.logits[g], records[g].labels) for g in audit.GROUPS}
    )
    if config.audit.nn_epochs:
      key = rng.stream(config.seed, f"nn/{answer.name}")
      found["nn"] = nn_scores(key, groups, protocol=protocol, epochs=config.audit.nn_epochs)
    if config.audit.quantile_regression:
      phi = {g: attacks.confidence(*group) for g, group in groups._asdict().items()}
      found["quantile_regression"] = quantile_attack(
        phi, images, labels, num_classes=experiment.dataset.num_classes, seed=config.seed
      )
    # Asked was the classifier: what it said holds for who gives the same labels.
    if "label_only" in experiment.stages and not answer.label_changes(records):
      found.update(_load_by_group(store.path(experiment.stages["label_only"]) / "scores.npz"))
  rows, arrays = audit.audit(answers, records, protocol, scores)
  np.savez_compressed(path / "arrays.npz", **arrays)
  (path / "predictors.json").write_text(json.dumps(rows, indent=2, sort_keys=True))


# Stage name to `(experiment, store, folder) -> None`, which writes the artifact.
COMPUTE = {"label_only": _compute_label_only, "audit": _compute_audit}


def _images(experiment):
  """Group to images u8[N,H,W,C]; who asks for all of a group, reads it into memory."""
  groups = stages.queried_groups(experiment.split).items()
  return {group: experiment.dataset.take(ids).images for group, ids in groups}


def _by_group(scores, groups):
  """Attack to scores of all samples, as "attack/group" to that group's."""
  ends = np.cumsum([len(ids) for ids in groups.values()])[:-1]
  return {
    f"{attack}/{group}": part
    for attack, values in scores.items()
    for group, part in zip(groups, np.split(values, ends), strict=True)
  }


def _load_by_group(path):
  """What `_by_group` made, as attack to group to scores."""
  found: dict[str, dict[str, np.ndarray]] = {}
  with np.load(path, allow_pickle=False) as arrays:
    for key in arrays.files:
      attack, group = key.split("/")
      found.setdefault(attack, {})[group] = arrays[key]
  return found
