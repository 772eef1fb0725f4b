"""Flax models: classifiers and noise-prediction networks, by name or by class."""

from diffence_jax.models.adm_unet import ADMUNet
from diffence_jax.models.binding import (
  answer_images,
  compiled_predictor,
  denoiser,
  init,
  is_conditional,
  num_parameters,
  predictor,
  training_mode,
)
from diffence_jax.models.ddpm_unet import DDPMUNet
from diffence_jax.models.densenet121 import DenseNet121
from diffence_jax.models.host import host_predictor
from diffence_jax.models.registry import (
  CLASSIFIERS,
  DENOISERS,
  make_classifier,
  make_denoiser,
  versioned,
)
from diffence_jax.models.resnet18 import ResNet18
from diffence_jax.models.resnet50 import ResNet50
from diffence_jax.models.small_resnet import SmallResNet
from diffence_jax.models.vgg16_bn import VGG16BN
from diffence_jax.models.vit import ViT

__all__ = [
  "CLASSIFIERS",
  "DENOISERS",
  "VGG16BN",
  "ADMUNet",
  "DDPMUNet",
  "DenseNet121",
  "ResNet18",
  "ResNet50",
  "SmallResNet",
  "ViT",
  "answer_images",
  "compiled_predictor",
  "denoiser",
  "host_predictor",
  "init",
  "is_conditional",
  "make_classifier",
  "make_denoiser",
  "num_parameters",
  "predictor",
  "training_mode",
  "versioned",
]
