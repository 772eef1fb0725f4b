"""The U-Net of openai/improved-diffusion, written small in PyTorch, by its names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffence_jax as dj

torch = pytest.importorskip("torch", reason="the published code is PyTorch's")
nn, functional = torch.nn, torch.nn.functional

CHANNELS, HEADS, LEVELS = 8, 4, (1, 2)


def norm(features):
  return nn.GroupNorm(min(32, CHANNELS), features)


class Block(nn.Module):
  def __init__(self, before, after, scale_shift):
    super().__init__()
    self.in_layers = nn.Sequential(
      norm(before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
    )
    outputs = 2 * after if scale_shift else after
    self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * CHANNELS, outputs))
    self.out_layers = nn.Sequential(
      norm(after), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(after, after, 3, padding=1)
    )
    self.scale_shift = scale_shift
    same = before == after
    self.skip_connection = nn.Identity() if same else nn.Conv2d(before, after, 1)

  def forward(self, x, embedding):
    h = self.in_layers(x)
    given = self.emb_layers(embedding)[..., None, None]
    if self.scale_shift:
      scale, shift = given.chunk(2, dim=1)
      h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
    else:
      h = self.out_layers(h + given)
    return self.skip_connection(x) + h


class Attention(nn.Module):
  def __init__(self, features):
    super().__init__()
    self.norm, self.qkv = norm(features), nn.Conv1d(features, 3 * features, 1)
    self.proj_out = nn.Conv1d(features, features, 1)

  def forward(self, x, embedding):
    flat = x.flatten(2)
    qkv = self.qkv(self.norm(flat)).reshape(len(x) * HEADS, -1, flat.shape[-1])
    q, k, v = qkv.chunk(3, dim=1)
    weights = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / q.shape[1] ** 0.5, dim=-1)
    h = torch.einsum("bts,bcs->bct", weights, v).reshape(flat.shape)
    return (flat + self.proj_out(h)).reshape(x.shape)


class Down(nn.Module):
  def __init__(self, features):
    super().__init__()
    self.op = nn.Conv2d(features, features, 3, stride=2, padding=1)

  def forward(self, x, embedding):
    return self.op(x)


class Up(nn.Module):
  def __init__(self, features):
    super().__init__()
    self.conv = nn.Conv2d(features, features, 3, padding=1)

  def forward(self, x, embedding):
    return self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))


class First(nn.Conv2d):
  def forward(self, x, embedding):
    return super().forward(x)


class UNet(nn.Module):
  """One block a level, attention at the second."""

  def __init__(self, scale_shift, learned_sigma):
    super().__init__()
    block = lambda before, after: Block(before, after, scale_shift)
    wide = LEVELS[1] * CHANNELS
    lists = lambda *blocks: nn.ModuleList([nn.ModuleList(layers) for layers in blocks])
    self.time_embed = nn.Sequential(
      nn.Linear(CHANNELS, 4 * CHANNELS), nn.SiLU(), nn.Linear(4 * CHANNELS, 4 * CHANNELS)
    )
    self.input_blocks = lists(
      [First(3, CHANNELS, 3, padding=1)],
      [block(CHANNELS, CHANNELS)],
      [Down(CHANNELS)],
      [block(CHANNELS, wide), Attention(wide)],
    )
    self.middle_block = nn.ModuleList([block(wide, wide), Attention(wide), block(wide, wide)])
    self.output_blocks = lists(
      [block(2 * wide, wide), Attention(wide)],
      [block(wide + CHANNELS, wide), Attention(wide), Up(wide)],
      [block(wide + CHANNELS, CHANNELS)],
      [block(2 * CHANNELS, CHANNELS)],
    )
    outputs = 6 if learned_sigma else 3
    self.out = nn.Sequential(norm(CHANNELS), nn.SiLU(), nn.Conv2d(CHANNELS, outputs, 3, 1, 1))

  def forward(self, x, t):
    rate = torch.exp(-np.log(10000) * torch.arange(CHANNELS // 2) / (CHANNELS // 2))
    angle = t[:, None].float() * rate[None]
    embedding = self.time_embed(torch.cat([angle.cos(), angle.sin()], dim=-1))

    def through(layers, h):
      for layer in layers:
        h = layer(h, embedding)
      return h

    kept = []
    for layers in self.input_blocks:
      x = through(layers, x)
      kept.append(x)
    x = through(self.middle_block, x)
    for layers in self.output_blocks:
      x = through(layers, torch.cat([x, kept.pop()], dim=1))
    return self.out(x)


@pytest.mark.parametrize("scale_shift, learned_sigma", [(True, True), (False, False)])
def test_its_weights_compute_what_they_compute_there(scale_shift, learned_sigma):
  torch.manual_seed(0)
  theirs = UNet(scale_shift, learned_sigma).eval()
  module, variables = dj.interop.from_torch(
    "adm_unet", theirs.state_dict(), num_heads=HEADS, num_head_channels=None
  )
  assert (module.channels, module.multipliers, module.attention_levels) == (8, LEVELS, (1,))
  assert (module.scale_shift_norm, module.learned_variance) == (scale_shift, learned_sigma)
  assert not module.resblock_updown
  x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 900])
  with torch.no_grad():
    expected = theirs(x, t).numpy().transpose(0, 2, 3, 1)
  nhwc = jnp.asarray(x.numpy().transpose(0, 2, 3, 1))
  out = jax.jit(dj.models.denoiser(module, variables))(nhwc, jnp.asarray(t.numpy(), jnp.int32))
  np.testing.assert_allclose(out, expected, atol=2e-5)
