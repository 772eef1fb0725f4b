"""The PyTorch side of the benchmarks computes what ours does."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax import models

torch = pytest.importorskip("torch", reason="the benchmarks' PyTorch side is optional")


@pytest.fixture
def theirs(monkeypatch):
  monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "experiments"))
  import torch_networks

  torch.manual_seed(0)
  return torch_networks


def to_nchw(x):
  return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize(
  "fields",
  [
    {"out_channels": 3, "multipliers": (1, 2), "num_res_blocks": 2},
    {"out_channels": 1, "multipliers": (1, 2, 2), "attention_levels": (2,)},
  ],
)
def test_both_unets_are_the_same_function(theirs, fields):
  fields = {"channels": 32, "num_res_blocks": 1, **fields}
  network = theirs.UNet(models.make_denoiser("ddpm_unet", **fields)).eval()
  denoise = models.denoiser(*dj.interop.from_torch("ddpm_unet", theirs.state_dict_of(network)))
  x = jax.random.normal(jax.random.key(0), (2, 8, 8, fields["out_channels"]))
  t = jnp.array([3, 160])
  with torch.no_grad():
    expected = network(to_nchw(x), torch.tensor(np.array(t)).long())
  assert expected.std() > 0.01
  np.testing.assert_allclose(
    to_nchw(jax.jit(denoise)(x, t)), expected.numpy(), atol=1e-4, rtol=0
  )


def test_the_published_procedure_chooses_what_ours_does(theirs, monkeypatch):
  classifier = models.make_classifier("small_resnet", num_classes=3, width=8)
  denoiser = models.make_denoiser(
    "ddpm_unet", out_channels=1, channels=32, multipliers=(1,), num_res_blocks=1
  )
  networks = theirs.ResNet(classifier, 1), theirs.UNet(denoiser)
  weights = [theirs.state_dict_of(network) for network in networks]
  fields = {name: getattr(classifier, name) for name in ("stages", "mean", "std")}
  predict = models.predictor(*dj.interop.from_torch("resnet18", weights[0], **fields))
  denoise = models.denoiser(*dj.interop.from_torch("ddpm_unet", weights[1]))
  schedule = dj.linear_schedule()
  draw = np.random.default_rng(0)
  images = draw.uniform(size=(4, 8, 8, 1)).astype(np.float32)
  noise = draw.normal(size=(3, 4, 8, 8, 1)).astype(np.float32)
  candidates = jnp.stack(
    [
      predict(None, dj.reconstruct(None, denoise, schedule, jnp.asarray(images), noise=n))
      for n in jnp.asarray(noise)
    ],
    axis=1,
  )
  raw = predict(None, jnp.asarray(images))
  middle = float(np.median(dj.scaled_logit(candidates)))
  for interval in (None, (middle, middle + 0.1)):
    given = iter(noise)
    monkeypatch.setattr(torch, "randn_like", lambda x, given=given: to_nchw(next(given)))
    answer = theirs.published_procedure(
      *networks,
      np.asarray(schedule.alpha_bar),
      num_candidates=3,
      step=160,
      interval=interval,
    )
    expected = dj.select(candidates, raw, interval).logits
    np.testing.assert_allclose(answer(images), expected, atol=1e-5, rtol=0)
