"""The published networks and procedure in plain PyTorch, to measure ours against.

`pip install torch`. The networks have the parameter names of the published checkpoints, so that
their state dicts become ours by `diffence_jax.interop.from_torch`, and both compute the same.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from diffence_jax.models.ddpm_unet import DDPMUNet
from diffence_jax.models.resnet18 import ResNet

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class _TimeEmbedding(nn.Module):
  def __init__(self, num_steps: int, channels: int, features: int):
    super().__init__()
    frequency = 10000.0 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angle = torch.arange(num_steps)[:, None] * frequency
    table = torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(num_steps, channels)
    self.timembedding = nn.Sequential(
      nn.Embedding.from_pretrained(table.float()),
      nn.Linear(channels, features),
      nn.SiLU(),
      nn.Linear(features, features),
    )

  def forward(self, t):
    return self.timembedding(t)


class _Attention(nn.Module):
  def __init__(self, features: int, groups: int):
    super().__init__()
    self.group_norm = nn.GroupNorm(groups, features)
    self.proj_q, self.proj_k, self.proj_v, self.proj = (
      nn.Conv2d(features, features, 1) for _ in range(4)
    )

  def forward(self, x):
    n, features, height, width = x.shape
    h = self.group_norm(x)
    rows = lambda projection: projection(h).flatten(2).transpose(1, 2)
    query, key, value = rows(self.proj_q), rows(self.proj_k), rows(self.proj_v)
    weights = torch.softmax(torch.bmm(query, key.transpose(1, 2)) * features**-0.5, dim=-1)
    h = torch.bmm(weights, value).transpose(1, 2).reshape(n, features, height, width)
    return x + self.proj(h)


class _ResBlock(nn.Module):
  def __init__(self, before: int, after: int, time: int, groups: int, attend: bool):
    super().__init__()
    self.block1 = nn.Sequential(
      nn.GroupNorm(groups, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
    )
    self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(time, after))
    self.block2 = nn.Sequential(
      nn.GroupNorm(groups, after),
      nn.SiLU(),
      nn.Dropout(0.1),
      nn.Conv2d(after, after, 3, padding=1),
    )
    self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
    self.attn = _Attention(after, groups) if attend else nn.Identity()

  def forward(self, x, time):
    h = self.block1(x) + self.temb_proj(time)[:, :, None, None]
    return self.attn(self.block2(h) + self.shortcut(x))


class _Resample(nn.Module):
  def __init__(self, features: int, down: bool):
    super().__init__()
    self.down = down
    self.main = nn.Conv2d(features, features, 3, stride=2 if down else 1, padding=1)

  def forward(self, x, time):
    return self.main(x if self.down else functional.interpolate(x, scale_factor=2))


class UNet(nn.Module):
  """The DDPM U-Net of w86763777/pytorch-ddpm, with our module's fields."""

  def __init__(self, fields: DDPMUNet, num_steps: int = 1000):
    """Random weights; `fields` says how large; images must halve evenly."""
    super().__init__()
    channels, time = fields.channels, 4 * fields.channels
    groups = min(32, channels)
    widths = [multiplier * channels for multiplier in fields.multipliers]
    block = lambda before, after, attend: _ResBlock(before, after, time, groups, attend)
    self.time_embedding = _TimeEmbedding(num_steps, channels, time)
    self.head = nn.Conv2d(fields.out_channels, channels, 3, padding=1)
    self.downblocks, self.upblocks = nn.ModuleList(), nn.ModuleList()
    features, skips = channels, [channels]
    for level, width in enumerate(widths):
      for _ in range(fields.num_res_blocks):
        self.downblocks.append(block(features, width, level in fields.attention_levels))
        features = width
        skips.append(features)
      if level < len(widths) - 1:
        self.downblocks.append(_Resample(features, down=True))
        skips.append(features)
    self.middleblocks = nn.ModuleList(
      block(features, features, attend) for attend in (True, False)
    )
    for level, width in reversed(list(enumerate(widths))):
      for _ in range(fields.num_res_blocks + 1):
        attend = level in fields.attention_levels
        self.upblocks.append(block(features + skips.pop(), width, attend))
        features = width
      if level:
        self.upblocks.append(_Resample(features, down=False))
    self.tail = nn.Sequential(
      nn.GroupNorm(groups, features),
      nn.SiLU(),
      nn.Conv2d(features, fields.out_channels, 3, padding=1),
    )

  def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Predicts the noise in f32[N,C,H,W] at schedule indices i64[N]."""
    time = self.time_embedding(t)
    h = self.head(x)
    skips = [h]
    for layer in self.downblocks:
      h = layer(h, time)
      skips.append(h)
    for layer in self.middleblocks:
      h = layer(h, time)
    for layer in self.upblocks:
      if isinstance(layer, _ResBlock):
        h = torch.cat([h, skips.pop()], dim=1)
      h = layer(h, time)
    return self.tail(h)


def _norm_conv(before: int, after: int, size: int, stride: int) -> list[nn.Module]:
  return [
    nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False),
    nn.BatchNorm2d(after),
  ]


class _BasicBlock(nn.Module):
  def __init__(self, before: int, after: int, stride: int):
    super().__init__()
    self.residual_function = nn.Sequential(
      *_norm_conv(before, after, 3, stride), nn.ReLU(), *_norm_conv(after, after, 3, 1)
    )
    same = stride == 1 and before == after
    self.shortcut = nn.Sequential(*([] if same else _norm_conv(before, after, 1, stride)))

  def forward(self, x):
    return torch.relu(self.residual_function(x) + self.shortcut(x))


class ResNet(nn.Module):
  """The ResNet of weiaicunzai/pytorch-cifar100, with our module's fields."""

  def __init__(self, fields: ResNet, in_channels: int):
    """Random weights; `fields` says how large."""
    super().__init__()
    to_tensor = lambda values: torch.tensor(values).reshape(1, -1, 1, 1)
    self.register_buffer("mean", to_tensor(fields.mean), persistent=False)
    self.register_buffer("std", to_tensor(fields.std), persistent=False)
    self.conv1 = nn.Sequential(*_norm_conv(in_channels, fields.width, 3, 1), nn.ReLU())
    before = fields.width
    self.num_stages = len(fields.stages)
    for stage, num_blocks in enumerate(fields.stages):
      after, blocks = fields.width * 2**stage, []
      for block in range(num_blocks):
        blocks.append(_BasicBlock(before, after, 2 if stage and not block else 1))
        before = after
      setattr(self, f"conv{stage + 2}_x", nn.Sequential(*blocks))
    self.fc = nn.Linear(before, fields.num_classes)

  def forward(self, images: torch.Tensor) -> torch.Tensor:
    """Classifies f32[N,C,H,W] in [0, 1]."""
    h = self.conv1((images - self.mean) / self.std)
    for stage in range(self.num_stages):
      h = getattr(self, f"conv{stage + 2}_x")(h)
    return self.fc(h.mean(dim=(2, 3)))


def state_dict_of(network: nn.Module) -> dict[str, np.ndarray]:
  """The network's weights, as `from_torch` takes them."""
  return {name: value.cpu().numpy() for name, value in network.state_dict().items()}


def first_inside(
  candidates: torch.Tensor, raw: torch.Tensor, interval: Sequence[float] | None
) -> torch.Tensor:
  """The published choice: logits [N,K] of candidates [N,M,K] and raw predictions [N,K]."""
  options = torch.cat([candidates, raw[:, None]], dim=1)
  valid = options.argmax(dim=-1) == raw.argmax(dim=-1)[:, None]
  if interval is None:
    index = valid.int().argmax(dim=1)
  else:
    top = options.sort(dim=-1, descending=True).values
    phi = top[..., 0] - top[..., 1:].logsumexp(dim=-1)
    inside = valid & (phi >= interval[0]) & (phi <= interval[1])
    distance = (phi - 0.5 * sum(interval)).abs().masked_fill(~valid, torch.inf)
    is_inside, nearest = inside.any(dim=1), distance.argmin(dim=1)
    index = torch.where(is_inside, inside.int().argmax(dim=1), nearest)
  return options[torch.arange(len(options)), index]


def published_procedure(
  classifier: nn.Module,
  denoiser: nn.Module,
  alpha_bar: np.ndarray,
  *,
  num_candidates: int,
  step: int,
  interval: Sequence[float] | None = None,
  batch_size: int = 10,
  dtype: str = "float32",
) -> Callable[[np.ndarray], np.ndarray]:
  """Diffence as its public code computes it.

  Ten images at a time; for every candidate noise at `alpha_bar[step - 1]`, then two network
  evaluations at `step`: one for a step from `step` to `step`, which changes nothing, and one
  for the step to 0; then the classifier.

  Args:
    classifier: images f32[N,C,H,W] in [0, 1] to logits.
    denoiser: (f32[N,C,H,W] in [-1, 1], i64[N]) to the predicted noise.
    alpha_bar: f[num_steps].
    num_candidates: candidates an image.
    step: diffusion steps.
    interval: on phi, None for scenario 3.
    batch_size: images at a time.
    dtype: "bfloat16" has PyTorch choose (autocast) what is computed in it.

  Returns:
    A function from images f32[N,H,W,C] in [0, 1] to logits [N,K].
  """
  signal, spread = (
    torch.tensor(np.sqrt(values), dtype=torch.float32, device=DEVICE)
    for values in (np.float64(alpha_bar), 1.0 - np.float64(alpha_bar))
  )
  classifier, denoiser = (network.eval().to(DEVICE) for network in (classifier, denoiser))

  def regenerate(images):
    clean = 2.0 * images - 1.0
    x = signal[step - 1] * clean + spread[step - 1] * torch.randn_like(clean)
    t = torch.full((len(x),), step, device=DEVICE)
    for after in (step, 0):
      noise = denoiser(x, t)
      clean = (x - spread[step] * noise) / signal[step]
      x = signal[after] * clean + spread[after] * noise
    return ((x + 1.0) / 2.0).clamp(0.0, 1.0)

  @torch.no_grad()
  @torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16")
  def answer(images: np.ndarray) -> np.ndarray:
    answers = []
    for first in range(0, len(images), batch_size):
      batch = torch.from_numpy(images[first : first + batch_size]).to(DEVICE)
      batch = batch.permute(0, 3, 1, 2).contiguous()
      candidates = [classifier(regenerate(batch)) for _ in range(num_candidates)]
      answers.append(first_inside(torch.stack(candidates, 1), classifier(batch), interval))
    return torch.cat(answers).float().cpu().numpy()

  return answer
