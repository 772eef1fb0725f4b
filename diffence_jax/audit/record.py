"""The record of queries: what the classifier answers to every sample and its candidates.

All defenses and all attacks score this one record, so it is made once, in batches that a
killed run does not make again.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from diffence_jax import models, parallel
from diffence_jax.audit.record_files import RecordWriter
from diffence_jax.batching import batches, even_size, to_float
from diffence_jax.compiling import shared
from diffence_jax.defense import candidate_logits
from diffence_jax.defense.on_host import make_host_candidates
from diffence_jax.defense.pairs import as_key, check_finite
from diffence_jax.diffusion import Schedule, denoiser_beside
from diffence_jax.predictor import Bound, are_finite, check_largest, runs_on_host
from diffence_jax.progress import progress_bar

# The files of a record, without their ending.
RECORDED = ("raw", "candidates")


def make_record_step(
  classifier: nn.Module | Callable[..., jax.Array],
  denoiser: nn.Module,
  mesh: Mesh,
  *,
  is_stacked: bool = False,
  **purify: Any,
):
  """Builds the compiled step: raw and candidate logits of one batch.

  Args:
    classifier: the classifier's module, or a function as `models.predictor` takes it; one that
      runs on the host is asked between compiled programs.
    denoiser: the noise-prediction network's module; a class-conditional one re-generates under
      the predicted label.
    mesh: the batch is split over it.
    is_stacked: whether the classifier's variables are those of S models, which are asked one
      after another, each about re-generations of its own; logits are then S*K, model by model.
    **purify: settings of `candidate_logits`.

  Returns:
    `((key, classifier variables, denoiser variables, schedule), (images f32[B,H,W,C], ids
    i32[B])) -> (raw f[B,K], candidates f[B,M,K])`.
  """
  if runs_on_host(classifier):
    return _make_host_step(classifier, denoiser, mesh, **purify)
  return _compile_step(classifier, denoiser, mesh, is_stacked, *as_key(purify))


# A few, so that another seed's networks and the timing of answers share a program.
@shared(8)
def _compile_step(classifier, denoiser, mesh, is_stacked, *purify):
  purify = dict(purify)

  def record_step(shared, batch):
    key, classifier_variables, denoiser_variables, schedule = shared
    images, ids = batch

    def ask(variables):
      predict = models.predictor(classifier, variables)
      denoise = denoiser_beside(denoiser, denoiser_variables, predict)
      raw = predict(key, images)
      return raw, candidate_logits(key, predict, denoise, schedule, images, ids=ids, **purify)

    if not is_stacked:
      return ask(classifier_variables)
    by_model = jax.lax.map(ask, classifier_variables)
    beside = lambda logits: jnp.moveaxis(logits, 0, -2).reshape(*logits.shape[1:-1], -1)
    return jax.tree.map(beside, by_model)

  return jax.jit(parallel.map_over_batch(record_step, mesh))


def _make_host_step(predict, denoiser, mesh, **purify):
  """The same step around a predictor that runs on the host, which has no variables."""
  built_for, draw = None, None

  def record_step(shared, batch):
    nonlocal built_for, draw
    key, _, denoiser_variables, schedule = shared
    if built_for is not shared:
      denoise = models.denoiser(denoiser, denoiser_variables)
      draw = make_host_candidates(predict, denoise, schedule, mesh=mesh, **purify)
      built_for = shared
    images, ids = batch
    return predict(key, images), draw(key, images, ids)

  return record_step


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
  touching the others'. An image is re-generated once for all models; where that depends on its
  label, for each of them.

  Args:
    key: of the candidates' noise.
    classifier: the classifier, or an ensemble bound to `membership.ensemble_logits`; where the
      denoiser is class-conditional, one model's module and the variables of all, stacked.
    denoiser: the noise-prediction network.
    schedule: its noise schedule.
    read_images: rows i64[B] to images u8[B,H,W,C], such as the `__getitem__` of an array.
    ids: i64[N], the samples' stable ids.
    batch_size: as `make_recorder` takes it.
    mesh: batches are split over it.
    directory: for the record; what a killed run recorded there is not recorded again.
    num_models: S, for an ensemble; None for a classifier alone.
    **purify: settings of `candidate_logits`.

  Raises:
    FloatingPointError: candidates are not finite.
    ValueError: the classifier's answers are not.
  """
  record = make_recorder(
    key, classifier, denoiser, schedule, read_images, ids,
    batch_size=batch_size, mesh=mesh, num_models=num_models, **purify,
  )  # fmt: skip
  with progress_bar(len(ids), "queries", "image") as bar:
    for count in record(directory, 0, len(ids)):
      bar.update(count)


def make_recorder(
  key: jax.Array,
  classifier: Bound,
  denoiser: Bound,
  schedule: Schedule,
  read_images: Callable[[np.ndarray], np.ndarray],
  ids: np.ndarray,
  *,
  batch_size: int,
  mesh: Mesh,
  num_models: int | None = None,
  **purify: Any,
) -> Callable[[Path, int, int], Iterator[int]]:
  """Builds what records some of the rows of a record at a time, compiled once for all.

  Args:
    key: this and all others as `record_queries` takes them.
    classifier: the classifier, or an ensemble.
    denoiser: the noise-prediction network.
    schedule: its noise schedule.
    read_images: reads rows.
    ids: i64[N], of all rows.
    batch_size: the most images between two commits of the record. All batches are of one size,
      with N / batch_size of them; it is rounded up to the mesh.
    mesh: batches are split over it.
    num_models: S, for an ensemble.
    **purify: settings of `candidate_logits`.

  Returns:
    `(directory, start, stop)` to how many rows are done, one after another: it writes the rows
    from `start` to `stop` as `record_queries` does all.
  """
  batch_size = even_size(len(ids), batch_size, mesh.size)
  is_stacked = num_models is not None and models.is_conditional(denoiser.module)
  record_step = make_record_step(
    classifier.module, denoiser.module, mesh, is_stacked=is_stacked, **purify
  )
  shared = parallel.replicate(mesh, (key, classifier.variables, denoiser.variables, schedule))

  def record(directory, start, stop):
    writer = RecordWriter(directory, stop - start, axis=rows_axis(num_models))
    yield writer.done
    for rows, count in batches(stop, batch_size, start + writer.done):
      batch = to_float(read_images(rows)), ids[rows].astype(np.int32)
      results = jax.device_get(record_step(shared, parallel.shard_batch(mesh, batch)))
      results = [result[:count] for result in results]
      if num_models is not None:
        results = [_by_model(result, num_models) for result in results]
      check_largest(results[0].max(axis=-1), "of the classifier's answers")
      check_finite(are_finite(results[1]))
      writer.write(dict(zip(RECORDED, results, strict=True)))
      yield count

  return record


def rows_axis(num_models: int | None) -> int:
  """The axis of a record that its rows lie along."""
  return 0 if num_models is None else 1


def _by_model(logits, num_models):
  """[..., S*K] to [S, ..., K]."""
  return np.moveaxis(logits.reshape(*logits.shape[:-1], num_models, -1), -2, 0)
