"""The state dict of the U-Net of openai/guided-diffusion."""

from typing import Any

from diffence_jax.interop.layout import Layout, Shapes
from diffence_jax.models.registry import make_denoiser


def _infer_settings(shapes: Shapes) -> dict[str, Any]:
  """The fields of our U-Net; heads, their order and dropout leave no trace."""

  def has(prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)

  def features(block: str) -> int:
    return shapes[f"{block}.0.out_layers.3.bias"][0]

  # On the way up, a block has one layer or, with attention, two; one more doubles the image
  # and so ends a level. Blocks that only halve it look like others on the way down.
  num_blocks = 0
  while has(f"output_blocks.{num_blocks}."):
    num_blocks += 1
  attends = [has(f"output_blocks.{i}.1.qkv.") for i in range(num_blocks)]
  num_levels = 1 + sum(has(f"output_blocks.{i}.{1 + attends[i]}.") for i in range(num_blocks))
  blocks = num_blocks // num_levels
  firsts = [(num_levels - 1 - level) * blocks for level in range(num_levels)]

  channels = shapes["time_embed.0.weight"][1]
  widths = [features(f"output_blocks.{first}") for first in firsts]
  out_channels = shapes["input_blocks.0.0.weight"][1]
  scaling = shapes["middle_block.0.emb_layers.1.bias"][0] == 2 * features("middle_block")
  return {
    "out_channels": out_channels,
    "channels": channels,
    "multipliers": tuple(w / channels if w % channels else w // channels for w in widths),
    "attention_levels": tuple(level for level, first in enumerate(firsts) if attends[first]),
    "num_res_blocks": blocks - 1,
    "scale_shift_norm": scaling,
    "resblock_updown": not any(".0.op." in name for name in shapes),
    "learned_variance": shapes["out.2.bias"][0] == 2 * out_channels,
    "num_classes": shapes["label_emb.weight"][0] if has("label_emb.") else None,
  }


ADM_UNET = Layout(
  make=make_denoiser,
  infer_settings=_infer_settings,
  image_channels=lambda module, shapes: module.out_channels,
  untold=("num_head_channels", "num_heads", "attention_order"),
  names=(
    (r"^time_dense1$", "time_embed.0"),
    (r"^time_dense2$", "time_embed.2"),
    (r"^label_embedding$", "label_emb"),
    (r"^tail_norm$", "out.0"),
    (r"^tail_conv$", "out.2"),
    (r"^down_(\d+)_(\d)", r"input_blocks.\1.\2"),
    (r"^middle_(\d)", r"middle_block.\1"),
    (r"^up_(\d+)_(\d)", r"output_blocks.\1.\2"),
    # Layers that are a convolution alone, and resample.
    (r"^(input_blocks\.\d+\.\d)$", r"\1.op"),
    (r"^(output_blocks\.\d+\.\d)$", r"\1.conv"),
    (r"^head$", "input_blocks.0.0"),
    (r"\.norm1$", ".in_layers.0"),
    (r"\.conv1$", ".in_layers.2"),
    (r"\.time$", ".emb_layers.1"),
    (r"\.norm2$", ".out_layers.0"),
    (r"\.conv2$", ".out_layers.3"),
    (r"\.shortcut$", ".skip_connection"),
    (r"\.out$", ".proj_out"),
  ),
)
