"""The stages of an audit with shadow models: train them, ask all models, attack."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffence_jax import audit, data, parallel, query_stages, rng, stages
from diffence_jax.artifacts import Stage, Store
from diffence_jax.attacks.shadow import ensemble_logits, membership_matrix
from diffence_jax.audit.answers import (
  ModelRecord,
  Pool,
  Statistics,
  ensemble_statistics,
  model_statistics,
)
from diffence_jax.audit.shadow import adaptive_rows, leave_one_out_rows, target_scores, view_of
from diffence_jax.checkpoint import restore_arrays, save_arrays
from diffence_jax.config import fingerprint
from diffence_jax.progress import progress_bar
from diffence_jax.queries import Bound, read_model
from diffence_jax.stages import Experiment
from diffence_jax.training.ensemble import default_models_at_once, train_ensemble
from diffence_jax.training.recipe import Recipe

# An image's near-duplicates differ from it by at most this, of 255.
_NEAR_DUPLICATE = 1


def pool_of(experiment: Experiment) -> tuple[data.Images, Pool]:
  """The samples that shadow models are trained on, in the order of all records.

  Those whose membership of the target is known or asked for come first, in the order of
  `audit.GROUPS`; then canaries, samples of the reference set with a wrong label each.

  Args:
    experiment: as `pipeline.plan` makes it.

  Returns:
    u8[N,H,W,C], the images, and the pool.
  """
  groups, canaries = _pool_groups(experiment)
  samples = experiment.dataset.take(np.concatenate([*groups.values(), canaries.ids]))
  sizes = [len(ids) for ids in groups.values()]
  each = lambda *values: np.repeat(values, [*sizes, len(canaries.ids)])
  is_member = each(True, True, False, False, False)
  is_member[sum(sizes) :] = canaries.is_member
  return samples.images, Pool(
    labels=np.concatenate([samples.labels[: sum(sizes)], canaries.labels]),
    is_member=is_member,
    is_known=each(True, False, True, False, False),
    is_canary=each(False, False, False, False, True),
  )


def plan_stages(experiment: Experiment) -> dict[str, Stage]:
  """Names the stages; nothing is computed.

  Args:
    experiment: with all stages up to "queries" in place.

  Returns:
    Name to stage, in the order they run; empty for an audit without shadow models.
  """
  config = experiment.config
  if not config.shadow.num_models:
    return {}
  before = experiment.stages
  # The data and the ids stand for the images, which are not read again.
  groups, canaries = _pool_groups(experiment)
  trained_on = {
    "data": before["split"].settings["data"],
    "ids": fingerprint(np.concatenate(list(groups.values())).tolist()),
    "canaries": fingerprint([canaries.ids.tolist(), canaries.labels.tolist()]),
  }
  if experiment.recipe.needs_reference:
    trained_on["reference"] = fingerprint(experiment.split.reference.tolist())
  drawn_from = Stage("pool", trained_on)
  # More models leave those that there are as they are.
  names = [model.fingerprint for model in _model_stages(config, drawn_from)]
  shadow = Stage("shadow", {"models": names}, (drawn_from,))
  asked = {
    **query_stages.recorded_settings(config),
    "augmentation": config.shadow.augmentation,
  }
  target = (drawn_from, before["classifier"], before["diffusion"])
  found = [shadow, Stage("shadow_queries", asked, (shadow, before["diffusion"]))]
  if config.shadow.augmentation != "none":
    # Else the target's record is that of the stage "queries".
    found.append(Stage("target_queries", asked, target))
  if config.shadow.near_duplicates:
    near = {**stages.purify_settings(config), "num_queries": max(config.shadow.queries)}
    found.append(Stage("near_duplicates", near, target))
  settings = {
    "protocol": config.audit.protocol,
    "num_candidates": config.purify.num_candidates,
    "queries": list(config.shadow.queries),
    "num_resamples": config.shadow.num_resamples,
    # An optional package: with it there is a bound on epsilon.
    "epsilon": importlib.util.find_spec("jax_privacy") is not None,
    **stages.output_settings(config),
    "seed": config.seed,
  }
  found.append(Stage("shadow_audit", settings, (before["queries"], *found), version=2))
  return {stage.name: stage for stage in found}


def costs(experiment: Experiment, store: Store) -> dict[str, str]:
  """What the stages will cost, in words."""
  config = experiment.config
  if not config.shadow.num_models:
    return {}
  _, pool = pool_of(experiment)
  num, num_models = len(pool.labels), config.shadow.num_models
  num_targets = int(np.sum(~pool.is_canary))
  cached = sum(
    store.is_done(model) for model in _model_stages(config, *experiment.stages["shadow"].inputs)
  )
  recorded, versions = query_stages.num_recorded(config), _num_versions(config)
  per_image = versions * recorded * config.purify.num_ddim_steps
  return {
    "shadow": f"{num_models} models, {cached} of them cached, each "
    f"{stages.training_cost(_recipe(experiment, num))}",
    "shadow_queries": (
      f"{num * per_image} evaluations of the diffusion model, "
      f"{num * versions * recorded * num_models} of shadow models"
    ),
    "target_queries": f"{num_targets * per_image} evaluations of the diffusion model",
    "near_duplicates": (
      f"{num_targets * max(config.shadow.queries)} evaluations of the diffusion model"
    ),
    "shadow_audit": f"{num_models} models' answers to attack{_defended(config, num)}",
  }


def train_share(experiment: Experiment, store: Store, share: tuple[int, int]) -> None:
  """Trains those of this process's models that are not in the store yet.

  Args:
    experiment: the experiment.
    store: for the models.
    share: (p, P), for the models s with s % P == p.
  """
  config = experiment.config
  images, pool = pool_of(experiment)
  models = _model_stages(config, *experiment.stages["shadow"].inputs)
  mine = [s for s in range(share[0], len(models), share[1]) if not store.is_done(models[s])]

  def keep(i: int, variables: Any) -> None:
    store.compute(models[mine[i]], lambda path: save_arrays(path / "variables.npz", variables))

  train_ensemble(
    _recipe(experiment, len(images)),
    {"images": images, "labels": np.asarray(pool.labels, np.int32)},
    stages.reference_set(experiment),
    membership_matrix(len(models), len(images), config.seed)[mine],
    names=[f"shadow/{s}" for s in mine],
    keep=keep,
    seed=config.seed,
    mesh=parallel.batch_mesh(),
    models_at_once=config.shadow.models_at_once,
    steps_per_call=config.classifier.steps_per_call,
  )


def _compute_shadow(experiment, store, path):
  """Writes the memberships first, then waits until every process has trained its models."""
  num_models = experiment.config.shadow.num_models
  _, pool = pool_of(experiment)
  membership = membership_matrix(num_models, len(pool.labels), experiment.config.seed)
  np.save(path / "membership.npy", membership)
  train_share(experiment, store, (jax.process_index(), jax.process_count()))
  for model in _model_stages(experiment.config, *experiment.stages["shadow"].inputs):
    store.wait(model)


def _compute_shadow_queries(experiment, store, path):
  config = experiment.config
  trees = [
    restore_arrays(store.path(model) / "variables.npz")
    for model in _model_stages(experiment.config, *experiment.stages["shadow"].inputs)
  ]
  at_once = config.shadow.models_at_once or default_models_at_once(jax.default_backend())
  ensemble = Bound(
    ensemble_logits(experiment.classifier.module, at_once),
    jax.tree.map(lambda *leaves: np.stack(leaves), *trees),
  )
  images, _ = pool_of(experiment)
  _record_versions(experiment, store, path, ensemble, images, len(trees))


def _compute_target_queries(experiment, store, path):
  classifier = stages.load_classifier(experiment, store)
  _record_versions(experiment, store, path, classifier, _pool_images(experiment), None)


def _record_versions(experiment, store, path, classifier, images, num_models):
  """Records all versions of the images as rows of their own: N times A."""
  kind, num_versions = experiment.config.shadow.augmentation, _num_versions(experiment.config)

  def read(rows):
    versions = data.augment(images[rows // num_versions], kind)
    return versions[np.arange(len(rows)), rows % num_versions]

  rows = np.arange(len(images) * num_versions)
  query_stages.record(experiment, store, path, classifier, read, rows, num_models=num_models)


def _compute_near_duplicates(experiment, store, path):
  """Candidates of near-duplicates of every image, one candidate each.

  A query that looks at several candidates mixes near-duplicates; one that comes to the end of
  the record goes on from its start.
  """
  config, images = experiment.config, _pool_images(experiment)
  num_queries, seed = max(config.shadow.queries), rng.numpy_seed(config.seed, "near_duplicates")

  def read(rows):
    near = images[rows // num_queries].astype(np.int16)
    for image, row in zip(near, rows, strict=True):
      draw = np.random.default_rng([*seed, row])
      image += draw.integers(-_NEAR_DUPLICATE, _NEAR_DUPLICATE + 1, image.shape, np.int16)
    return np.clip(near, 0, 255).astype(np.uint8)

  classifier = stages.load_classifier(experiment, store)
  rows = np.arange(len(images) * num_queries)
  query_stages.record(experiment, store, path, classifier, read, rows, num_candidates=1)


def load_ensemble_statistics(
  experiment: Experiment, store: Store, queries: tuple[int, ...]
) -> tuple[np.ndarray, dict[str, Statistics]]:
  """What attacks read from the shadow models of an experiment whose queries are recorded.

  Args:
    experiment: the experiment.
    store: where its artifacts are.
    queries: the numbers of repeated queries.

  Returns:
    The membership bool[S,N], and predictor to statistics; see `ensemble_statistics`.
  """
  config = experiment.config
  _, pool = pool_of(experiment)
  membership = np.load(store.path(experiment.stages["shadow"]) / "membership.npy")
  path = store.path(experiment.stages["shadow_queries"])
  statistics = ensemble_statistics(
    _read_models(path, len(membership), _num_versions(config)),
    pool,
    membership,
    protocol=config.audit.protocol,
    num_candidates=config.purify.num_candidates,
    queries=queries,
    seed=config.seed,
    fit_output=lambda model: stages.fit_output(config, f"shadow/{model}"),
  )
  return membership, statistics


def _compute_shadow_audit(experiment, store, path):
  config = experiment.config
  _, pool = pool_of(experiment)
  folder = lambda name: store.path(experiment.stages[name])
  versions = _num_versions(config)
  asked = {"num_candidates": config.purify.num_candidates, "queries": config.shadow.queries}
  membership, shadow = load_ensemble_statistics(experiment, store, config.shadow.queries)
  # The target's intervals are those of the defense as it is deployed.
  answers = audit.predictors(
    query_stages.load_records(experiment, store), config.audit.protocol
  )
  intervals = audit.selecting_intervals(answers)
  finish = audit.fit_finish(answers, stages.fit_output(config, "target"))
  labels = pool.labels[~pool.is_canary]
  record = "target_queries" if versions > 1 else "queries"
  target_record = _read_model(folder(record), None, versions)
  target = model_statistics(target_record, labels, intervals, **asked, finish=finish)
  reported = ~pool.is_canary
  if config.audit.protocol == "disjoint":
    reported &= ~pool.is_known
  common = (shadow, membership, pool)
  queries = config.shadow.queries
  near_reused = {}
  rows = adaptive_rows(target, *common, queries=queries, reported=reported)
  if config.shadow.near_duplicates:
    # Each candidate is of a near-duplicate of its own; labels are those of the images.
    record = _read_model(folder("near_duplicates"), None, max(queries))
    record = ModelRecord(target_record.raw[:, :1], record.candidates.swapaxes(1, 2))
    near = model_statistics(
      record,
      labels,
      intervals,
      num_candidates=min(asked["num_candidates"], max(queries)),
      queries=queries,
      finish={name: finish[name] for name in finish if name in intervals},
    )
    near = {name: near[name] for name in intervals}
    # Shadow models are asked about the images themselves, the first of their versions.
    alone = {name: values.first_version() for name, values in shadow.items()}
    near_reused = {name: values.reused for name, values in near.items()}
    rows += adaptive_rows(
      near,
      alone,
      membership,
      pool,
      queries=queries,
      reported=reported,
      inputs="near duplicates",
    )
  tables, arrays = leave_one_out_rows(
    *common,
    queries=queries,
    reported=reported,
    num_resamples=config.shadow.num_resamples,
    seed=config.seed,
  )
  scores = {
    f"{name}/{attack}": values
    for name in target
    for attack, values in target_scores(
      view_of(target[name], shadow[name], *common[1:])
    ).items()
  }
  reused = {
    name: {"target": target[name].reused, "shadow": shadow[name].reused} for name in target
  }
  for name, share in near_reused.items():
    reused[name]["near_duplicates"] = share
  tables = {**tables, "adaptive": rows, "reused": reused}
  (path / "tables.json").write_text(json.dumps(tables, indent=2, sort_keys=True))
  np.savez_compressed(path / "arrays.npz", **arrays)
  np.savez_compressed(path / "scores.npz", **scores)


def load_scores(experiment: Experiment, store: Store) -> dict[str, dict[str, Any]]:
  """The target's scores by every shadow-model attack, as `audit.audit` takes them."""
  sizes = [len(ids) for ids in stages.queried_groups(experiment.split).values()]
  ends = np.cumsum(sizes)[:-1]
  found: dict[str, dict[str, Any]] = {}
  with np.load(store.path(experiment.stages["shadow_audit"]) / "scores.npz") as scores:
    for key in scores.files:
      name, attack = key.split("/")
      groups = np.split(scores[key], ends)
      found.setdefault(name, {})[attack] = dict(zip(audit.GROUPS, groups, strict=True))
  return found


# Stage name to `(experiment, store, folder) -> None`, which writes the artifact.
COMPUTE = {
  "shadow": _compute_shadow,
  "shadow_queries": _compute_shadow_queries,
  "target_queries": _compute_target_queries,
  "near_duplicates": _compute_near_duplicates,
  "shadow_audit": _compute_shadow_audit,
}


def _defended(config, num):
  """What a defense of the answers costs in an audit, in words."""
  if config.output.defense == "none":
    return ""
  once = num * _num_versions(config) * (config.shadow.num_models + 1)
  most = once * (2 + 3 * min(max(config.shadow.queries), query_stages.num_recorded(config)))
  return f", {5 * once} to {most} of them through {config.output.defense} first"


def _recipe(experiment, num_examples) -> Recipe:
  """How every shadow model is trained: as the target is, on half of the pool."""
  return stages.recipe_of(experiment.config, experiment.dataset, -(-num_examples // 2))


def _model_stages(config, drawn_from):
  """The stages of the single models; each has an artifact of its own."""
  trained = stages.classifier_settings(config)
  return [
    Stage("shadow_models", {**trained, "number": s}, (drawn_from,))
    for s in range(config.shadow.num_models)
  ]


def _num_versions(config):
  """A: in how many versions every image is asked about."""
  return data.augment(np.zeros((1, 3, 3, 1)), config.shadow.augmentation).shape[1]


def _pool_groups(experiment):
  """The ids of the pool by group, and the canaries, which follow them."""
  canaries = stages.canaries_of(experiment.config, experiment.split, experiment.dataset)
  return stages.queried_groups(experiment.split), canaries


def _pool_images(experiment):
  """The images of the pool without the canaries."""
  images, pool = pool_of(experiment)
  return data.view(images, ~pool.is_canary)


def _read_models(path: Path, num_models: int, versions: int) -> Iterator[ModelRecord]:
  """One model's answers after the other."""
  with progress_bar(num_models, "shadow answers", "model") as bar:
    for model in range(num_models):
      yield _read_model(path, model, versions)
      bar.update()


def _read_model(path, model, versions):
  """A model's record with the images' versions apart."""
  arrays = [read_model(path / name, model) for name in ("raw.npy", "candidates.npy")]
  return ModelRecord(*(array.reshape(-1, versions, *array.shape[1:]) for array in arrays))
