"""An experiment from its config to its report, stage by stage.

    data - split -+- classifier -+- queries - shadow models - audit - report
                  +- diffusion --+- samples ------------------------^

A stage is a pure function of its settings, its inputs and the seed, and leaves one artifact.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from diffence_jax import (
  audit_stages,
  data,
  parallel,
  pretrained,
  query_stages,
  report,
  shadow_stages,
  stages,
)
from diffence_jax.artifacts import Stage, Store, locked, write_atomically
from diffence_jax.config import as_json, fingerprint, validate
from diffence_jax.defense.candidates import check_settings
from diffence_jax.diffusion.sampler import ddim_timesteps
from diffence_jax.results import arrays_of, results_of
from diffence_jax.stages import Experiment

_COMPUTE = {
  **stages.COMPUTE,
  **query_stages.COMPUTE,
  **shadow_stages.COMPUTE,
  **audit_stages.COMPUTE,
}


def run(config: ConfigDict | Mapping[str, Any], workdir: str | os.PathLike) -> dict[str, Any]:
  """Runs an experiment and writes its report; what is there already is not computed again.

  Args:
    config: as a file in `configs/` makes it, or a mapping of what differs from
      `config.base_config()`.
    workdir: artifacts, `results.json`, `results.csv` and `report.html` go there; a killed run
      goes on from there.

  Returns:
    The content of `results.json`.

  Raises:
    ValueError: a setting or the data are not right.
    FileNotFoundError: the data are not there.
    ArtifactError: the workdir is in use, or something in it is damaged.
  """
  return carry_out(plan(config), workdir)


def carry_out(experiment: Experiment, workdir: str | os.PathLike) -> dict[str, Any]:
  """`run` of an experiment that is planned."""
  store = open_store(workdir)
  is_first = parallel.is_first()
  # Of several processes the first one computes and writes; the others train their share of the
  # shadow models and else wait for what appears in the workdir.
  with locked(workdir) if is_first else contextlib.nullcontext():
    if is_first:
      started = {"settings": as_json(experiment.config), **store.record}
      write_atomically(Path(workdir) / "run.json", json.dumps(started, indent=2))
    timings = compute(experiment, store)
    results = results_of(experiment, store)
    if is_first:
      report.write_report(results, arrays_of(experiment, store), timings, Path(workdir))
  return results


def open_store(workdir: str | os.PathLike) -> Store:
  """The store of artifacts in a workdir; they record this process's versions and device."""
  return Store(workdir, {"versions": _versions(), "device": _device()})


def compute(
  experiment: Experiment, store: Store, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
  """Computes stages that are not in the store yet, and verifies those that are.

  Args:
    experiment: as `plan` makes it.
    store: as `open_store` makes it; the workdir is to be locked.
    names: of the stages; None for all.

  Returns:
    The name, fingerprint, seconds and "cached" of every stage.
  """
  timings = []
  for name, stage in experiment.stages.items():
    if names is not None and name not in names:
      continue
    cached = store.is_done(stage)
    _say(f"{name:<15} {stage.fingerprint}  {'cached' if cached else 'running'}")
    if parallel.is_first():
      compute_one = _COMPUTE[name]
      store.compute(stage, lambda path, c=compute_one: c(experiment, store, path))
    elif name == "shadow" and not cached:
      share = (jax.process_index(), jax.process_count())
      shadow_stages.train_share(experiment, store, share)
    store.wait(stage)
    seconds = store.manifest(stage)["seconds"]
    timing = {"name": name, "fingerprint": stage.fingerprint, "seconds": seconds}
    timings.append({**timing, "cached": cached})
  return timings


def plan(
  config: ConfigDict | Mapping[str, Any], dataset: data.Dataset | None = None
) -> Experiment:
  """Validates the config, loads the data and names every stage, without computing any.

  Args:
    config: as in `run`.
    dataset: what the config's source loads, where it is loaded already.

  Returns:
    The experiment.

  Raises:
    ValueError: a setting or the data are not right.
    FileNotFoundError: the data are not there.
  """
  config = validate(config)
  if dataset is None:
    dataset = data.load(config.data.source, **config.data.options)
  config = pretrained.resolve(config, dataset)
  split = _split(config, dataset)
  settings = as_json(config)

  def stage(name, section, *inputs):
    return Stage(name, stages.settings_of(config, section), inputs)

  # The data and the ids themselves stand for the settings they follow from; what is trained
  # depends on its training set alone, so other non-members retrain nothing.
  digest = dataset.digest()
  groups = {name: ids.tolist() for name, ids in split.groups().items()}
  splits = Stage("split", {"data": digest, "ids": fingerprint(groups)})
  members, trained_on = (
    {"data": digest, "ids": fingerprint(getattr(split, name).tolist())}
    for name in ("members", config.diffusion.trained_on)
  )
  canaries = stages.canaries_of(config, split, dataset)
  if len(canaries.ids):
    members["canaries"] = fingerprint([values.tolist() for values in canaries])
  recipe = stages.recipe_of(config, dataset, len(split.members) + int(canaries.is_member.sum()))
  _check(config, dataset.images.shape[1:], split, recipe)
  if recipe.needs_reference:
    members["reference"] = fingerprint(split.reference.tolist())
  classifier = pretrained.stage(config, "classifier") or Stage(
    "classifier", stages.classifier_settings(config), (Stage("images", members),)
  )
  diffusion = pretrained.stage(config, "diffusion") or stage(
    "diffusion", "diffusion", Stage("images", trained_on)
  )
  queries = Stage(
    "queries", query_stages.recorded_settings(config), (splits, classifier, diffusion)
  )
  shown = stages.purify_settings(config)
  for how_many in ("num_candidates", "batch_size"):
    del shown[how_many]
  samples = Stage("samples", {**settings["samples"], "purify": shown}, (splits, diffusion))
  experiment = Experiment(
    config,
    dataset,
    split,
    recipe,
    stages.classifier_shapes(recipe, dataset),
    stages.denoiser_shapes(config, dataset),
    {stage.name: stage for stage in (splits, classifier, diffusion, queries, samples)},
  )
  for plan_more in (shadow_stages.plan_stages, audit_stages.plan_stages):
    more = plan_more(experiment)
    experiment = experiment._replace(stages={**experiment.stages, **more})
  return experiment


def describe(experiment: Experiment, workdir: str | os.PathLike) -> str:
  """The stages, which of them are cached, and what the rest will cost in steps.

  Args:
    experiment: as `plan` makes it.
    workdir: where the artifacts are.

  Returns:
    A table, a line a stage.
  """
  config, split, store = experiment.config, experiment.split, Store(workdir)
  num_queries = sum(map(len, stages.queried_groups(split).values()))
  calls = num_queries * query_stages.num_recorded(config) * config.purify.num_ddim_steps
  images = config.samples.num_images
  costs = {
    "split": f"{len(experiment.dataset.ids)} images to divide",
    "classifier": stages.training_cost(experiment.recipe),
    "diffusion": (
      f"{config.diffusion.num_steps} training steps of {config.diffusion.batch_size} images"
    ),
    "queries": f"{num_queries} images, {calls} evaluations of the diffusion model",
    "samples": f"{images} images, {images * config.samples.num_ddim_steps} evaluations",
    "audit": f"{num_queries} recorded queries to attack",
    "label_only": f"{4 * config.audit.num_label_only} images",
    **shadow_stages.costs(experiment, store),
  }
  for section in ("classifier", "diffusion"):
    if config[section].checkpoint:
      costs[section] = f"a copy of the saved model {config[section].checkpoint}"
  lines = []
  for name, stage in experiment.stages.items():
    state = "cached" if store.is_done(stage) else "to do "
    lines.append(f"{name:<15} {stage.fingerprint}  {state}  {costs[name]}")
  return "\n".join(lines)


def _check(config, image_shape, split, recipe):
  """Raises ValueError now for what would fail only after some training."""
  schedule, sampler = stages.sampler_of(config)
  purify = config.purify
  check_settings(schedule, image_shape, purify.num_candidates, purify.chunk_size, **sampler)
  ddim_timesteps(config.diffusion.schedule.num_steps - 1, config.samples.num_ddim_steps)
  stages.fit_output(config, "target")
  if recipe.needs_reference and len(split.reference) <= config.shadow.num_canaries:
    raise ValueError(
      f"{config.classifier.defense} trains with the reference samples, and the split has none "
      "besides canaries; raise data.num_reference."
    )
  sizes = {"members": len(split.members), "reference": len(split.reference)}
  batches = [next(kind.batches(sizes, 0, 0)) for kind in recipe.kinds.values()]
  for section, own in (
    ("classifier", [rows for groups in batches for rows in groups.values()]),
    ("diffusion", [np.zeros(config.diffusion.batch_size)]),
  ):
    # Batches that are filled up anyway are filled up to a multiple.
    if any(len(rows) % jax.local_device_count() and rows[-1] >= 0 for rows in own):
      raise ValueError(
        f"{section}.batch_size is {config[section].batch_size}; expected a multiple of the "
        f"number of devices, {jax.local_device_count()}, and for advreg of twice as much."
      )
  if config.audit.quantile_regression and len(split.known_nonmembers) < 5:
    raise ValueError(
      f"audit.quantile_regression needs at least 5 known non-members, and the split has "
      f"{len(split.known_nonmembers)}; set it to False or raise data.num_nonmembers."
    )
  if config.shadow.num_canaries > len(split.reference):
    raise ValueError(
      f"shadow.num_canaries is {config.shadow.num_canaries} and the split has "
      f"{len(split.reference)} reference samples; raise data.num_reference."
    )
  if config.diffusion.trained_on == "reference" and not len(split.reference):
    raise ValueError(
      "diffusion.trained_on is 'reference' and the split has no reference samples; "
      "raise data.num_reference."
    )


def _split(config, dataset):
  if config.data.index_file:
    return data.read_index_file(config.data.index_file, dataset, seed=config.seed)
  return data.make_split(
    dataset,
    seed=config.seed,
    num_members=config.data.num_members,
    num_nonmembers=config.data.num_nonmembers,
    num_reference=config.data.num_reference,
    known_fraction=config.data.known_fraction,
    nonmembers_from=config.data.nonmembers_from,
  )


def _versions():
  packages = ("diffence_jax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy")
  found = {name: importlib.metadata.version(name) for name in packages}
  return {"python": platform.python_version(), **found}


def _device():
  devices = jax.devices()  # of all hosts
  return f"{devices[0].device_kind} x{len(devices)}"


def _say(message):
  print(message, file=sys.stderr, flush=True)
