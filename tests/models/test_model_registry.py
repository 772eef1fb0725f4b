"""Models by name: fields as a config has them, and errors that help."""

import jax.numpy as jnp
import numpy as np
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


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"dropout": 2.0}, "dropout of 'vit' is 2.0; expected a number, 0.0 to 1.0"),
    ({"dropout": 1.0}, "dropout of 'vit' is 1.0, which leaves nothing"),
    ({"dropout": -0.1}, "expected a number, 0.0 to 1.0"),
    ({"dropout": float("nan")}, "expected a finite number"),
    ({"num_classes": 1}, "num_classes of 'vit' is 1; expected a whole number, 2 to 1000000"),
    ({"num_classes": -1}, "expected a whole number, 2 to"),
    ({"num_classes": 10**7}, "expected a whole number, 2 to 1000000"),
    ({"depth": 10**9}, "depth of 'vit' is 1000000000; expected a whole number, 1 to 1000"),
    ({"depth": 2.5}, "depth of 'vit' is 2.5; expected a whole number"),
    ({"heads": 0}, "heads of 'vit' is 0; expected a whole number, 1 to"),
    ({"width": True}, "width of 'vit' is True; expected a whole number"),
    ({"mean": (125.3, 123.0, 113.9)}, r"is 125.3, as of bytes.*divide by 255, 0\.4914"),
    ({"std": 63}, r"std of 'vit' is 63, as of bytes.*divide by 255, 0\.2471"),
    ({"std": 0.0}, "std of 'vit' is 0.0; expected a number"),
    ({"std": 1e9}, "std of 'vit' is 1000000000.0; expected a number"),
    ({"mean": (0.5,) * 31}, "has 31 numbers; expected at most 30"),
    ({"dtype": "int8"}, "dtype of 'vit' is 'int8'; expected a dtype such as float32"),
  ],
)
def test_a_field_of_a_classifier_out_of_its_range_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    make_classifier("vit", **{"num_classes": 10, **fields})


@pytest.mark.parametrize(
  ("name", "fields", "message"),
  [
    ("ddpm_unet", {"num_res_blocks": 10**9}, "num_res_blocks of 'ddpm_unet' is 1000000000"),
    ("ddpm_unet", {"multipliers": (0, 1)}, "multipliers of 'ddpm_unet' is 0; expected"),
    ("ddpm_unet", {"multipliers": (1,) * 31}, "has 31 numbers; expected at most 30"),
    ("ddpm_unet", {"time_layout": "sines"}, "expected one of 'interleaved'"),
    ("ddpm_unet", {"out_channels": 0}, "out_channels of 'ddpm_unet' is 0"),
    ("adm_unet", {"num_classes": 0}, "num_classes of 'adm_unet' is 0"),
    ("adm_unet", {"multipliers": (1, 1e9)}, "expected a number, 0.001 to 1000"),
  ],
)
def test_a_field_of_a_denoiser_out_of_its_range_is_refused(name, fields, message):
  with pytest.raises(ValueError, match=message):
    make_denoiser(name, **{"out_channels": 3, **fields})


def test_whole_numbers_stay_whole():
  """The digest of a saved model is over its fields: 1 and 1.0 are two."""
  fields = make_denoiser(
    "adm_unet", out_channels=np.int64(3), multipliers=[1, np.int64(2), 2.5]
  )
  assert repr((fields.out_channels, fields.multipliers)) == "(3, (1, 2, 2.5))"


def test_the_fields_that_flax_adds_are_no_settings():
  with pytest.raises(ValueError, match="'parent'"):
    make_classifier("resnet18", num_classes=2, parent=None)
