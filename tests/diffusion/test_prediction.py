"""Networks that predict x_0, v or by EDM's preconditioning, as denoisers: Gaussian data."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffence_jax import models
from diffence_jax.diffusion import (
  as_noise,
  linear_schedule,
  make_schedule,
  reconstruct,
  respaced,
)
from diffence_jax.diffusion.prediction import noise_network
from diffence_jax.models.saved import PREDICTIONS, Manifest

MEAN, SPREAD = 0.3, 0.4  # of the data, in model units, pixel by pixel
SCHEDULE = linear_schedule(1000)
STEPS = np.array([0, 40, 400, 999], np.int32)
SIGMA_DATA = 0.7


def parts(t):
  left = np.float64(SCHEDULE.alpha_bar)[np.asarray(t)].reshape(-1, 1, 1, 1)
  return np.sqrt(left), np.sqrt(1.0 - left)


def best_noise(x, t):
  """E[eps | x] of x = a x_0 + s eps: jointly Gaussian."""
  a, s = parts(t)
  return s * (x - a * MEAN) / ((a * SPREAD) ** 2 + s**2)


def best_clean(x, t):
  """E[x_0 | x]."""
  a, s = parts(t)
  return MEAN + a * SPREAD**2 * (x - a * MEAN) / ((a * SPREAD) ** 2 + s**2)


def clean_network(x, t):
  return jnp.asarray(best_clean(np.asarray(x), t), jnp.float32)


def v_network(x, t):
  """E[v | x], its second half of channels a variance that is not asked for."""
  a, s = parts(t)
  v = a * best_noise(np.asarray(x), t) - s * best_clean(np.asarray(x), t)
  return jnp.asarray(np.concatenate([v, np.full_like(v, 7.0)], -1), jnp.float32)


def edm_network(scaled, label):
  """The raw F whose D is the best denoiser of y = x_0 + sigma n, image by image.

  As Karras et al. (2022), table 1 has it: c_skip, c_out, c_in and c_noise.
  """
  outputs = []
  for image, c_noise in zip(np.float64(scaled), np.float64(label), strict=True):
    sigma = np.exp(4.0 * c_noise)
    c_skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
    c_out = sigma * SIGMA_DATA / np.sqrt(SIGMA_DATA**2 + sigma**2)
    c_in = 1.0 / np.sqrt(sigma**2 + SIGMA_DATA**2)
    y = image / c_in
    best = MEAN + SPREAD**2 / (SPREAD**2 + sigma**2) * (y - MEAN)
    outputs.append((best - c_skip * y) / c_out)
  return jnp.asarray(np.stack(outputs), jnp.float32)


NETWORKS = {"clean": clean_network, "v": v_network, "edm": edm_network}


@pytest.mark.parametrize("predicts", NETWORKS)
def test_the_best_network_of_each_kind_gives_the_best_noise(predicts):
  x = np.random.default_rng(0).normal(size=(len(STEPS), 3, 3, 1)).astype(np.float32)
  denoise = as_noise(NETWORKS[predicts], SCHEDULE, predicts, sigma_data=SIGMA_DATA)
  # At the first step, where s is 0.01, x_0 that is rounded makes a hundred times as much.
  np.testing.assert_allclose(denoise(x, STEPS), best_noise(x, STEPS), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("predicts", ["clean", "v"])
def test_diffusers_formulas_image_by_image(predicts):
  # DDIMScheduler.step: sample, v_prediction.
  draw = np.random.default_rng(1)
  x, answer = draw.normal(size=(2, len(STEPS), 2, 2, 3)).astype(np.float32)
  denoise = as_noise(lambda x, t: jnp.asarray(answer), SCHEDULE, predicts)
  noise = np.asarray(denoise(x, STEPS))
  for i, step in enumerate(STEPS):
    kept = float(SCHEDULE.alpha_bar[step])
    if predicts == "clean":
      expected = (x[i] - kept**0.5 * answer[i]) / (1.0 - kept) ** 0.5
    else:
      expected = kept**0.5 * answer[i] + (1.0 - kept) ** 0.5 * x[i]
    np.testing.assert_allclose(noise[i], expected, rtol=2e-4, atol=2e-5)


def test_a_respaced_schedule_asks_for_the_networks_steps_and_labels_go_through():
  asked = []

  def network(x, t, labels):
    asked.append((np.asarray(t), np.asarray(labels)))
    return jnp.zeros_like(x)

  denoise = as_noise(network, SCHEDULE, "v")
  labelled = lambda x, t: denoise(x, t, jnp.full(t.shape, 3))
  images = jnp.full((2, 2, 2, 1), 0.5)
  with jax.disable_jit():
    few = respaced(SCHEDULE, "ddim5")
    reconstruct(jax.random.key(0), labelled, few, images, step=2, to_clean=True)
  assert [t.tolist() for t, _ in asked] == [[200, 200]]
  assert asked[0][1].tolist() == [3, 3]


class Conditional(nn.Module):
  """One shade for every class, from the step and the label."""

  num_classes: int | None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, t, labels=None, *, train=False):
    h = nn.Conv(x.shape[-1], (3, 3), dtype=self.dtype)(x) + jnp.sin(t)[:, None, None, None]
    if self.num_classes is None:
      return h
    return h + nn.Embed(self.num_classes, x.shape[-1])(labels)[:, None, None, :]


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("predicts", ["clean", "v", "edm"])
def test_a_saved_network_is_bound_as_one_that_predicts_the_noise(predicts, num_classes):
  module = Conditional(num_classes)
  labels = () if num_classes is None else (jnp.array([0, 2]),)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 1)), jnp.float32)
  t = jnp.array([3, 700])
  variables = module.init(jax.random.key(0), x, t, *labels)
  options = {"kind": "cosine", "num_steps": 1000}
  manifest = Manifest(
    "denoiser", "own", "own:Conditional", {}, 1, {}, {}, {}, options, predicts,
    SIGMA_DATA if predicts == "edm" else None,
  )  # fmt: skip
  network = noise_network(module, manifest)
  assert models.is_conditional(network) == (num_classes is not None)
  plain = models.denoiser(module, variables)
  expected = as_noise(plain, make_schedule(**options), predicts, sigma_data=SIGMA_DATA)
  # Compiled, with the variables as an argument, as records are made.
  found = jax.jit(lambda v: models.denoiser(network, v)(x, t, *labels))(variables)
  np.testing.assert_allclose(found, expected(x, t, *labels), rtol=1e-4, atol=1e-4)
  half = network.clone(dtype=jnp.bfloat16)
  assert (half.dtype, half.predicts, network.dtype) == (jnp.bfloat16, predicts, jnp.float32)
  assert noise_network(module, manifest._replace(predicts="noise")) is module


def test_each_way_that_a_saved_model_knows_is_one_of_ours():
  for predicts in set(PREDICTIONS) - {"noise"}:
    assert as_noise(lambda x, t: x, SCHEDULE, predicts)(jnp.ones((1, 2, 2, 1)), STEPS[:1]).size


def test_what_does_not_fit_is_refused():
  network = lambda x, t: x
  with pytest.raises(ValueError, match="way to predict 'epsilon'"):
    as_noise(network, SCHEDULE, "epsilon")
  with pytest.raises(ValueError, match="respaced, 5 steps up to 800"):
    as_noise(network, respaced(SCHEDULE, "ddim5"), "v")
  with pytest.raises(ValueError, match="sigma_data"):
    as_noise(network, SCHEDULE, "edm", sigma_data=0.0)
  with pytest.raises(TypeError, match="network"):
    as_noise("v", SCHEDULE, "v")
