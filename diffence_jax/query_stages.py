"""The stage that records queries, for one experiment or for several at once."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from diffence_jax import audit, models, parallel, rng, stages
from diffence_jax.artifacts import Store, write_atomically
from diffence_jax.config import fingerprint
from diffence_jax.queries import Bound, read_model, record_queries
from diffence_jax.stages import Experiment


def num_recorded(config: FrozenConfigDict) -> int:
  """R: how many candidates of every image are recorded; the defense draws the first M."""
  return config.shadow.num_recorded or config.purify.num_candidates


def recorded_settings(config: FrozenConfigDict) -> dict[str, Any]:
  """All settings that a record of queries depends on, JSON-able."""
  return {**stages.purify_settings(config), "num_candidates": num_recorded(config)}


def record(
  experiment: Experiment,
  store: Store,
  path: Path,
  classifier: Bound,
  read_images: Callable[[np.ndarray], np.ndarray],
  ids: np.ndarray,
  *,
  num_models: int | None = None,
  num_candidates: int | None = None,
) -> None:
  """Records queries as the config says, through the experiment's diffusion model.

  Args:
    experiment: whose diffusion model is computed.
    store: where it is.
    path: `<stage>/<fingerprint>`, for the record; the stage's name is that of its noise.
    classifier: as `queries.record_queries` takes it.
    read_images: likewise.
    ids: likewise.
    num_models: likewise.
    num_candidates: None for as many as the config records.
  """
  config = experiment.config
  schedule, sampler = stages.sampler_of(config)
  record_queries(
    rng.stream(config.seed, path.parent.name),
    classifier,
    stages.load_purifier(experiment, store),
    schedule,
    read_images,
    ids,
    batch_size=config.purify.batch_size,
    mesh=parallel.batch_mesh(),
    directory=path,
    num_models=num_models,
    num_candidates=num_candidates or num_recorded(config),
    chunk_size=config.purify.chunk_size,
    **sampler,
  )


def _compute_queries(experiment, store, path):
  _record_groups(experiment, store, path, stages.load_classifier(experiment, store))


def _record_groups(experiment, store, path, classifier, num_models=None):
  ids = np.concatenate(list(stages.queried_groups(experiment.split).values()))
  images = experiment.dataset.take(ids).images
  record(experiment, store, path, classifier, images.__getitem__, ids, num_models=num_models)


# Stage name to `(experiment, store, folder) -> None`, which writes the artifact.
COMPUTE = {"queries": _compute_queries}


def record_together(experiments: Sequence[Experiment], store: Store) -> None:
  """Records the queries of experiments that differ in how the classifier is trained.

  Every image is re-generated once for all classifiers; what is recorded already is left as it
  is. The record of each is what it is alone, but for rounding. Killed, it goes on where it was
  when it is called with the same experiments again.

  Args:
    experiments: with the same data, diffusion model, seed and settings of "purify", all of
      whose classifiers and diffusion models are computed.
    store: where their artifacts are; the workdir is to be locked.

  Raises:
    ValueError: they differ in more than their classifiers.
  """
  queries = {e.stages["queries"].fingerprint: e for e in experiments}
  alike = {
    fingerprint(
      [stage.settings, [i.fingerprint for i in stage.inputs if i.name != "classifier"]]
    )
    for stage in (e.stages["queries"] for e in queries.values())
  }
  if len(alike) > 1:
    raise ValueError("The experiments differ in more than their classifiers.")
  folder = store.workdir / "queries" / f"{fingerprint(sorted(queries))}.together"
  listed = folder / "classifiers.json"
  if not listed.is_file():
    pending = [name for name, e in queries.items() if not store.is_done(e.stages["queries"])]
    if len(pending) < 2:
      return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(listed, json.dumps(pending))
  recorded = [queries[name] for name in json.loads(listed.read_text())]
  classifiers = [stages.load_classifier(e, store) for e in recorded]

  def answer(variables, images):
    predict = [
      models.predictor(c.module, v) for c, v in zip(classifiers, variables, strict=True)
    ]
    return jnp.concatenate([own(None, images) for own in predict], axis=-1)

  together = Bound(answer, [c.variables for c in classifiers])
  _record_groups(recorded[0], store, folder, together, num_models=len(recorded))
  for number, own in enumerate(recorded):

    def write(path, number=number):
      for name in ("raw.npy", "candidates.npy"):
        np.save(path / name, read_model(folder / name, number))

    store.compute(own.stages["queries"], write)
  shutil.rmtree(folder)


def load_records(experiment: Experiment, store: Store) -> dict[str, audit.Record]:
  """The recorded queries of an experiment that has run, group by group.

  The candidates are the M that the defense draws, of the R that are recorded.
  """
  path = store.path(experiment.stages["queries"])
  raw, candidates = (np.load(path / f"{name}.npy") for name in ("raw", "candidates"))
  num_candidates = experiment.config.purify.num_candidates
  records, start = {}, 0
  for group, ids in stages.queried_groups(experiment.split).items():
    rows = slice(start, start + len(ids))
    labels = experiment.dataset.take(ids).labels
    records[group] = audit.Record(raw[rows], candidates[rows, :num_candidates], labels)
    start += len(ids)
  return records
