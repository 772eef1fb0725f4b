"""An experiment from its config to its report, stage by stage.

    data - split -+- classifier -+- queries - audit - report
                  +- diffusion --+- samples ---------^

A stage is a pure function of its settings, its inputs and the seed, and leaves one artifact.
"""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict, FrozenConfigDict

from diffence_jax import audit, data, models, parallel, report, rng
from diffence_jax.artifacts import Stage, Store, locked, write_atomically
from diffence_jax.config import as_json, fingerprint, validate
from diffence_jax.data.dataset import Dataset
from diffence_jax.data.splits import Split
from diffence_jax.diffusion import Schedule, linear_schedule, reconstruct, sample
from diffence_jax.queries import Bound, record_queries
from diffence_jax.training import classifier_steps, train_classifier, train_denoiser

# Settings that steer how a stage is computed and leave its result as it is.
_NOT_OF_THE_RESULT = ("checkpoint_every",)


class Experiment(NamedTuple):
  """An experiment before anything is computed.

  Attributes:
    config: all settings.
    dataset: the images, in memory.
    split: who is a member.
    stages: name to stage, in the order they run.
  """

  config: FrozenConfigDict
  dataset: Dataset
  split: Split
  stages: dict[str, Stage]


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
  experiment = plan(config)
  store = Store(workdir)
  with locked(workdir):
    record = {"versions": _versions(), "device": _device(), "seed": experiment.config.seed}
    started = {"settings": as_json(experiment.config), **record}
    write_atomically(Path(workdir) / "run.json", json.dumps(started, indent=2))
    timings = []
    for name, stage in experiment.stages.items():
      cached = store.is_done(stage)
      _say(f"{name:<10} {stage.fingerprint}  {'cached' if cached else 'running'}")
      compute = _COMPUTE[name]
      store.compute(stage, lambda path, c=compute: c(experiment, store, path), record)
      seconds = store.manifest(stage)["seconds"]
      timings.append(
        {
          "name": name,
          "fingerprint": stage.fingerprint,
          "seconds": seconds,
          "cached": cached,
        }
      )
    audited = store.path(experiment.stages["audit"])
    results = {
      **json.loads((audited / "results.json").read_text()),
      **record,
      "settings": started["settings"],
    }
    arrays = _load_arrays(audited / "arrays.npz") | _load_arrays(
      store.path(experiment.stages["samples"]) / "images.npz"
    )
    report.write_report(results, arrays, timings, Path(workdir))
  return results


def plan(config: ConfigDict | Mapping[str, Any]) -> Experiment:
  """Validates the config, loads the data and names every stage, without computing any.

  Args:
    config: as in `run`.

  Returns:
    The experiment.

  Raises:
    ValueError: a setting or the data are not right.
    FileNotFoundError: the data are not there.
  """
  config = validate(config)
  seed = config.seed
  dataset = data.load(config.data.source, **config.data.options)
  split = _split(config, dataset)
  # Before any training: a misspelt model or field is to be known now.
  settings = as_json(config)
  classifier_module(config, dataset)
  denoiser_module(config, dataset)

  def stage(name, section, *inputs):
    kept = {key: v for key, v in settings[section].items() if key not in _NOT_OF_THE_RESULT}
    return Stage(name, {**kept, "seed": seed}, inputs)

  # The data and the split themselves stand for the settings they follow from.
  groups = {name: ids.tolist() for name, ids in split.groups().items()}
  splits = Stage("split", {"data": dataset.digest(), "ids": fingerprint(groups)})
  classifier = stage("classifier", "classifier", splits)
  diffusion = stage("diffusion", "diffusion", splits)
  queries = stage("queries", "purify", splits, classifier, diffusion)
  samples = Stage(
    "samples",
    {**settings["samples"], "purify": settings["purify"], "seed": seed},
    (splits, diffusion),
  )
  audited = stage("audit", "audit", splits, queries)
  stages = (splits, classifier, diffusion, queries, samples, audited)
  return Experiment(config, dataset, split, {stage.name: stage for stage in stages})


def classifier_module(config: FrozenConfigDict, dataset: Dataset) -> nn.Module:
  """The classifier that the config describes, for the classes of `dataset`."""
  return models.make_classifier(
    config.classifier.model, num_classes=dataset.num_classes, **config.classifier.fields
  )


def denoiser_module(config: FrozenConfigDict, dataset: Dataset) -> nn.Module:
  """The noise-prediction network that the config describes, for the images of `dataset`."""
  return models.make_denoiser(
    config.diffusion.model, out_channels=dataset.images.shape[-1], **config.diffusion.fields
  )


def schedule_of(config: FrozenConfigDict) -> Schedule:
  """The noise schedule that the config describes."""
  return linear_schedule(**config.diffusion.schedule)


def describe(experiment: Experiment, workdir: str | os.PathLike) -> str:
  """The stages, which of them are cached, and what the rest will cost in steps.

  Args:
    experiment: as `plan` makes it.
    workdir: where the artifacts are.

  Returns:
    A table, a line a stage.
  """
  config, split = experiment.config, experiment.split
  num_queries = sum(map(len, _groups(split).values()))
  steps = classifier_steps(
    len(split.members), config.classifier.epochs, config.classifier.batch_size
  )
  calls = num_queries * config.purify.num_candidates * config.purify.num_ddim_steps
  images = config.samples.num_images
  costs = {
    "split": f"{len(experiment.dataset.ids)} images to divide",
    "classifier": f"{steps} training steps of {config.classifier.batch_size} images",
    "diffusion": (
      f"{config.diffusion.num_steps} training steps of {config.diffusion.batch_size} images"
    ),
    "queries": f"{num_queries} images, {calls} evaluations of the diffusion model",
    "samples": f"{images} images, {images * config.samples.num_ddim_steps} evaluations",
    "audit": f"{num_queries} recorded queries to attack",
  }
  store = Store(workdir)
  lines = []
  for name, stage in experiment.stages.items():
    state = "cached" if store.is_done(stage) else "to do "
    lines.append(f"{name:<10} {stage.fingerprint}  {state}  {costs[name]}")
  return "\n".join(lines)


def _split(config, dataset):
  if config.data.index_file:
    return data.read_index_file(config.data.index_file, dataset)
  return data.make_split(
    dataset,
    seed=config.seed,
    num_members=config.data.num_members,
    num_nonmembers=config.data.num_nonmembers,
    num_reference=config.data.num_reference,
    known_fraction=config.data.known_fraction,
    nonmembers_from=config.data.nonmembers_from,
  )


def _groups(split):
  """The four groups that are queried, in the order of the record."""
  return {group: getattr(split, group) for group in audit.GROUPS}


def _compute_split(experiment, store, path):
  del store
  data.write_index_file(experiment.split, path / "split.json")


def _compute_classifier(experiment, store, path):
  del store
  config, dataset = experiment.config, experiment.dataset
  members = dataset.take(experiment.split.members)
  settings = config.classifier
  variables = train_classifier(
    classifier_module(config, dataset),
    members.images,
    members.labels,
    epochs=settings.epochs,
    batch_size=settings.batch_size,
    learning_rate=settings.learning_rate,
    weight_decay=settings.weight_decay,
    checkpoint_every=settings.checkpoint_every,
    seed=config.seed,
    mesh=parallel.batch_mesh(),
    directory=path,
  )
  _save_variables(path, variables)


def _compute_diffusion(experiment, store, path):
  del store
  config, dataset = experiment.config, experiment.dataset
  settings = config.diffusion
  images = dataset.take(getattr(experiment.split, settings.trained_on)).images
  variables = train_denoiser(
    denoiser_module(config, dataset),
    images,
    schedule_of(config),
    num_steps=settings.num_steps,
    batch_size=settings.batch_size,
    learning_rate=settings.learning_rate,
    warmup_steps=settings.warmup_steps,
    clip_norm=settings.clip_norm,
    ema_decay=settings.ema_decay,
    checkpoint_every=settings.checkpoint_every,
    seed=config.seed,
    mesh=parallel.batch_mesh(),
    directory=path,
  )
  _save_variables(path, variables)


def _compute_queries(experiment, store, path):
  config, schedule = experiment.config, schedule_of(experiment.config)
  ids = np.concatenate(list(_groups(experiment.split).values()))
  record_queries(
    rng.stream(config.seed, "queries"),
    load_classifier(experiment, store),
    load_denoiser(experiment, store),
    schedule,
    experiment.dataset.take(ids).images,
    ids,
    mesh=parallel.batch_mesh(),
    directory=path,
    **config.purify,
  )


def _compute_samples(experiment, store, path):
  """Draws images from noise, and re-generates target samples of both sides, to look at."""
  config, split = experiment.config, experiment.split
  settings, purify = config.samples, config.purify
  bound = load_denoiser(experiment, store)
  schedule = schedule_of(config)
  half = -(-settings.num_images // 2)
  ids = np.concatenate([split.target_members[:half], split.target_nonmembers[:half]])
  raw = experiment.dataset.take(ids).images
  shape = (settings.num_images, *raw.shape[1:])
  key = rng.stream(config.seed, "samples")

  @jax.jit
  def draw(variables):
    denoise = models.denoiser(bound.module, variables)
    return sample(key, denoise, schedule, shape, num_ddim_steps=settings.num_ddim_steps)

  @jax.jit
  def regenerate(variables, images, key):
    denoise = models.denoiser(bound.module, variables)
    return reconstruct(
      key, denoise, schedule, images, step=purify.step, num_ddim_steps=purify.num_ddim_steps
    )

  images = raw.astype(np.float32) / 255.0
  keys = [rng.stream(config.seed, f"samples/{i}") for i in range(settings.num_reconstructions)]
  reconstructed = [regenerate(bound.variables, images, key) for key in keys]
  np.savez(
    path / "images.npz",
    **{
      "images/raw": raw,
      "images/reconstructed": np.stack([_to_bytes(r) for r in reconstructed], axis=1),
      "images/samples": _to_bytes(draw(bound.variables)),
    },
  )


def _compute_audit(experiment, store, path):
  config, dataset = experiment.config, experiment.dataset
  records = load_records(experiment, store)
  rows, arrays = audit.audit(records, config.audit.protocol)
  undefended = rows[0]
  classifier, denoiser = (
    load(experiment, store).variables for load in (load_classifier, load_denoiser)
  )
  results = {
    "experiment": config.name,
    "variant": config.variant,
    "protocol": config.audit.protocol,
    "data": {
      "source": config.data.source,
      "image_shape": list(dataset.images.shape[1:]),
      "num_classes": dataset.num_classes,
      **{group: len(ids) for group, ids in _groups(experiment.split).items()},
      "reference": len(experiment.split.reference),
    },
    "purify": as_json(config.purify),
    "classifier": {
      "model": config.classifier.model,
      "num_parameters": models.num_parameters(classifier),
      "train_accuracy": undefended["member_accuracy"]["value"],
      "test_accuracy": undefended["test_accuracy"]["value"],
    },
    "diffusion": {
      "model": config.diffusion.model,
      "num_parameters": models.num_parameters(denoiser),
      "trained_on": config.diffusion.trained_on,
      "loss": _mean_last_loss(store.path(experiment.stages["diffusion"])),
    },
    "predictors": rows,
  }
  np.savez_compressed(path / "arrays.npz", **arrays)
  (path / "results.json").write_text(json.dumps(results, indent=2, sort_keys=True))


_COMPUTE = {
  "split": _compute_split,
  "classifier": _compute_classifier,
  "diffusion": _compute_diffusion,
  "queries": _compute_queries,
  "samples": _compute_samples,
  "audit": _compute_audit,
}


def load_classifier(experiment: Experiment, store: Store) -> Bound:
  """The trained classifier of an experiment that has run."""
  module = classifier_module(experiment.config, experiment.dataset)
  return _load_variables(module, experiment, store.path(experiment.stages["classifier"]))


def load_denoiser(experiment: Experiment, store: Store) -> Bound:
  """The trained noise-prediction network of an experiment that has run."""
  module = denoiser_module(experiment.config, experiment.dataset)
  return _load_variables(module, experiment, store.path(experiment.stages["diffusion"]))


def load_records(experiment: Experiment, store: Store) -> dict[str, audit.Record]:
  """The recorded queries of an experiment that has run, group by group."""
  path = store.path(experiment.stages["queries"])
  raw, candidates = (np.load(path / f"{name}.npy") for name in ("raw", "candidates"))
  records, start = {}, 0
  for group, ids in _groups(experiment.split).items():
    rows = slice(start, start + len(ids))
    labels = experiment.dataset.take(ids).labels
    records[group] = audit.Record(raw[rows], candidates[rows], labels)
    start += len(ids)
  return records


def _save_variables(path, variables):
  from diffence_jax.checkpoint import save_tree

  save_tree(path / "variables", variables)


def _load_variables(module, experiment, path):
  from diffence_jax.checkpoint import restore_tree

  shape = experiment.dataset.images.shape[1:]
  template = jax.eval_shape(lambda key: models.init(module, key, shape), jax.random.key(0))
  return Bound(module, restore_tree(path / "variables", template))


def _mean_last_loss(path):
  """The mean of the logged training losses over the last tenth of the steps."""
  lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
  last = [line["loss"] for line in lines if line["step"] > 0.9 * lines[-1]["step"]]
  return sum(last) / len(last)


def _to_bytes(images):
  return np.asarray(jnp.round(images * 255.0)).astype(np.uint8)


def _load_arrays(path):
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)


def _versions():
  packages = ("diffence_jax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy")
  found = {name: importlib.metadata.version(name) for name in packages}
  return {"python": platform.python_version(), **found}


def _device():
  devices = jax.devices()
  return f"{devices[0].device_kind} x{len(devices)}"


def _say(message):
  print(message, file=sys.stderr, flush=True)
