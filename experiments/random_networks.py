"""The networks of the configs on random weights, for experiments that time them."""

import runpy
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import diffence_jax as dj
from diffence_jax import models
from diffence_jax.predictor import Denoise, Predict

_CONFIGS = Path(__file__).parents[1] / "configs"

# Of the data that each config is for, (H,W,C).
IMAGE_SHAPES = {
  "digits": (8, 8, 1),
  "fashion_mnist_small": (28, 28, 1),
  "cifar10": (32, 32, 3),
}


class Networks(NamedTuple):
  """A classifier and a diffusion model, without weights."""

  classifier: nn.Module
  denoiser: nn.Module
  schedule: dj.Schedule
  image_shape: tuple[int, int, int]


def networks_of(config_name: str, *, small: bool = False) -> Networks:
  """The networks of a config, a key of `IMAGE_SHAPES`; `small` ones to try a script with."""
  config = runpy.run_path(str(_CONFIGS / f"{config_name}.py"))["get_config"]()
  classifier, diffusion = dict(config.classifier.fields), dict(config.diffusion.fields)
  shape = IMAGE_SHAPES[config_name]
  if small:
    shape = 8, 8, shape[-1]
    classifier.update(width=4, stages=(1,))
    diffusion.update(channels=8, multipliers=(1,), attention_levels=(), num_res_blocks=1)
  return Networks(
    models.make_classifier(config.classifier.model, num_classes=10, **classifier),
    models.make_denoiser(config.diffusion.model, out_channels=shape[-1], **diffusion),
    dj.linear_schedule(**config.diffusion.schedule),
    shape,
  )


def random_variables(networks: Networks) -> tuple[Any, Any]:
  """The classifier's and the diffusion model's, drawn by their initialisers."""
  classifier, denoiser = (
    models.init(module, jax.random.key(0, impl="rbg"), networks.image_shape)
    for module in (networks.classifier, networks.denoiser)
  )
  return classifier, denoiser


def bind(
  networks: Networks,
  variables: tuple[Any, Any],
  dtype: str = "float32",
  classifier_dtype: str = "float32",
) -> tuple[Predict, Denoise]:
  """The predictor, compiled, and the denoiser.

  Args:
    networks: without weights.
    variables: the classifier's and the diffusion model's.
    dtype: that the diffusion model computes in.
    classifier_dtype: float32 in experiments, as labels are its own.

  Returns:
    Both, bound to their variables.
  """
  classifier = networks.classifier.clone(dtype=jnp.dtype(classifier_dtype))
  denoiser = networks.denoiser.clone(dtype=jnp.dtype(dtype))
  return models.predictor(classifier, variables[0]), models.denoiser(denoiser, variables[1])


def bind_random(networks: Networks) -> tuple[Predict, Denoise]:
  """The same with weights drawn by their initialisers."""
  return bind(networks, random_variables(networks))


def random_images(num: int, shape: tuple[int, int, int]) -> np.ndarray:
  """Images f32[num,H,W,C] of uniform noise in [0, 1]."""
  return np.random.default_rng(0).uniform(size=(num, *shape)).astype(np.float32)


def in_pytorch(networks: Networks):
  """The classifier and the diffusion model in PyTorch, on random weights of its own.

  Raises:
    ModuleNotFoundError: PyTorch is not installed.
  """
  import torch
  import torch_networks

  torch.manual_seed(0)
  classifier, denoiser = networks.classifier, networks.denoiser
  return (
    torch_networks.ResNet(classifier, denoiser.out_channels),
    torch_networks.UNet(denoiser),
  )


def variables_of(networks: Networks, theirs) -> tuple[Any, Any]:
  """Our variables of the same weights as those in PyTorch, `in_pytorch`'s."""
  from torch_networks import state_dict_of

  weights, classifier = [state_dict_of(network) for network in theirs], networks.classifier
  kept = {"stages": classifier.stages, "mean": classifier.mean, "std": classifier.std}
  _, classifier_variables = dj.interop.from_torch("resnet18", weights[0], **kept)
  _, denoiser_variables = dj.interop.from_torch("ddpm_unet", weights[1])
  return classifier_variables, denoiser_variables
