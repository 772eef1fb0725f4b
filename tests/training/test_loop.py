"""The loop: the order of examples, one compilation, resuming to the same bits, the average."""

import json
import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffence_jax as dj
from diffence_jax import models, parallel, stopping
from diffence_jax.batching import index_batches
from diffence_jax.training import TrainSettings, train_classifier, train_denoiser
from diffence_jax.training.baselines import undefended
from diffence_jax.training.denoiser import DenoiserSettings
from diffence_jax.training.loop import compile_step, fit, init_state, train_step


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 20), batch=st.integers(1, 30), start=st.integers(0, 10))
def test_batches_are_full_fair_and_random_access(n, batch, start):
  stream = index_batches(n, batch, seed=3)
  batches = [next(stream) for _ in range(start + 4)]
  assert all(len(b) == batch for b in batches)
  flat = np.concatenate(batches)
  for epoch in range(len(flat) // n):
    np.testing.assert_array_equal(np.sort(flat[epoch * n : (epoch + 1) * n]), np.arange(n))
  np.testing.assert_array_equal(
    next(index_batches(n, batch, seed=3, first_step=start)), batches[start]
  )


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 1000), epochs=st.integers(1, 9), batch=st.integers(1, 200))
def test_steps_cover_the_epochs_and_no_more(n, epochs, batch):
  steps = TrainSettings(n, epochs, batch, 1e-3, 0.0).num_steps
  assert (steps - 1) * batch < n * epochs <= steps * batch


def quadratic(params, model_state, batch, key):
  del key
  value = jnp.mean(jnp.square(params["w"] - batch["x"]))
  return value, (model_state, {})


def run_quadratic(directory, num_steps, checkpoint_every=3, loss=quadratic):
  optimizer, x = optax.adam(0.1), np.arange(7, dtype=np.float32)

  def batches(first):
    for rows in index_batches(7, 4, 0, first):
      yield "only", {"x": x[rows]}

  return fit(
    {"only": compile_step(train_step(loss, optimizer, ema_decay=0.9))},
    init_state({"params": {"w": jnp.zeros(())}}, optimizer, average=True),
    batches,
    num_steps=num_steps,
    key=jax.random.key(0),
    mesh=parallel.batch_mesh(),
    directory=directory,
    checkpoint_every=checkpoint_every,
    description="test",
  )


class Killed(Exception):
  """Stands for a process that ends at once."""


def test_a_killed_run_goes_on_to_the_same_bits_and_metrics(tmp_path, monkeypatch):
  whole = run_quadratic(tmp_path / "whole", 10)
  step, calls = parallel.shard_batch, []

  def dying(mesh, batch):
    calls.append(None)
    if len(calls) == 9:
      raise Killed
    return step(mesh, batch)

  with monkeypatch.context() as patch:
    patch.setattr(parallel, "shard_batch", dying)
    with pytest.raises(Killed):
      run_quadratic(tmp_path / "killed", 10)
  calls.clear()
  resumed = run_quadratic(tmp_path / "killed", 10)
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)
  logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "killed")]
  assert logs[0] == logs[1]
  assert [json.loads(line)["step"] for line in logs[0].splitlines()] == list(range(1, 11))


def test_a_run_that_is_asked_to_stop_saves_after_the_step(tmp_path, monkeypatch):
  whole = run_quadratic(tmp_path / "whole", 10, checkpoint_every=100)
  for name in ("_asked", "_saved"):
    monkeypatch.setattr(stopping, name, threading.Event())
  step, calls = parallel.shard_batch, []

  def stopped(mesh, batch):
    calls.append(None)
    if len(calls) == 4:
      stopping.wait_for_savers(0.0)
    if stopping._saved.is_set():
      raise Killed
    return step(mesh, batch)

  with monkeypatch.context() as patch:
    patch.setattr(parallel, "shard_batch", stopped)
    with pytest.raises(Killed):
      run_quadratic(tmp_path / "stopped", 10, checkpoint_every=100)
  assert len(calls) == 5 and not stopping._savers
  monkeypatch.setattr(stopping, "_asked", threading.Event())
  resumed = run_quadratic(tmp_path / "stopped", 10, checkpoint_every=100)
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)
  lines = (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in lines] == list(range(1, 11))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
  def diverging(params, model_state, batch, key):
    value, aux = quadratic(params, model_state, batch, key)
    return value * jnp.inf, aux

  with pytest.raises(FloatingPointError, match="lower the learning rate"):
    run_quadratic(tmp_path, 3, loss=diverging)


def test_the_average_is_the_slow_reference(tmp_path):
  expected, decays = 0.0, [min(0.9, (1 + t) / (10 + t)) for t in range(6)]
  for steps, decay in enumerate(decays, start=1):
    state = run_quadratic(tmp_path / str(steps), steps, checkpoint_every=100)
    expected = decay * expected + (1 - decay) * float(state.params["w"])
  assert float(state.average["w"]) == pytest.approx(expected, rel=1e-5)


def test_the_step_compiles_once_a_run(tmp_path):
  traces = []

  def counted(params, model_state, batch, key):
    traces.append(batch["x"].shape)
    return quadratic(params, model_state, batch, key)

  run_quadratic(tmp_path, 11, loss=counted)
  assert traces == [(4,)]


def blobs(num):
  """Images whose class is which half is bright."""
  labels = np.arange(num) % 2
  images = np.random.default_rng(0).integers(0, 60, (num, 8, 8, 1))
  images[labels == 1, :4] += 150
  images[labels == 0, 4:] += 150
  return images.astype(np.uint8), labels.astype(np.int32)


def test_a_classifier_learns_and_the_seed_decides_it(tmp_path):
  images, labels = blobs(64)
  module = models.make_classifier("small_resnet", num_classes=2, width=8, stages=(1,))
  recipe = undefended(module, TrainSettings(64, 8, 24, 1e-2, 0.0))

  def train(name, seed):
    return train_classifier(
      recipe,
      {"images": images, "labels": labels},
      checkpoint_every=100,
      seed=seed,
      mesh=parallel.batch_mesh(),
      directory=tmp_path / name,
    )

  first, again, other = train("a", 0), train("b", 0), train("c", 1)
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert any(
    np.any(x != y) for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
  )
  logits = models.predictor(module, first)(None, images.astype(np.float32) / 255.0)
  assert np.mean(np.argmax(logits, axis=-1) == labels) == 1.0


class Linear(nn.Module):
  """The best denoiser of one constant image is linear in the noised image."""

  @nn.compact
  def __call__(self, x, t, *, train=False):
    return nn.Conv(1, (1, 1))(x)


def test_a_denoiser_learns_and_only_its_average_is_kept(tmp_path):
  images = np.full((16, 4, 4, 1), 128, np.uint8)
  variables = train_denoiser(
    Linear(),
    images,
    dj.linear_schedule(),
    DenoiserSettings(300, 32, 3e-2, warmup_steps=10, clip_norm=1.0, ema_decay=0.99),
    checkpoint_every=1000,
    seed=0,
    mesh=parallel.batch_mesh(),
    directory=tmp_path,
  )
  assert set(variables) == {"params"}
  losses = [
    json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
  ]
  assert np.mean(losses[-10:]) < 0.3 * losses[0]
