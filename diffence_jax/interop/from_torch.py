"""PyTorch state dicts to Flax modules and variables."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax.interop.adm_unet import ADM_UNET
from diffence_jax.interop.ddpm_unet import DDPM_UNET
from diffence_jax.interop.layout import Layout
from diffence_jax.interop.resnet18 import RESNET18
from diffence_jax.models.binding import init
from diffence_jax.models.registry import unknown_name

LAYOUTS: Mapping[str, Layout] = {
  "adm_unet": ADM_UNET,
  "ddpm_unet": DDPM_UNET,
  "resnet18": RESNET18,
}

# Our name of a leaf to PyTorch's.
_LEAVES = {
  "kernel": "weight",
  "embedding": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


def from_torch(
  kind: str, state_dict: Mapping[str, Any], **settings: Any
) -> tuple[nn.Module, dict[str, Any]]:
  """Turns a published network's PyTorch weights into one of our modules.

  Args:
    kind: a key of `LAYOUTS`.
    state_dict: parameters by PyTorch's names, in PyTorch's layout: NumPy arrays or tensors.
      The prefix "module." of data-parallel training is dropped.
    **settings: fields of the module. Those that shapes and names determine are inferred where
      not given; others (a U-Net's dropout, a classifier's mean and std) have the module's
      defaults.

  Returns:
    (module, variables), the variables float32, all collections.

  Raises:
    TypeError: `state_dict` is no mapping.
    ValueError: `kind` or a setting is unknown, or parameters are missing, surplus or misshapen;
      the message lists them.
  """
  if kind not in LAYOUTS:
    raise unknown_name("kind of network", kind, LAYOUTS)
  if not isinstance(state_dict, Mapping):
    raise TypeError(
      f"state_dict is a {type(state_dict).__name__}; expected a mapping from parameter names "
      "to arrays. Load a checkpoint file first, with torch.load(path, weights_only=True)."
    )
  layout = LAYOUTS[kind]
  weights = _weights(state_dict, layout)
  shapes = {name: np.shape(value) for name, value in weights.items()}
  try:
    module = layout.make(kind, **{**layout.infer_settings(shapes), **settings})
    image_shape = (32, 32, layout.image_channels(module, shapes))
  except (KeyError, IndexError) as error:
    raise ValueError(
      f"These are not the weights of a {kind}: reading its settings from them failed: {error}. "
      f"They have {len(weights)} parameters: {_listed(list(weights))}. Pass the state dict of "
      "the network itself; a checkpoint often holds it under a name such as 'ema_model'."
    ) from error
  expected = flax.traverse_util.flatten_dict(
    jax.eval_shape(functools.partial(init, module, image_shape=image_shape), jax.random.key(0))
  )
  names = {path: _torch_name(path, layout) for path in expected}
  _check(
    kind,
    shapes,
    {names[path]: _torch_shape(path[-1], leaf.shape) for path, leaf in expected.items()},
  )
  variables = {
    path: jnp.asarray(_from_torch_axes(path[-1], weights[names[path]])) for path in expected
  }
  return module, flax.traverse_util.unflatten_dict(variables)


def _weights(state_dict: Mapping[str, Any], layout: Layout) -> dict[str, np.ndarray]:
  """The weights as arrays f32, by their names in the bare network."""
  bare = {name.removeprefix("module."): value for name, value in state_dict.items()}
  return {
    name: _to_numpy(name, value)
    for name, value in bare.items()
    if name not in layout.ignored and not name.endswith(".num_batches_tracked")
  }


def _to_numpy(name: str, value: Any) -> np.ndarray:
  """A tensor, wherever it lies, or anything else that is an array of numbers, as f32."""
  if hasattr(value, "detach"):
    value = value.detach().cpu().float()  # NumPy has no bfloat16
  if hasattr(value, "numpy"):
    value = value.numpy()
  try:
    return np.asarray(value, np.float32)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"{name!r} is a {type(value).__name__}; expected an array or a tensor. Pass the state "
      "dict of the network itself, not the checkpoint around it."
    ) from error


def _torch_name(path: tuple[str, ...], layout: Layout) -> str:
  """PyTorch's name of the variable at our (collection, submodules..., leaf)."""
  submodule = functools.reduce(
    lambda name, rule: re.sub(*rule, name), layout.names, ".".join(path[1:-1])
  )
  return f"{submodule}.{_LEAVES[path[-1]]}"


def _torch_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape of our variable in PyTorch: a kernel's [..., in, out] is [out, in, ...] there."""
  return (*shape[:-3:-1], *shape[:-2]) if leaf == "kernel" else shape


def _from_torch_axes(leaf: str, weight: np.ndarray) -> np.ndarray:
  """A kernel's [out, in, ...] to [..., in, out]; everything else stays."""
  return weight.transpose(*range(2, weight.ndim), 1, 0) if leaf == "kernel" else weight


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
  found = [f"{what}: {_listed(names)}" for what, names in problems.items() if names]
  if found:
    raise ValueError(
      f"The weights don't fit a {kind}; {'; '.join(found)}. Check the kind and the settings."
    )


def _listed(names: list[str], most: int = 20) -> str:
  """At most `most` names, and how many more there are."""
  more = f" and {len(names) - most} more" if len(names) > most else ""
  return ", ".join(names[:most]) + more
