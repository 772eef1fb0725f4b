"""The state dict of the DDPM U-Net of w86763777/pytorch-ddpm."""

import re
from typing import Any

from diffence_jax.interop.layout import Layout, Shapes
from diffence_jax.models.registry import make_denoiser


def _infer_settings(shapes: Shapes) -> dict[str, Any]:
  """The fields of our U-Net, read off the way down; dropout leaves no trace."""

  def has(prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)

  indices = {
    int(match[1]) for name in shapes if (match := re.match(r"downblocks\.(\d+)\.", name))
  }
  levels = [[]]  # the prefixes of each level's residual blocks; a downsampling ends a level
  for prefix in (f"downblocks.{index}." for index in sorted(indices)):
    if has(prefix + "main."):
      levels.append([])
    else:
      levels[-1].append(prefix)
  channels = shapes["head.bias"][0]
  return {
    "out_channels": shapes["tail.2.bias"][0],
    "channels": channels,
    "multipliers": tuple(
      shapes[f"{blocks[0]}block1.2.bias"][0] // channels for blocks in levels
    ),
    "attention_levels": tuple(i for i, blocks in enumerate(levels) if has(f"{blocks[0]}attn.")),
    "num_res_blocks": len(levels[0]),
  }


DDPM_UNET = Layout(
  make=make_denoiser,
  infer_settings=_infer_settings,
  image_channels=lambda module, shapes: module.out_channels,
  names=(
    (r"^time_dense1$", "time_embedding.timembedding.1"),
    (r"^time_dense2$", "time_embedding.timembedding.3"),
    (r"^tail_norm$", "tail.0"),
    (r"^tail_conv$", "tail.2"),
    (r"^(down|middle|up)_(\d+)", r"\1blocks.\2"),
    (r"^(\w+blocks\.\d+)$", r"\1.main"),
    (r"\.norm1$", ".block1.0"),
    (r"\.conv1$", ".block1.2"),
    (r"\.time$", ".temb_proj.1"),
    (r"\.norm2$", ".block2.0"),
    (r"\.conv2$", ".block2.3"),
    (r"\.attention\.norm$", ".attn.group_norm"),
    (r"\.attention\.(q)uery$", r".attn.proj_\1"),
    (r"\.attention\.(k)ey$", r".attn.proj_\1"),
    (r"\.attention\.(v)alue$", r".attn.proj_\1"),
    (r"\.attention\.out$", ".attn.proj"),
  ),
  # The frozen table of sines and cosines, which our network computes.
  ignored=("time_embedding.timembedding.0.weight",),
)
