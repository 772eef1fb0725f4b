"""The attack on a diffusion model alone: a planted leak and none."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import metrics
from diffence_jax.diffusion import linear_schedule

NUM = 60


def memorizing(schedule, members):
  """The best network for these images alone: the noise that leads back to their mean."""
  clean = 2.0 * members - 1.0

  def denoise(x, t):
    signal = jnp.sqrt(schedule.alpha_bar[t])[:, None, None, None]
    noise = jnp.sqrt(1.0 - schedule.alpha_bar[t])[:, None, None, None]
    apart = (x[:, None] - signal[:, None] * clean[None]) / noise[:, None]
    weights = jax.nn.softmax(-jnp.square(apart).sum(axis=(2, 3, 4)) / 2.0, axis=1)
    return (x - signal * jnp.einsum("nm,mhwc->nhwc", weights, clean)) / noise

  return denoise


def aucs(make_scores, denoise, schedule, members, others):
  scores = make_scores(denoise, schedule, num_draws=4)
  images = jnp.concatenate([members, others])
  told = {}
  for name, score in scores.items():
    values = np.asarray(score(jax.random.key(0), images, 20))
    told[name] = metrics.roc(values[:NUM], values[NUM:])
  return told


def test_a_network_that_knows_its_members_gives_them_away_and_another_does_not(monkeypatch):
  monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "experiments"))
  from diffusion_leak import make_scores

  draw = np.random.default_rng(0)
  members, others, strangers = draw.random((3, NUM, 4, 4, 1), np.float32)
  schedule = linear_schedule(100)
  for curve in aucs(
    make_scores, memorizing(schedule, members), schedule, members, others
  ).values():
    assert curve.auc > 0.95
  # One that knows neither side.
  for curve in aucs(
    make_scores, memorizing(schedule, strangers), schedule, members, others
  ).values():
    low, high = curve.auc_interval
    assert low < 0.5 < high
