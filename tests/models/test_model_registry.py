"""Models by name: fields as a config has them, and errors that help."""

import jax.numpy as jnp
import pytest

from diffence_jax.models import (
  VGG16BN,
  ADMUNet,
  DDPMUNet,
  DenseNet121,
  ResNet18,
  SmallResNet,
  ViT,
  make_classifier,
  make_denoiser,
)


def test_names_give_the_modules_with_their_fields():
  assert make_classifier("resnet18", num_classes=7, width=16) == ResNet18(7, width=16)
  assert make_classifier("small_resnet", num_classes=7) == SmallResNet(7)
  assert make_classifier("densenet121", num_classes=7, width=8) == DenseNet121(7, width=8)
  assert make_classifier("vgg16_bn", num_classes=7, norm="group") == VGG16BN(7, norm="group")
  assert make_classifier("vit", num_classes=7, dropout=0.0) == ViT(7, dropout=0.0)
  assert make_denoiser("ddpm_unet", out_channels=1, dropout=0.0) == DDPMUNet(1, dropout=0.0)


def test_the_adm_unet_is_made_by_name():
  module = make_denoiser("adm_unet", out_channels=3, multipliers=[1, 2], dtype="float16")
  assert module == ADMUNet(3, multipliers=(1, 2), dtype=jnp.dtype("float16"))


def test_lists_and_names_of_dtypes_are_taken_as_a_config_has_them():
  module = make_classifier(
    "small_resnet", num_classes=7, mean=[0.1, 0.2, 0.3], stages=[1, 1], dtype="bfloat16"
  )
  assert module.mean == (0.1, 0.2, 0.3) and module.stages == (1, 1)
  assert module.dtype == jnp.bfloat16
  hash(module)  # so that it can be a static argument of jit


@pytest.mark.parametrize(
  ("call", "nearest"),
  [
    (lambda: make_classifier("resnet_18", num_classes=2), "resnet18"),
    (lambda: make_denoiser("ddpm_net", out_channels=1), "ddpm_unet"),
    (lambda: make_classifier("resnet18", num_classes=2, widht=8), "width"),
    (lambda: make_denoiser("ddpm_unet", out_channels=1, chanels=8), "channels"),
  ],
)
def test_a_misspelt_name_is_met_with_the_nearest(call, nearest):
  with pytest.raises(ValueError, match=f"did you mean '{nearest}'.*Choose from: "):
    call()


def test_all_names_are_listed_where_none_is_near():
  with pytest.raises(ValueError, match="expected one of densenet121") as error:
    make_classifier("xyz", num_classes=2)
  assert "did you mean" not in str(error.value)


def test_the_fields_that_flax_adds_are_no_settings():
  with pytest.raises(ValueError, match="'parent'"):
    make_classifier("resnet18", num_classes=2, parent=None)
