"""The record of queries: what the classifier answers to every sample and its candidates.

All defenses and all attacks score this one record, so it is made once, in batches that a
killed run does not make again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from diffence_jax import models, parallel
from diffence_jax.batching import batches, even_size, to_float
from diffence_jax.defense import candidate_logits
from diffence_jax.diffusion import Schedule
from diffence_jax.disk import write_atomically
from diffence_jax.predictor import Bound
from diffence_jax.progress import progress_bar


def make_record_step(
  classifier: nn.Module | Callable[..., jax.Array],
  denoiser: nn.Module,
  mesh: Mesh,
  **purify: Any,
):
  """Builds the compiled step: raw and candidate logits of one batch.

  Args:
    classifier: the classifier's module, or a function as `models.predictor` takes it.
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
  read_images: Callable[[np.ndarray], np.ndarray],
  ids: np.ndarray,
  *,
  batch_size: int,
  mesh: Mesh,
  directory: Path,
  num_models: int | None = None,
  **purify: Any,
) -> None:
  """Writes `raw.npy` f32[N,K] and `candidates.npy` f32[N,M,K] to `directory`.

  The answers of an ensemble are written model by model, `raw.npy` f32[S,N,K] and
  `candidates.npy` f32[S,N,M,K], so that a model's can be read from the mapped file without
  touching the others'. An image is re-generated once for all models.

  Args:
    key: of the candidates' noise.
    classifier: the classifier, or an ensemble bound to `shadow_models.ensemble_logits`.
    denoiser: the noise-prediction network.
    schedule: its noise schedule.
    read_images: rows i64[B] to images u8[B,H,W,C], such as the `__getitem__` of an array.
    ids: i64[N], the samples' stable ids.
    batch_size: the most images between two commits of the record, rounded up to the mesh.
    mesh: batches are split over it.
    directory: for the record; `resume/` in it holds how far a killed run got.
    num_models: S, for an ensemble; None for a classifier alone.
    **purify: settings of `candidate_logits`.
  """
  batch_size = even_size(len(ids), batch_size, mesh.size)
  record_step = make_record_step(classifier.module, denoiser.module, mesh, **purify)
  shared = parallel.replicate(mesh, (key, classifier.variables, denoiser.variables, schedule))
  counter = directory / "resume" / "done"
  counter.parent.mkdir(exist_ok=True)
  first = int(counter.read_text()) if counter.is_file() else 0
  with progress_bar(len(ids), "queries", "image", first) as bar:
    for rows, count in batches(len(ids), batch_size, first):
      batch = to_float(read_images(rows)), ids[rows].astype(np.int32)
      results = jax.device_get(record_step(shared, parallel.shard_batch(mesh, batch)))
      for name, result in zip(("raw.npy", "candidates.npy"), results, strict=True):
        result = result[:count] if num_models is None else _by_model(result[:count], num_models)
        axis = 0 if num_models is None else 1
        write_rows(directory / name, result, rows[0], len(ids), axis=axis)
      write_atomically(counter, str(rows[0] + count))
      bar.update(count)


def _by_model(logits, num_models):
  """[..., S*K] to [S, ..., K]."""
  return np.moveaxis(logits.reshape(*logits.shape[:-1], num_models, -1), -2, 0)


def write_rows(path: Path, part: np.ndarray, start: int, total: int, *, axis: int) -> None:
  """Writes a part of a record; the file is mapped only meanwhile, so it takes no memory.

  Args:
    path: a `.npy` file, made anew where `start` is 0.
    part: f32, all of the record but for some rows.
    start: the first of these rows.
    total: the rows of the record.
    axis: of the rows.
  """
  shape = (*part.shape[:axis], total, *part.shape[axis + 1 :])
  mode = "r+" if start else "w+"
  record = np.lib.format.open_memmap(path, mode, dtype=np.float32, shape=shape)
  record[(slice(None),) * axis + (slice(start, start + part.shape[axis]),)] = part
  record.flush()


def read_model(path: Path, model: int | None) -> np.ndarray:
  """Reads one model's part of an ensemble's record, or all of a classifier's (None).

  Args:
    path: a `.npy` file of an array whose first axis are the models.
    model: its number.

  Returns:
    f32[...], in memory; the file is mapped only meanwhile.
  """
  record = np.load(path, mmap_mode="r", allow_pickle=False)
  return np.array(record if model is None else record[model])
