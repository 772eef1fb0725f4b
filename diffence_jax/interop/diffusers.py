"""The folder of a Diffusers `UNet2DModel` to the layout of a DDPM U-Net."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffence_jax.checks import check_instance
from diffence_jax.diffusion.schedule import Schedule, make_schedule
from diffence_jax.interop.files import INDEX, files_of, read_json, read_state_dict
from diffence_jax.interop.layout import Layout
from diffence_jax.interop.scheduler import prediction, schedule_options
from diffence_jax.models.registry import make_denoiser

_CONFIG = "config.json"
_SCHEDULER = "scheduler/scheduler_config.json"
_WEIGHTS = (
  "diffusion_pytorch_model.safetensors",
  f"diffusion_pytorch_model.safetensors{INDEX}",
  "diffusion_pytorch_model.bin",
  f"diffusion_pytorch_model.bin{INDEX}",
)


class Files(NamedTuple):
  """The files of a U-Net in a folder.

  Attributes:
    config: its options.
    weights: its state dict.
    scheduler: the options of its pipeline's scheduler; None where it is not in a pipeline.
  """

  config: Path
  weights: Path
  scheduler: Path | None

  @property
  def all(self) -> tuple[Path, ...]:
    """Those that there are, with the files that an index of weights names."""
    return tuple(filter(None, (self.config, *files_of(self.weights), self.scheduler)))


class Folder(NamedTuple):
  """What a folder holds.

  Attributes:
    layout: of the network.
    state_dict: as `read_state_dict` gives it.
    schedule: that the network is for, options of `diffusion.make_schedule`; None where the
      folder does not say.
    predicts: one of `models.saved.PREDICTIONS`; None where the folder does not say.
  """

  layout: Layout
  state_dict: dict[str, Any]
  schedule: dict[str, Any] | None
  predicts: str | None


class _Option(NamedTuple):
  """An option of a config.

  Attributes:
    default: what Diffusers takes where the config does not say.
    holds: whether our network can follow the (value, whole config).
    expected: which values it can follow, for errors.
  """

  default: Any
  holds: Callable[[Any, Mapping[str, Any]], bool]
  expected: str


def _whole(default: int | None, least: int, most: int) -> _Option:
  return _Option(
    default, lambda n, _: type(n) is int and least <= n <= most, f"{least} to {most}"
  )


def _one_of(*values: Any) -> _Option:
  """An option with these values only, the default first."""
  return _Option(values[0], lambda value, _: value in values, " or ".join(map(repr, values)))


def _levels_fit(levels: Any, config: Mapping[str, Any]) -> bool:
  first = levels[0]
  return (
    0 < first <= 100_000
    and len(levels) <= 30
    and first % 2 == 0
    and (first <= 32 or first % 32 == 0)
    and all(type(n) is int and n > 0 and n % first == 0 for n in levels)
  )


def _attends(types: Any, way: str) -> list[bool]:
  """Whether each block attends; a KeyError where one is of another type."""
  known = {f"{way}Block2D": False, f"Attn{way}Block2D": True}
  # Diffusers' first versions wrote "UNetRes" before each name.
  return [known[name.removeprefix("UNetRes")] for name in types]


_OPTIONS = {
  "block_out_channels": _Option(
    (224, 448, 672, 896),
    _levels_fit,
    "multiples of the first of them, and that even and up to 32, or a multiple of 32",
  ),
  "layers_per_block": _whole(2, 1, 1000),
  "down_block_types": _Option(
    ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    lambda types, config: len(_attends(types, "Down")) == len(config["block_out_channels"]),
    "'DownBlock2D' or 'AttnDownBlock2D' for each of block_out_channels",
  ),
  "up_block_types": _Option(
    ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    lambda types, config: (
      _attends(types, "Up") == _attends(config["down_block_types"], "Down")[::-1]
    ),
    "'UpBlock2D' or 'AttnUpBlock2D', in the reverse order of down_block_types",
  ),
  "out_channels": _whole(3, 1, 1024),
  "in_channels": _Option(
    3, lambda channels, config: channels == config["out_channels"], "as many as out_channels"
  ),
  "norm_num_groups": _Option(
    32,
    lambda groups, config: groups == min(32, config["block_out_channels"][0]),
    "the first of block_out_channels, or 32 if that is less",
  ),
  "attention_head_dim": _Option(
    8, lambda n, _: n is None or (type(n) is int and 0 < n <= 100_000), "null, or 1 to 100000"
  ),
  "norm_eps": _Option(1e-5, lambda value, _: value > 0, "above 0"),
  "dropout": _Option(0.0, lambda value, _: 0 <= value < 1, "0 or more, less than 1"),
  "freq_shift": _whole(0, 0, 50_000),
  "flip_sin_to_cos": _one_of(True, False),
  "downsample_padding": _one_of(1, 0),
  "center_input_sample": _one_of(False),
  "time_embedding_type": _one_of("positional"),
  "time_embedding_dim": _one_of(None),
  "mid_block_type": _one_of("UNetMidBlock2D"),
  "mid_block_scale_factor": _one_of(1),
  "downsample_type": _one_of("conv"),
  "upsample_type": _one_of("conv"),
  "act_fn": _one_of("silu", "swish"),
  "attn_norm_num_groups": _one_of(None),
  "resnet_time_scale_shift": _one_of("default"),
  "add_attention": _one_of(True),
  "class_embed_type": _one_of(None),
  "num_class_embeds": _one_of(None),
}
# Options that say nothing about the network: any size of image will do.
_IRRELEVANT = ("sample_size", "num_train_timesteps")

# Our names of the projections of an attention to those of Diffusers, before and since 0.15.
_OLD_ATTENTION = {"query": "query", "key": "key", "value": "value", "out": "proj_attn"}
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}


def read_folder(path: str | os.PathLike, predicts: str | None = "epsilon") -> Folder:
  """Opens the folder of a U-Net, or of a pipeline that holds one in `unet/`.

  Args:
    path: a folder with `config.json` and `diffusion_pytorch_model.safetensors` or `.bin`.
    predicts: what a scheduler beside it is to say that the network predicts; None for whatever
      we know.

  Raises:
    FileNotFoundError: the folder lacks the config or the weights.
    ValueError: a file is damaged, the schedule is not one that we have, or the network is not
      one that `DDPMUNet` can be; the message lists the options.
  """
  files = find_files(path)
  config = _read_config(files.config)
  schedule = told = None
  if files.scheduler:
    about = read_json(files.scheduler), files.scheduler
    schedule, told = schedule_options(*about, predicts), prediction(*about)
  state_dict = dict(read_state_dict(files.weights))
  is_old = any(re.search(r"\.attentions\.\d+\.query\.", name) for name in state_dict)
  projections = _OLD_ATTENTION if is_old else _NEW_ATTENTION
  matrices = tuple(f".{name}.weight" for name in projections.values())
  for name, value in state_dict.items():
    if ".attentions." in name and name.endswith(matrices) and len(value.shape) == 2:
      # A linear map of the features is our convolution of 1x1 pixels.
      state_dict[name] = value.reshape(*value.shape, 1, 1)
  layout = Layout(
    make=make_denoiser,
    infer_settings=lambda shapes: _settings(config),
    image_channels=lambda module, shapes: module.out_channels,
    names=_names(len(config["block_out_channels"]), config["layers_per_block"], projections),
  )
  return Folder(layout, state_dict, schedule, told)


def find_files(path: str | os.PathLike) -> Files:
  """The files of the U-Net in a folder.

  Raises:
    FileNotFoundError: the config or the weights are missing.
  """
  check_instance("path", path, str, os.PathLike)
  path = Path(path)
  folder = next((f for f in (path, path / "unet") if (f / _CONFIG).is_file()), None)
  if folder is None:
    raise FileNotFoundError(
      f"{path} has no {_CONFIG}, nor has {path / 'unet'}; expected a checkpoint file, or the "
      "folder of a Diffusers UNet2DModel as its save_pretrained writes it."
    )
  weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
  if weights is None:
    raise FileNotFoundError(
      f"{folder} has a {_CONFIG} but no weights; expected {' or '.join(_WEIGHTS)}."
    )
  places = (folder / _SCHEDULER, folder.parent / _SCHEDULER)
  scheduler = next((place for place in places if place.is_file()), None)
  return Files(folder / _CONFIG, weights, scheduler)


def read_schedule(path: str | os.PathLike) -> Schedule:
  """The noise schedule that the network in a folder is for.

  Args:
    path: as `read_folder` takes it.

  Raises:
    FileNotFoundError: the folder lacks the config, the weights or a scheduler.
    ValueError: the schedule is not one that we have.
  """
  scheduler = find_files(path).scheduler
  if scheduler is None:
    raise FileNotFoundError(
      f"{path} has no {_SCHEDULER}; expected the folder of a Diffusers pipeline. Where the "
      "schedule is known, make it with dj.make_schedule."
    )
  return make_schedule(**schedule_options(read_json(scheduler), scheduler, predicts=None))


def _read_config(path: Path) -> dict[str, Any]:
  """The options of the network with Diffusers' defaults, checked."""
  config = read_json(path)
  model = config.get("_class_name", "UNet2DModel")
  if model != "UNet2DModel":
    raise ValueError(f"{path} is of a {model}; expected a UNet2DModel.")
  filled = {name: config.get(name, option.default) for name, option in _OPTIONS.items()}
  problems = [
    f"{name} is {filled[name]!r}, expected {option.expected}"
    for name, option in _OPTIONS.items()
    if not _holds(option, filled[name], filled)
  ] + [
    f"{name} is {value!r}, and no option that is known"
    for name, value in config.items()
    if not (name in _OPTIONS or name in _IRRELEVANT or name.startswith("_") or value is None)
  ]
  if problems:
    raise ValueError(
      f"The network of {path} is not one that the DDPM U-Net can be: {'; '.join(problems)}."
    )
  return filled


def _holds(option: _Option, value: Any, config: Mapping[str, Any]) -> bool:
  """Whether the value is one that our network can follow; one of a wrong type is not."""
  try:
    return option.holds(value, config)
  except (TypeError, LookupError, AttributeError, ArithmeticError):
    return False


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of our U-Net."""
  levels = config["block_out_channels"]
  attends = _attends(config["down_block_types"], "Down")
  return {
    "out_channels": config["out_channels"],
    "channels": levels[0],
    "multipliers": tuple(n // levels[0] for n in levels),
    "attention_levels": tuple(i for i, attend in enumerate(attends) if attend),
    "num_res_blocks": config["layers_per_block"],
    "dropout": float(config["dropout"]),
    "time_layout": "cos_sin" if config["flip_sin_to_cos"] else "sin_cos",
    "time_shift": config["freq_shift"],
    "norm_epsilon": float(config["norm_eps"]),
    "downsample_padding": "symmetric" if config["downsample_padding"] else "same",
    "head_features": config["attention_head_dim"],
  }


def _names(
  num_levels: int, num_res_blocks: int, projections: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
  """The rules from our submodules to those of Diffusers, which count within each level."""
  rules = [
    (r"^head$", "conv_in"),
    (r"^time_dense(\d)$", r"time_embedding.linear_\1"),
    (r"^tail_norm$", "conv_norm_out"),
    (r"^tail_conv$", "conv_out"),
    (r"^middle_0\.attention\b", "mid_block.attentions.0"),
    (r"^middle_(\d)\b", r"mid_block.resnets.\1"),
  ]
  for way, per_level, sampler in (
    ("down", num_res_blocks, "downsamplers"),
    ("up", num_res_blocks + 1, "upsamplers"),
  ):
    for level in range(num_levels):
      position, level_name = level * (per_level + 1), f"{way}_blocks.{level}"
      for block in range(per_level):
        ours = rf"^{way}_{position + block}"
        rules.append((rf"{ours}\.attention\b", f"{level_name}.attentions.{block}"))
        rules.append((rf"{ours}\b", f"{level_name}.resnets.{block}"))
      rules.append((rf"^{way}_{position + per_level}$", f"{level_name}.{sampler}.0.conv"))
  return (
    *rules,
    (r"\.time$", ".time_emb_proj"),
    (r"\.shortcut$", ".conv_shortcut"),
    (r"(\.attentions\.\d+)\.norm$", r"\1.group_norm"),
    *((rf"(\.attentions\.\d+)\.{ours}$", rf"\1.{name}") for ours, name in projections.items()),
  )
