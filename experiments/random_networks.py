"""The networks of the configs on random weights, for experiments that time them."""

import runpy
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
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
  if small:
    classifier["width"] = 8
    diffusion.update(channels=32, num_res_blocks=1)
  shape = IMAGE_SHAPES[config_name]
  return Networks(
    models.make_classifier(config.classifier.model, num_classes=10, **classifier),
    models.make_denoiser(config.diffusion.model, out_channels=shape[-1], **diffusion),
    dj.linear_schedule(**config.diffusion.schedule),
    shape,
  )


def bind_random(networks: Networks) -> tuple[Predict, Denoise]:
  """The predictor, compiled, and the denoiser, with weights drawn by their initialisers."""
  classifier, denoiser = (
    models.init(module, jax.random.key(0, impl="rbg"), networks.image_shape)
    for module in (networks.classifier, networks.denoiser)
  )
  predict = models.predictor(networks.classifier, classifier)
  return predict, models.denoiser(networks.denoiser, denoiser)


def random_images(num: int, shape: tuple[int, int, int]) -> np.ndarray:
  """Images f32[num,H,W,C] of uniform noise in [0, 1]."""
  return np.random.default_rng(0).uniform(size=(num, *shape)).astype(np.float32)


def with_pytorch(networks: Networks):
  """(networks in PyTorch on random weights, our variables of the same), or None."""
  try:
    import torch
    import torch_networks
  except ModuleNotFoundError:
    return None
  torch.manual_seed(0)
  classifier, denoiser = networks.classifier, networks.denoiser
  theirs = (
    torch_networks.ResNet(classifier, denoiser.out_channels),
    torch_networks.UNet(denoiser),
  )
  weights = [torch_networks.state_dict_of(network) for network in theirs]
  kept = {"stages": classifier.stages, "mean": classifier.mean, "std": classifier.std}
  _, classifier_variables = dj.interop.from_torch("resnet18", weights[0], **kept)
  _, denoiser_variables = dj.interop.from_torch("ddpm_unet", weights[1])
  return theirs, (classifier_variables, denoiser_variables)
