"""The record of queries: what the classifier answers to every sample and its candidates.

All defenses and all attacks score this one record, so it is made once, in batches that a
killed run does not make again.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from diffence_jax import models, parallel
from diffence_jax.artifacts import write_atomically
from diffence_jax.defense import candidate_logits
from diffence_jax.diffusion import Schedule
from diffence_jax.progress import progress_bar


class Bound(NamedTuple):
  """A module and its variables."""

  module: nn.Module
  variables: Any


def make_record_step(classifier: nn.Module, denoiser: nn.Module, mesh: Mesh, **purify: int):
  """Builds the compiled step: raw and candidate logits of one batch.

  Args:
    classifier: the classifier's module.
    denoiser: the noise-prediction network's module.
    mesh: the batch is split over it.
    **purify: settings of `candidate_logits`.

  Returns:
    `((key, classifier variables, denoiser variables, schedule), (images f32[B,H,W,C], ids
    i32[B])) -> (raw f[B,K], candidates f[B,M,K])`.
  """

  def record_step(shared, batch):
    key, classifier_variables, denoiser_variables, schedule = shared
    images, ids = batch
    predict = models.predictor(classifier, classifier_variables)
    denoise = models.denoiser(denoiser, denoiser_variables)
    raw = predict(key, images)
    return raw, candidate_logits(key, predict, denoise, schedule, images, ids=ids, **purify)

  return jax.jit(parallel.map_over_batch(record_step, mesh))


def record_queries(
  key: jax.Array,
  classifier: Bound,
  denoiser: Bound,
  schedule: Schedule,
  images: np.ndarray,
  ids: np.ndarray,
  *,
  batch_size: int,
  mesh: Mesh,
  directory: Path,
  **purify: int,
) -> None:
  """Writes `raw.npy` f32[N,K] and `candidates.npy` f32[N,M,K] to `directory`.

  Args:
    key: of the candidates' noise.
    classifier: the classifier.
    denoiser: the noise-prediction network.
    schedule: its noise schedule.
    images: u8[N,H,W,C].
    ids: i64[N], the samples' stable ids.
    batch_size: images between two commits of the record, rounded up to the mesh.
    mesh: batches are split over it.
    directory: for the record; `resume/` in it holds how far a killed run got.
    **purify: settings of `candidate_logits`.
  """
  batch_size = -(-min(batch_size, len(ids)) // mesh.size) * mesh.size
  record_step = make_record_step(classifier.module, denoiser.module, mesh, **purify)
  shared = parallel.replicate(mesh, (key, classifier.variables, denoiser.variables, schedule))
  counter = directory / "resume" / "done"
  counter.parent.mkdir(exist_ok=True)
  first = int(counter.read_text()) if counter.is_file() else 0
  records = None
  with progress_bar(len(ids), "queries", "image", first) as bar:
    for start in range(first, len(ids), batch_size):
      # The last batch is filled up with repetitions of the last sample: one compiled shape.
      rows = np.minimum(np.arange(start, start + batch_size), len(ids) - 1)
      batch = (images[rows].astype(np.float32) / 255.0, ids[rows].astype(np.int32))
      results = jax.device_get(record_step(shared, parallel.shard_batch(mesh, batch)))
      count = min(batch_size, len(ids) - start)
      if records is None:
        records = [
          _open_record(directory / name, (len(ids), *result.shape[1:]), resume=first > 0)
          for name, result in zip(("raw.npy", "candidates.npy"), results, strict=True)
        ]
      for record, result in zip(records, results, strict=True):
        record[start : start + count] = result[:count]
        record.flush()
      write_atomically(counter, str(start + count))
      bar.update(count)


def _open_record(path, shape, *, resume):
  mode = "r+" if resume else "w+"
  return np.lib.format.open_memmap(path, mode, dtype=np.float32, shape=shape)
