"""PyTorch state dicts to Flax modules and variables."""

import functools
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax import rng
from diffence_jax.diffusion import linear_schedule
from diffence_jax.interop import diffusers
from diffence_jax.interop.adm_unet import ADM_UNET
from diffence_jax.interop.ddpm_unet import DDPM_UNET
from diffence_jax.interop.densenet121 import DENSENET121
from diffence_jax.interop.files import read_checkpoint
from diffence_jax.interop.layout import Layout
from diffence_jax.interop.resnet18 import RESNET18
from diffence_jax.interop.resnet50 import RESNET50
from diffence_jax.interop.vgg16_bn import VGG16_BN
from diffence_jax.interop.vit import VIT
from diffence_jax.interop.weights import WRAPPERS, FoundWeights, bare_weights, find_weights
from diffence_jax.models.binding import init
from diffence_jax.models.fields import CLASSES
from diffence_jax.models.registry import make_classifier
from diffence_jax.named import defaults_of, unknown_name

LAYOUTS: Mapping[str, Layout] = {
  "adm_unet": ADM_UNET,
  "ddpm_unet": DDPM_UNET,
  "densenet121": DENSENET121,
  "resnet18": RESNET18,
  "resnet50": RESNET50,
  "vgg16_bn": VGG16_BN,
  "vit": VIT,
}

# Our name of a layer's leaf to PyTorch's; parameters of their own keep theirs.
_LEAVES = {
  "kernel": "weight",
  "embedding": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}

_FLOATS = ("float32", "float16", "bfloat16", "float64")


class Network(NamedTuple):
  """A published network as one of ours.

  Attributes:
    module: the module.
    variables: float32, all collections.
    image_channels: channels of its images.
    schedule: of a denoiser, the noise schedule that it is for, as options of
      `diffusion.make_schedule`; None where its files do not say.
    told: which of several sets of weights were taken.
    predicts: of a denoiser, one of `models.saved.PREDICTIONS`; None where its files do not say.
  """

  module: nn.Module
  variables: dict[str, Any]
  image_channels: int
  schedule: dict[str, Any] | None = None
  told: str | None = None
  predicts: str | None = None


def from_torch(
  kind: str,
  state_dict_or_path: Mapping[str, Any] | str | os.PathLike,
  *,
  predicts: str = "epsilon",
  **settings: Any,
) -> tuple[nn.Module, dict[str, Any]]:
  """Turns a published network's PyTorch weights into one of our modules.

  Args:
    kind: a key of `LAYOUTS`.
    state_dict_or_path: a state dict, a checkpoint file, or for "ddpm_unet" also the folder of a
      Diffusers `UNet2DModel` or of a pipeline that holds one. A state dict has parameters by
      PyTorch's names, in PyTorch's layout: NumPy arrays or tensors. A file is one that
      `files.read_checkpoint` opens: of `torch.save` (.pt, .pth, .pth.tar, .bin, .ckpt; nothing
      in it is run), .safetensors, or the .safetensors.index.json of several. The state dict may
      lie in a checkpoint under a name of `weights.WRAPPERS`; of several the first of these is
      taken, so the weights averaged over training (EMA) before all others. Prefixes of wrappers
      ("module.", "_orig_mod.", "model." and the like) are dropped.
    predicts: what a Diffusers pipeline is to say that its network predicts. Where that is not
      "epsilon", the noise, the denoiser goes through `diffusion.as_noise`.
    **settings: fields of the module. A classifier's `mean` and `std`, by which images in [0, 1]
      were normalised in its training, are to be given: per channel, or one number for all.
      Those that shapes and names determine are inferred where not given; others (a U-Net's
      dropout, a ViT's heads) have the module's defaults, or in a Diffusers folder what its
      config says.

  Returns:
    (module, variables), the variables float32, all collections. Where a Diffusers folder names
    another schedule than `linear_schedule()`, a warning says so: see `read_schedule`.

  Raises:
    FileNotFoundError: there is no such file, or a folder lacks one.
    ImportError: a file needs the extra `torch`.
    TypeError: there is no mapping of names to arrays.
    ValueError: `kind` or a setting is unknown; a file is damaged, of a format that is not known
      or would run code; or parameters are missing, surplus or misshapen; the message lists
      them. Or a classifier's mean or std is not given.
  """
  network = read_network(kind, state_dict_or_path, predicts=predicts, **settings)
  if network.schedule not in (None, defaults_of(linear_schedule, 0)):
    warnings.warn(
      f"The network of {state_dict_or_path} is for another noise schedule than "
      f"dj.linear_schedule(): use dj.interop.read_schedule({str(state_dict_or_path)!r}).",
      stacklevel=2,
    )
  return network.module, network.variables


def read_network(
  kind: str,
  state_dict_or_path: Mapping[str, Any] | str | os.PathLike,
  /,
  *,
  predicts: str | None = "epsilon",
  **settings: Any,
) -> Network:
  """As `from_torch`, which says what there is to know, with the channels of the images.

  Where `predicts` is None a Diffusers pipeline's network may predict whatever we know.
  What is read from a file is converted parameter by parameter, so that memory holds the
  variables and one parameter, besides pages of the file that the system maps and can drop.
  """
  if kind not in LAYOUTS:
    raise unknown_name("kind of network", kind, LAYOUTS)
  layout, checkpoint, schedule, told = _open(kind, state_dict_or_path, predicts)
  weights = _weights(checkpoint.state_dict)
  shapes = {name: np.shape(value) for name, value in weights.items()}
  layout = next((variant for variant in layout.variants if variant.is_of(shapes)), layout)
  weights = {name: value for name, value in weights.items() if name not in layout.ignored}
  shapes = {name: shapes[name] for name in weights}
  try:
    inferred = layout.infer_settings(shapes)
    _check_classes(layout, inferred)
    module = layout.make(kind, **{**inferred, **settings})
    image_channels = layout.image_channels(module, shapes)
    size = layout.image_size(module, shapes)
  except (KeyError, IndexError) as error:
    raise ValueError(
      f"These are not the weights of a {kind}: reading its settings from them failed: {error}. "
      f"They have {len(weights)} parameters: {_listed(list(weights))}. Pass the state dict of "
      f"the network itself; in a checkpoint it was looked for under {', '.join(WRAPPERS)}. "
      "Weights of Diffusers need the folder with their config.json."
    ) from error
  expected = flax.traverse_util.flatten_dict(
    jax.eval_shape(
      functools.partial(init, module, image_shape=(size, size, image_channels)),
      rng.seed_key(0),
    )
  )
  names = {path: _torch_name(path, layout) for path in expected}
  _check(
    kind,
    shapes,
    {names[path]: _torch_shape(path[-1], leaf.shape) for path, leaf in expected.items()},
  )
  _check_given(kind, layout, settings)
  variables = {}
  for path in expected:
    weight = _to_numpy(names[path], weights.pop(names[path]))
    _check_values(names[path], path, weight)
    variables[path] = jnp.asarray(_copy(_from_torch_axes(path[-1], weight)))
  nested = flax.traverse_util.unflatten_dict(variables)
  return Network(module, nested, image_channels, schedule, checkpoint.told, told)


def _open(
  kind: str, state_dict_or_path: Mapping[str, Any] | str | os.PathLike, predicts: str | None
) -> tuple[Layout, FoundWeights, dict[str, Any] | None, str | None]:
  """The layout and the weights; the schedule and what is predicted, where that is known."""
  if not isinstance(state_dict_or_path, str | os.PathLike):
    return LAYOUTS[kind], find_weights(state_dict_or_path), None, None
  path = Path(state_dict_or_path)
  if not path.is_dir():
    return LAYOUTS[kind], find_weights(read_checkpoint(path)), None, None
  if kind != "ddpm_unet":
    raise ValueError(
      f"{path} is a folder; expected a checkpoint file. Only the kind 'ddpm_unet' is read from "
      "a folder, that of Diffusers."
    )
  folder = diffusers.read_folder(path, predicts)
  weights = FoundWeights(folder.state_dict)
  return folder.layout, weights, folder.schedule, folder.predicts


def _weights(state_dict: Mapping[str, Any]) -> dict[str, Any]:
  """The weights, not yet read where they are in a file, by their names in the bare network."""
  return {
    name: value if hasattr(value, "shape") else _array(name, value)
    for name, value in bare_weights(state_dict).items()
  }


def _check_given(kind: str, layout: Layout, settings: Mapping[str, Any]) -> None:
  """Raises ValueError unless the fields that no weights tell are given."""
  if missing := [name for name in layout.required if name not in settings]:
    raise ValueError(
      f"The weights of a {kind} do not tell {' and '.join(missing)}; expected what its images "
      "in [0, 1] were normalised by in training, such as mean=(0.4914, 0.4822, 0.4465), "
      "std=(0.2023, 0.1994, 0.201), on the command line --set mean=0.4914,0.4822,0.4465 "
      "std=0.2023,0.1994,0.201; mean=0.0, std=1.0 where they were not normalised."
    )


def _check_classes(layout: Layout, inferred: Mapping[str, Any]) -> None:
  """Raises ValueError, with the parameter's name, where a head has not 2 classes or many."""
  if layout.make is not make_classifier:
    return
  least, most = CLASSES["classifier"]
  if not least <= inferred["num_classes"] <= most:
    name = _torch_name(("params", "head", "bias"), layout)
    raise ValueError(
      f"{name} has {inferred['num_classes']} values, one a class; expected {least} to "
      f"{most:,}. Of a head of one sigmoid make two classes: put a row of zeros before its own."
    )


def _check_values(name: str, path: tuple[str, ...], weight: np.ndarray) -> None:
  """Raises ValueError unless a parameter's values can be those of trained weights."""
  if not np.isfinite(weight).all():
    raise ValueError(
      f"{name} holds values that are not finite; expected trained weights. Take a checkpoint "
      "from before the training diverged."
    )
  if path[0] == "batch_stats" and path[-1] == "var" and (weight < 0).any():
    raise ValueError(
      f"{name} holds negative values, which no variance has; expected the running variance of "
      "a batch normalisation. Fetch or copy the checkpoint again."
    )


def _to_numpy(name: str, value: Any) -> np.ndarray:
  """A parameter, wherever it lies, as f32."""
  _check_dtype(name, value)
  array = _array(name, value)
  _check_dtype(name, array)
  with np.errstate(over="ignore"):  # what becomes infinite is refused
    return array.astype(np.float32, copy=False)


def _array(name: str, value: Any) -> np.ndarray:
  """A tensor, or anything else that is an array of numbers, as an array."""
  try:
    if hasattr(value, "untyped_storage") and value.numel() * value.element_size() > (
      value.untyped_storage().nbytes()
    ):
      raise ValueError("it is larger than what is stored of it")
    if hasattr(value, "detach"):
      value = value.detach().cpu().float()  # NumPy has no bfloat16
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    return array if hasattr(value, "shape") else array.astype(np.float32)
  except (TypeError, ValueError, RuntimeError) as error:
    raise ValueError(
      f"{name!r} is a {type(value).__name__} that cannot be read ({error}); expected an array "
      "or a tensor. Pass the state dict of the network itself, not the checkpoint around it; "
      f"there it was looked for under {', '.join(WRAPPERS)}."
    ) from error


def _check_dtype(name: str, value: Any) -> None:
  """Raises ValueError where the numbers of a parameter are not floating-point ones."""
  dtype = str(getattr(value, "dtype", _FLOATS[0])).removeprefix("torch.")
  if dtype not in _FLOATS:
    raise ValueError(
      f"{name} is of the type {dtype}; expected {', '.join(_FLOATS)}. Save the weights as they "
      "were before they were quantised or otherwise packed: they are not scaled back here."
    )


def _torch_name(path: tuple[str, ...], layout: Layout) -> str:
  """PyTorch's name of the variable at our (collection, submodules..., leaf)."""
  submodule = functools.reduce(
    lambda name, rule: re.sub(*rule, name), layout.names, ".".join(path[1:-1])
  )
  return ".".join(filter(None, (submodule, _LEAVES.get(path[-1], path[-1]))))


def _torch_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape of our variable in PyTorch: a kernel's [..., in, out] is [out, in, ...] there."""
  return (*shape[:-3:-1], *shape[:-2]) if leaf == "kernel" else shape


def _from_torch_axes(leaf: str, weight: np.ndarray) -> np.ndarray:
  """A kernel's [out, in, ...] to [..., in, out]; everything else stays."""
  return weight.transpose(*range(2, weight.ndim), 1, 0) if leaf == "kernel" else weight


def _copy(array: np.ndarray, block: int = 64) -> np.ndarray:
  """A copy in memory of its own and in C order: no mapped file, no tensor of the caller's.

  Of transposed axes it goes block by block, which the processor's cache holds: three times as
  fast as all at once.
  """
  copy = np.empty(array.shape, array.dtype)
  if array.ndim < 2:
    copy[...] = array
    return copy
  for i in range(0, array.shape[-2], block):
    for j in range(0, array.shape[-1], block):
      part = (..., slice(i, i + block), slice(j, j + block))
      copy[part] = array[part]
  return copy


def _check(
  kind: str, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
  """Raises ValueError, with the list, unless the parameters are the expected ones."""
  missing = [name for name in expected if name not in shapes]
  surplus = [name for name in shapes if name not in expected]
  misshapen = [
    f"{name} is {list(shapes[name])}, expected {list(shape)}"
    for name, shape in expected.items()
    if name in shapes and shapes[name] != shape
  ]
  problems = {"missing": missing, "surplus": surplus, "misshapen": misshapen}
  wrong = [f"{what}: {_listed(names)}" for what, names in problems.items() if names]
  if wrong:
    raise ValueError(
      f"The weights don't fit a {kind}; {'; '.join(wrong)}. Check the kind and the settings."
    )


def _listed(names: list[str], most: int = 20) -> str:
  """At most `most` names, and how many more there are."""
  more = f" and {len(names) - most} more" if len(names) > most else ""
  # Names come from the file: none may begin a line of its own, or steer a terminal.
  shown = (name if name.isprintable() else repr(name)[1:-1] for name in names[:most])
  return ", ".join(shown) + more
