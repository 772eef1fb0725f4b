"""Optimised queries find a leak that the samples do not show, and none where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import diffence_jax as dj
from diffence_jax import metrics, progress
from diffence_jax.attacks.optimised_queries import OptimisedSettings, _slope, optimise_queries
from diffence_jax.audit.membership import membership_matrix

NUM, SIDE, FEW, MODELS = 24, 16, 20, 52
SETTINGS = {"num_steps": 4, "num_draws": 3, "radius": 8}


def answer(weights, noise, key, images):
  """Two classes' logits of linear models, of images that noise is added to."""
  images = images + noise * jax.random.normal(key, images.shape)
  second = (images.reshape(len(images), -1) - 0.5) @ weights.T
  return jnp.stack([jnp.zeros_like(second), second], axis=-1)


def world(leak):
  """Models that remember of every member a direction at right angles to the sample."""
  draw = np.random.default_rng(0)
  images = (128 + draw.integers(-4, 5, (NUM, SIDE, SIDE, 1))).astype(np.uint8)
  labels = draw.integers(0, 2, NUM)
  flat = images.reshape(NUM, -1) / 255.0 - 0.5
  directions = draw.normal(size=flat.shape)
  along = np.sum(directions * flat, axis=1) / np.sum(flat**2, axis=1)
  directions -= along[:, None] * flat
  directions *= (2 * labels - 1)[:, None] / np.linalg.norm(directions, axis=1, keepdims=True)
  membership = membership_matrix(MODELS, NUM, 1)
  weights = leak * membership @ directions + 0.03 * draw.normal(size=(MODELS, flat.shape[1]))
  return images, labels, membership, weights.astype(np.float32)


def aucs(leak, noise):
  """AUC of LiRA over held-out models in turn, of the samples and of the queries."""
  images, labels, membership, weights = world(leak)
  queries = optimise_queries(
    jax.random.key(0), Partial(answer, weights[:FEW], np.float32(noise)), images, labels,
    membership[:FEW], **SETTINGS,
  )  # fmt: skip
  assert queries.dtype == np.uint8 and queries.shape == images.shape
  assert np.abs(queries.astype(int) - images).max() <= SETTINGS["radius"]
  held_out, found = membership[FEW:], []
  for sent in (images, queries):
    logits = answer(weights[FEW:], 0.0, jax.random.key(1), sent / np.float32(255.0))
    phi = np.stack([dj.attacks.true_label_phi(np.asarray(of), labels)
                    for of in np.moveaxis(logits, 1, 0)])  # fmt: skip
    pair = np.arange(len(phi)) // 2
    scores = [
      dj.attacks.lira(
        phi[at],
        phi[pair != pair[at]],
        held_out[pair != pair[at]],
        online=True,
        variance="global",
      )
      for at in range(len(phi))
    ]
    found.append(metrics.clustered_roc(np.stack(scores), held_out, models=pair).auc)
  return found


def test_a_leak_beside_the_sample_is_found_by_the_query_alone():
  sample, query = aucs(1.0, 0.01)
  assert sample.low < 0.55 and query.low > sample.high


def test_without_a_leak_queries_show_none():
  for auc in aucs(0.0, 0.01):
    assert auc.value - 2 * (auc.value - auc.low) < 0.5 < auc.value + 2 * (auc.high - auc.value)


def test_one_step_goes_by_the_sign_of_the_slope_within_range():
  """Of two linear models with one pixel each: one with the sample, one without."""
  weights = np.array([[2.0, -1.0, 0.0], [0.5, 1.0, 0.0]], np.float32)
  images = np.array([[100, 254, 7]], np.uint8).reshape(1, 1, 3, 1)
  membership = np.array([[True], [False]])
  asked = Partial(answer, weights, np.float32(0.0))
  settings = {"num_steps": 1, "num_draws": 1, "radius": 3}
  for label, signs in ((1, (3, -3, 0)), (0, (-3, 1, 0))):
    query = optimise_queries(
      jax.random.key(0), asked, images, np.array([label]), membership, **settings
    )
    assert tuple(query.astype(int).ravel() - images.ravel()) == signs


def squared(weights, key, images):
  """A slope that depends on the noise that is drawn."""
  images = images + 0.5 * jax.random.normal(key, images.shape)
  second = jnp.square(images.reshape(len(images), -1) @ weights.T)
  return jnp.stack([jnp.zeros_like(second), second], axis=-1)


def test_the_slope_is_the_mean_over_what_is_drawn():
  draw, num_draws = np.random.default_rng(3), 5
  weights = draw.normal(size=(2, 4)).astype(np.float32)
  images = draw.random((3, 2, 2, 1)).astype(np.float32)
  labels, signs = np.array([0, 1, 1]), np.array([[1.0, -1.0]] * 3, np.float32)
  key = jax.random.key(7)
  slope = _slope(Partial(squared, weights), key, images, labels, signs, num_draws=num_draws)
  noise = 0.5 * np.asarray(jax.random.normal(key, (3 * num_draws, 2, 2, 1))).reshape(3, 5, 4)
  for row in range(3):
    expected = np.zeros(4)
    for drawn in noise[row]:
      for model, sign in zip(weights.astype(np.float64), (1.0, -1.0), strict=True):
        # phi is the second class's logit, or with label 0 its negative.
        along = model @ (images[row].ravel() + drawn)
        expected += sign * (2 * labels[row] - 1) * 2.0 * along * model
    np.testing.assert_allclose(np.ravel(slope[row]), expected, rtol=1e-4)


def test_a_part_of_the_queries_is_what_it_is_among_all():
  draw = np.random.default_rng(4)
  weights = draw.normal(size=(FEW, 4)).astype(np.float32)
  images = np.tile(draw.integers(0, 256, (NUM, 2, 2, 1)).astype(np.uint8), (2, 1, 1, 1))
  membership = np.tile(membership_matrix(FEW, NUM, 1), 2)
  asked = (
    jax.random.key(0),
    Partial(squared, weights),
    images,
    np.ones(2 * NUM, int),
    membership,
  )
  whole = optimise_queries(*asked, **SETTINGS)
  parts = [
    optimise_queries(*asked, start=start, stop=stop, **SETTINGS)
    for start, stop in ((0, NUM), (NUM, None))
  ]
  np.testing.assert_array_equal(np.concatenate(parts), whole)
  assert np.any(parts[0] != parts[1])  # of the same samples, with noise of their own


@pytest.mark.parametrize("patience, num_lines", [(0.0, 7), (60.0, 0)])
def test_every_step_is_progress_which_is_told_once_a_minute(
  monkeypatch, capsys, patience, num_lines
):
  monkeypatch.setattr(progress, "_PATIENCE", patience)
  images, labels, membership, weights = world(0.0)
  # Two batches of four steps; that all is done is no news.
  optimise_queries(
    jax.random.key(0), Partial(answer, weights[:FEW], np.float32(0.0)),
    np.concatenate([images, images]), np.tile(labels, 2), np.tile(membership[:FEW], 2),
    description="queries", **SETTINGS,
  )  # fmt: skip
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == num_lines
  for done, line in enumerate(lines, 1):
    assert line.startswith(f"queries: {done} of 8 steps, {100 * done // 8}%, about ")


def test_samples_without_models_of_both_kinds_are_refused():
  images, labels, membership, weights = world(0.0)
  membership = membership[:FEW].copy()
  membership[:, 3] = True
  with pytest.raises(ValueError, match="1 samples are members of all models or of none"):
    optimise_queries(
      jax.random.key(0), Partial(answer, weights[:FEW], np.float32(0.0)), images, labels,
      membership, **SETTINGS,
    )  # fmt: skip


def test_settings_out_of_their_range_are_refused():
  with pytest.raises(ValueError, match="num_models is 3; expected an even number"):
    OptimisedSettings(num_models=3)
  with pytest.raises(ValueError, match="radius is 0; expected a whole number, 1 to 255"):
    OptimisedSettings(radius=0)
