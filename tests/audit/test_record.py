"""The record of queries: compiled once, resumed where it was killed, right row by row."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax import models, parallel
from diffence_jax.audit.record import RECORDED, make_recorder, record_queries
from diffence_jax.audit.record_files import join_records
from diffence_jax.predictor import Bound

TRACES = {"classifier": [], "denoiser": []}
SCHEDULE = dj.linear_schedule()
KEY = jax.random.key(0)


class Classifier(nn.Module):
  """A linear one that tells what it was traced with."""

  @nn.compact
  def __call__(self, images):
    TRACES["classifier"].append(images.shape)
    return nn.Dense(3)(images.reshape(len(images), -1))


class Denoiser(nn.Module):
  """One convolution."""

  @nn.compact
  def __call__(self, x, t):
    TRACES["denoiser"].append(x.shape)
    return nn.Conv(1, (3, 3))(x)


IMAGES = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 1)).astype(np.uint8)
IDS = np.random.default_rng(1).permutation(500)[:23]
BOUND = [Bound(m, models.init(m, KEY, (4, 4, 1))) for m in (Classifier(), Denoiser())]
PURIFY = dict(num_candidates=3, step=50, num_ddim_steps=1, chunk_size=8)


def record(directory, batch_size=5):
  directory.mkdir(exist_ok=True)
  record_queries(
    KEY,
    *BOUND,
    SCHEDULE,
    IMAGES.__getitem__,
    IDS,
    batch_size=batch_size,
    mesh=parallel.batch_mesh(),
    directory=directory,
    **PURIFY,
  )
  return np.load(directory / "raw.npy"), np.load(directory / "candidates.npy")


def forget():
  """As in a new process: nothing is compiled, nothing has been traced."""
  jax.clear_caches()
  for traces in TRACES.values():
    traces.clear()


def test_the_step_compiles_once_the_last_partial_batch_included(tmp_path):
  forget()
  record(tmp_path)
  # Once for the raw images, once for the chunks of candidates; lax.map may trace twice.
  assert set(TRACES["classifier"]) == {(5, 4, 4, 1), (8, 4, 4, 1)}
  assert TRACES["classifier"].count((5, 4, 4, 1)) == 1
  assert set(TRACES["denoiser"]) == {(8, 4, 4, 1)}
  assert len(TRACES["denoiser"]) == len(TRACES["classifier"]) - 1 <= 2


def test_the_record_is_what_the_library_gives(tmp_path):
  raw, candidates = record(tmp_path)
  images = jnp.asarray(IMAGES, jnp.float32) / 255.0
  predict, denoise = models.predictor(*BOUND[0]), models.denoiser(*BOUND[1])
  np.testing.assert_allclose(raw, predict(None, images), atol=1e-5)
  expected = dj.candidate_logits(KEY, predict, denoise, SCHEDULE, images, ids=IDS, **PURIFY)
  np.testing.assert_allclose(candidates, expected, atol=1e-5)


def test_batches_do_not_change_the_record(tmp_path):
  for a, b in zip(record(tmp_path / "a", 4), record(tmp_path / "b", 100), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_parts_joined_are_the_record_bit_for_bit_and_compile_once(tmp_path):
  """Of one batch, of several, and one that does not fill its last batch."""
  expected = record(tmp_path / "whole")
  forget()
  recorder = make_recorder(
    KEY, *BOUND, SCHEDULE, IMAGES.__getitem__, IDS, batch_size=5, mesh=parallel.batch_mesh(),
    **PURIFY,
  )  # fmt: skip
  parts = []
  for start, stop in ((20, 23), (0, 5), (5, 20)):
    folder = tmp_path / f"{start:02d}"
    folder.mkdir()
    assert sum(recorder(folder, start, stop)) == stop - start
    parts.append(folder)
  assert TRACES["classifier"].count((5, 4, 4, 1)) == 1
  (tmp_path / "joined").mkdir()
  join_records(tmp_path / "joined", sorted(parts), RECORDED, 23)
  for name, array in zip(RECORDED, expected, strict=True):
    np.testing.assert_array_equal(np.load(tmp_path / "joined" / f"{name}.npy"), array)


def test_a_killed_record_goes_on_and_repeats_no_batch(tmp_path, monkeypatch):
  expected = record(tmp_path / "whole")
  shard_batch, batches = parallel.shard_batch, []

  def dying(mesh, batch):
    batches.append(batch[1])
    if len(batches) == 4:
      raise KeyboardInterrupt
    return shard_batch(mesh, batch)

  monkeypatch.setattr(parallel, "shard_batch", dying)
  with pytest.raises(KeyboardInterrupt):
    record(tmp_path / "killed")
  resumed = record(tmp_path / "killed")
  for a, b in zip(resumed, expected, strict=True):
    np.testing.assert_array_equal(a, b)
  assert len(batches) == 4 + 2


@pytest.mark.parametrize("name, place", [("the classifier", 0), ("the diffusion model", 1)])
def test_answers_that_are_no_numbers_are_not_recorded(tmp_path, monkeypatch, name, place):
  broken = list(BOUND)
  odd = jax.tree.map(lambda leaf: leaf * jnp.nan, BOUND[place].variables)
  broken[place] = Bound(BOUND[place].module, odd)
  monkeypatch.setitem(globals(), "BOUND", broken)
  with pytest.raises((ValueError, FloatingPointError), match=r"have NaN|are not finite"):
    record(tmp_path)
  assert not (tmp_path / "candidates.npy").exists(), name
