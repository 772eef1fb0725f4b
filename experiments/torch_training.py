"""Training steps in plain PyTorch, to measure ours against: `pip install torch`."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch_networks
from torch.nn import functional
from torch_networks import DEVICE

import diffence_jax as dj
from diffence_jax.models.ddpm_unet import DDPMUNet
from diffence_jax.models.resnet18 import ResNet

# `network -> network`, as `torch.compile` is.
Wrap = Callable[[torch.nn.Module], torch.nn.Module]


def _steps(network, optimizer, loss, arrays: Sequence[Any], batch_size: int, dtype: str):
  """Times steps of `optimizer` on `loss(*batch)`."""
  network.train()
  arrays = [torch.as_tensor(array).to(DEVICE) for array in arrays]
  draw = np.random.default_rng(0)
  reduced = functools.partial(
    torch.autocast, DEVICE, torch.bfloat16, enabled=dtype == "bfloat16"
  )

  def run(num_steps: int) -> float:
    start = time.perf_counter()
    for _ in range(num_steps):
      rows = torch.from_numpy(draw.integers(0, len(arrays[0]), batch_size)).to(DEVICE)
      with reduced():
        value = loss(*(array[rows] for array in arrays))
      optimizer.zero_grad(set_to_none=True)
      value.backward()
      optimizer.step()
    if DEVICE == "cuda":
      torch.cuda.synchronize()
    return (time.perf_counter() - start) / num_steps

  return run


def classifier_steps(
  module: ResNet,
  config: Any,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  wrap: Wrap = lambda network: network,
  dtype: str = "float32",
) -> Callable[[int], float]:
  """The classifier's training.

  Args:
    module: ours, for its fields.
    config: the section `classifier` of an experiment.
    images: u8[N,H,W,C].
    labels: i[N].
    wrap: what is done to the network first.
    dtype: "bfloat16" has PyTorch choose (autocast) what is computed in it.

  Returns:
    `run(num_steps) -> seconds a step`.
  """
  images = images.transpose(0, 3, 1, 2).copy()
  network = wrap(torch_networks.ResNet(module, images.shape[1]).to(DEVICE))
  optimizer = torch.optim.Adam(
    network.parameters(),
    lr=config.learning_rate,
    weight_decay=config.weight_decay,
    amsgrad=True,
  )
  loss = lambda x, y: functional.cross_entropy(network(x.float() / 255.0), y)
  arrays = images, labels.astype(np.int64)
  return _steps(network, optimizer, loss, arrays, config.batch_size, dtype)


def denoiser_steps(
  module: DDPMUNet,
  config: Any,
  images: np.ndarray,
  *,
  wrap: Wrap = lambda network: network,
  dtype: str = "float32",
) -> Callable[[int], float]:
  """The diffusion model's training, with its average; as `classifier_steps`."""
  network = wrap(torch_networks.UNet(module).to(DEVICE))
  average = [p.detach().clone() for p in network.parameters()]
  alpha_bar = np.asarray(dj.linear_schedule(**config.schedule).alpha_bar)
  alpha_bar = torch.tensor(alpha_bar, device=DEVICE)

  class Adam(torch.optim.Adam):
    def step(self):
      parameters = list(network.parameters())
      torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
      super().step()
      with torch.no_grad():
        torch._foreach_lerp_(average, parameters, 1.0 - config.ema_decay)

  def loss(x):
    clean = x.float() / 127.5 - 1.0
    t = torch.randint(len(alpha_bar), (len(x),), device=DEVICE)
    kept = alpha_bar[t][:, None, None, None]
    noise = torch.randn_like(clean)
    noised = kept.sqrt() * clean + (1.0 - kept).sqrt() * noise
    return torch.mean((network(noised, t) - noise) ** 2)

  optimizer = Adam(network.parameters(), lr=config.learning_rate)
  arrays = (images.transpose(0, 3, 1, 2).copy(),)
  return _steps(network, optimizer, loss, arrays, config.batch_size, dtype)
