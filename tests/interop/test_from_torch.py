"""Published PyTorch weights: exact outputs, inferred settings, and errors that list."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.load import load_fixture, pseudo_state_dict
from fixtures.pseudo_weights import pseudo_weight

from diffence_jax.interop import from_torch
from diffence_jax.interop.from_torch import LAYOUTS
from diffence_jax.models import (
  ADMUNet,
  denoiser,
  make_classifier,
  num_parameters,
  predictor,
)

CLASSIFIERS = ("resnet18", "densenet121", "vgg16_bn", "vit")


def load(kind):
  """(state dict, arrays) of a fixture."""
  manifest, arrays = load_fixture(kind)
  return pseudo_state_dict(manifest), arrays


def shapes_of(kind):
  """(name, shape) of the parameters of a fixture."""
  return load_fixture(kind)[0]["state_dict"].items()


def nhwc(x):
  return jnp.asarray(x.transpose(0, 2, 3, 1))


def vit_shapes(*, width, patch, size, channels, depth, attention, mlp, num_classes):
  """Names and shapes of a ViT's state dict, as vit-pytorch has them."""
  shapes = {
    "pos_embedding": (1, (size // patch) ** 2 + 1, width),
    "cls_token": (1, 1, width),
    "to_patch_embedding.1.weight": (width, patch * patch * channels),
    "to_patch_embedding.1.bias": (width,),
    "mlp_head.0.weight": (width,),
    "mlp_head.0.bias": (width,),
    "mlp_head.1.weight": (num_classes, width),
    "mlp_head.1.bias": (num_classes,),
  }
  for layer in range(depth):
    for name, shape in {
      "0.norm.weight": (width,),
      "0.norm.bias": (width,),
      "0.fn.to_qkv.weight": (3 * attention, width),
      "0.fn.to_out.0.weight": (width, attention),
      "0.fn.to_out.0.bias": (width,),
      "1.norm.weight": (width,),
      "1.norm.bias": (width,),
      "1.fn.net.0.weight": (mlp, width),
      "1.fn.net.0.bias": (mlp,),
      "1.fn.net.3.weight": (width, mlp),
      "1.fn.net.3.bias": (width,),
    }.items():
      shapes[f"transformer.layers.{layer}.{name}"] = shape
  return shapes


SMALL_VIT = {"width": 24, "size": 18, "depth": 2, "attention": 16, "mlp": 40, "num_classes": 5}


@pytest.fixture(scope="module")
def unet():
  return load("ddpm_unet")


@pytest.fixture(scope="module")
def adm():
  return load("adm_unet")


@pytest.fixture(scope="module")
def resnet():
  return load("resnet18")


def test_the_unet_predicts_the_published_noise(unet):
  state_dict, arrays = unet
  denoise = jax.jit(denoiser(*from_torch("ddpm_unet", state_dict)))
  out = denoise(nhwc(arrays["x"]), jnp.asarray(arrays["t"], jnp.int32))
  np.testing.assert_allclose(out, nhwc(arrays["eps"]), atol=2e-5)


def test_the_adm_unet_predicts_the_published_noise_and_variance(adm):
  state_dict, arrays = adm
  denoise = jax.jit(denoiser(*from_torch("adm_unet", state_dict, num_head_channels=16)))
  out = denoise(nhwc(arrays["x"]), jnp.asarray(arrays["t"], jnp.int32))
  np.testing.assert_allclose(out, nhwc(arrays["out"]), atol=2e-5)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_gives_the_published_logits(kind):
  state_dict, arrays = load(kind)
  module, variables = from_torch(kind, state_dict, mean=(0.0,), std=(1.0,))
  out = jax.jit(predictor(module, variables))(None, nhwc(arrays["x"]))
  np.testing.assert_allclose(out, arrays["logits"], atol=1e-5)
  trained = [
    value.size
    for name, value in state_dict.items()
    if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
  ]
  assert num_parameters(variables) == sum(trained)


def test_settings_are_read_off_the_weights_and_explicit_ones_kept(unet, resnet):
  module, _ = from_torch("ddpm_unet", unet[0], dropout=0.0, dtype="bfloat16")
  assert (module.out_channels, module.channels, module.multipliers) == (3, 32, (1, 2))
  assert (module.attention_levels, module.num_res_blocks) == ((1,), 1)
  assert (module.dropout, module.dtype) == (0.0, jnp.bfloat16)
  module, _ = from_torch("resnet18", resnet[0], mean=[0.1, 0.2, 0.3], std=0.5)
  assert (module.num_classes, module.width, module.mean) == (10, 64, (0.1, 0.2, 0.3))


def test_settings_of_an_adm_unet_are_read_off_its_weights(adm):
  module, _ = from_torch("adm_unet", adm[0], num_head_channels=16)
  assert module == ADMUNet(
    out_channels=3,
    channels=32,
    multipliers=(1, 2),
    attention_levels=(1,),
    num_res_blocks=1,
    num_head_channels=16,
  )
  with pytest.raises(ValueError, match="num_heads is 5; attention is over 64 features"):
    from_torch("adm_unet", adm[0], num_head_channels=None, num_heads=5)


def test_a_conditional_adm_unet_that_resamples_by_convolutions_is_recognised(adm):
  plain = {}
  for name, value in adm[0].items():
    # The blocks that halve and double, and the second half of every embedding.
    if name.startswith(("input_blocks.2.", "output_blocks.1.2.")):
      continue
    plain[name] = value[: len(value) // 2] if ".emb_layers." in name else value
  plain["input_blocks.2.0.op.weight"] = np.full((32, 32, 3, 3), 2.0, np.float32)
  plain["output_blocks.1.2.conv.weight"] = np.full((64, 64, 3, 3), 3.0, np.float32)
  plain["input_blocks.2.0.op.bias"] = np.zeros(32, np.float32)
  plain["output_blocks.1.2.conv.bias"] = np.zeros(64, np.float32)
  plain["label_emb.weight"] = np.arange(7 * 128, dtype=np.float32).reshape(7, 128)
  plain["out.2.weight"], plain["out.2.bias"] = plain["out.2.weight"][:3], np.zeros(3)
  module, variables = from_torch("adm_unet", plain, num_head_channels=16)
  assert module == ADMUNet(
    out_channels=3,
    channels=32,
    multipliers=(1, 2),
    attention_levels=(1,),
    num_res_blocks=1,
    num_head_channels=16,
    scale_shift_norm=False,
    resblock_updown=False,
    learned_variance=False,
    num_classes=7,
  )
  table = variables["params"]["label_embedding"]["embedding"]
  np.testing.assert_array_equal(table, plain["label_emb.weight"])
  qkv = variables["params"]["middle_1"]["qkv"]["kernel"]
  np.testing.assert_array_equal(qkv[0], plain["middle_block.1.qkv.weight"][:, :, 0].T)


@pytest.mark.parametrize(
  "name",
  ["out.0.weight", "output_blocks.1.2.in_layers.2.weight", "output_blocks.0.1.qkv.bias"],
)
def test_a_missing_parameter_does_not_mislead_the_settings_of_an_adm_unet(adm, name):
  broken = {key: value for key, value in adm[0].items() if key != name}
  with pytest.raises(ValueError, match=f"missing: {name}. Check"):
    from_torch("adm_unet", broken, num_head_channels=16)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_published_classifiers_have_the_default_settings(kind):
  weights = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes_of(kind)}
  module, _ = from_torch(kind, weights, mean=0.5, std=0.5)
  if kind == "vit":
    assert (module.attention_width, module.mlp_width) == (512, 512)
    module = module.clone(attention_width=None, mlp_width=None)
  assert module == make_classifier(kind, num_classes=10)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch", [1, 3, 6])
def test_a_vit_of_any_size_is_read_off_its_weights(patch, channels):
  shapes = vit_shapes(**SMALL_VIT, patch=patch, channels=channels)
  weights = {name: pseudo_weight(name, shape) for name, shape in shapes.items()}
  module, variables = from_torch("vit", weights, heads=4, dropout=0.0, mean=0.5, std=0.5)
  assert (module.num_classes, module.width, module.patch, module.depth) == (5, 24, patch, 2)
  assert (module.attention_width, module.mlp_width, module.heads) == (16, 40, 4)
  # Parameters of no layer keep their axes.
  for name in ("cls_token", "pos_embedding"):
    np.testing.assert_array_equal(variables["params"][name], weights[name])
  images = jax.ShapeDtypeStruct((2, 18, 18, channels), jnp.float32)
  assert jax.eval_shape(predictor(module, variables), None, images).shape == (2, 5)


def test_a_patch_that_contradicts_the_weights_is_refused():
  shapes = vit_shapes(**SMALL_VIT, patch=6, channels=3)
  weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
  message = r"embedding.1.weight is \[24, 108\], expected \[24, 27\]"
  with pytest.raises(ValueError, match=message):
    from_torch("vit", weights, patch=3)


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    ("densenet121", "features.transition_layer_2.down_sample.0.running_var"),
    ("densenet121", "features.dense_block3.bottle_neck_layer_4.bottle_neck.5.weight"),
    ("vgg16_bn", "features.40.bias"),
    ("vit", "cls_token"),
    ("vit", "transformer.layers.5.1.fn.net.3.weight"),
  ],
)
def test_what_a_classifier_misses_or_has_too_much_is_listed(kind, name):
  weights = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes_of(kind)}
  del weights[name]
  weights["another.weight"] = np.zeros(3, np.float32)
  message = f"don't fit a {kind}; missing: {re.escape(name)}; surplus: another.weight. Check"
  with pytest.raises(ValueError, match=message):
    from_torch(kind, weights)


def test_the_depth_of_a_densenet_is_read_off_its_names():
  later = re.compile(r"bottle_neck_layer_[2-9]|bottle_neck_layer_\d\d")
  shapes = {name: shape for name, shape in shapes_of("densenet121") if not later.search(name)}
  assert LAYOUTS["densenet121"].infer_settings(shapes)["stages"] == (2, 2, 2, 2)


def test_prefix_frozen_table_and_batch_counters_are_dropped(unet):
  wrapped = {f"module.{name}": value for name, value in unet[0].items()}
  wrapped["module.time_embedding.timembedding.0.weight"] = np.zeros((1000, 32), np.float32)
  _, variables = from_torch("ddpm_unet", wrapped)
  _, expected = from_torch("ddpm_unet", unet[0])
  assert jax.tree.structure(variables) == jax.tree.structure(expected)
  assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))


def test_tensors_are_taken_wherever_they_lie(unet):
  class Tensor:
    """What torch.Tensor does: refuses NumPy until it is detached, on the CPU and float32."""

    def __init__(self, value, ready=()):
      self.value, self.ready = value, frozenset(ready)
      self.shape = value.shape

    def detach(self):
      return Tensor(self.value, self.ready | {"detach"})

    def cpu(self):
      return Tensor(self.value, self.ready | {"cpu"})

    def float(self):
      return Tensor(self.value, self.ready | {"float"})

    def numpy(self):
      assert self.ready == {"detach", "cpu", "float"}
      return self.value

  tensors = {name: Tensor(value) for name, value in unet[0].items()}
  _, variables = from_torch("ddpm_unet", tensors)
  np.testing.assert_array_equal(
    variables["params"]["head"]["kernel"], unet[0]["head.weight"].transpose(2, 3, 1, 0)
  )


def test_missing_surplus_and_misshapen_parameters_are_listed(unet):
  broken = dict(unet[0])
  del broken["middleblocks.0.attn.proj_q.bias"]
  del broken["tail.0.weight"]
  broken["extra.weight"] = np.zeros((2, 2), np.float32)
  broken["upblocks.2.main.weight"] = np.zeros((64, 64, 1, 1), np.float32)
  with pytest.raises(ValueError) as error:
    from_torch("ddpm_unet", broken)
  message = str(error.value)
  assert "missing: middleblocks.0.attn.proj_q.bias, tail.0.weight;" in message
  assert "surplus: extra.weight;" in message
  assert "upblocks.2.main.weight is [64, 64, 1, 1], expected [64, 64, 3, 3]" in message


@pytest.mark.parametrize(
  "name", ["head.weight", "downblocks.2.block1.2.weight", "downblocks.1.main.weight"]
)
def test_a_missing_parameter_does_not_mislead_the_settings(unet, name):
  broken = {key: value for key, value in unet[0].items() if key != name}
  with pytest.raises(ValueError, match=f"missing: {name}. Check"):
    from_torch("ddpm_unet", broken)


def test_settings_that_contradict_the_weights_are_refused(resnet):
  with pytest.raises(ValueError, match=r"fc.weight is \[10, 512\], expected \[7, 512\]"):
    from_torch("resnet18", resnet[0], num_classes=7)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("given", [{}, {"mean": 0.5}, {"std": (0.2, 0.2, 0.2)}], ids=str)
def test_a_classifier_has_to_be_told_its_normalisation(kind, given):
  weights = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes_of(kind)}
  missing = " and ".join(name for name in ("mean", "std") if name not in given)
  message = rf"a {kind} do not tell {missing}; expected .*mean=\(0\.4914, .*--set mean=0\.4914"
  with pytest.raises(ValueError, match=message):
    from_torch(kind, weights, **given)


def test_weights_of_another_network_are_refused(resnet):
  with pytest.raises(ValueError, match=r"not the weights of a ddpm_unet.*conv1\.0\.weight"):
    from_torch("ddpm_unet", resnet[0])
  with pytest.raises(ValueError, match="not the weights of a resnet18"):
    from_torch("resnet18", {})
  with pytest.raises(ValueError, match="not the weights of a adm_unet"):
    from_torch("adm_unet", resnet[0])


def test_a_checkpoint_around_the_weights_under_another_name_is_refused(unet):
  with pytest.raises(ValueError, match=r"'weights' is a dict.*looked for under ema_model"):
    from_torch("ddpm_unet", {"weights": unet[0]})


def test_unknown_kinds_and_settings_are_met_with_the_nearest(unet):
  with pytest.raises(ValueError, match="did you mean 'ddpm_unet'"):
    from_torch("ddpm_net", unet[0])
  with pytest.raises(ValueError, match="did you mean 'dropout'"):
    from_torch("ddpm_unet", unet[0], drop_out=0.0)


def test_what_is_no_mapping_is_refused():
  with pytest.raises(TypeError, match=r"is a list; expected a mapping"):
    from_torch("ddpm_unet", [1.0])


def resnet_with(state_dict, **changes):
  """The state dict of the ResNet fixture with functions of some parameters."""
  state_dict = dict(state_dict)
  for name, change in changes.items():
    state_dict[name] = change(state_dict[name])
  return state_dict


@pytest.mark.parametrize(
  ("name", "change", "message"),
  [
    ("conv1.0.weight", lambda w: w.astype(np.int8), "is of the type int8; expected float32"),
    ("conv1.0.weight", lambda w: w.astype(np.complex64), "is of the type complex64"),
    ("conv1.0.weight", lambda w: w > 0, "is of the type bool"),
    ("conv1.0.weight", lambda w: w * np.float32(np.nan), "values that are not finite"),
    ("conv1.0.weight", lambda w: w.astype(np.float64) + 1e300, "values that are not finite"),
    ("conv1.1.running_var", lambda w: -w - 1, "negative values, which no variance has"),
    ("fc.bias", lambda w: w[:1], "has 1 values, one a class; expected 2 to 1,000,000"),
    ("fc.bias", lambda w: w[:0], "has 0 values, one a class"),
    ("fc.bias", lambda w: np.broadcast_to(w[:1], 10**7), "has 10000000 values, one a class"),
  ],
)
def test_weights_that_no_training_leaves_are_refused_by_name(resnet, name, change, message):
  with pytest.raises(ValueError, match=f"^{re.escape(name)} .*{re.escape(message)}"):
    from_torch("resnet18", resnet_with(resnet[0], **{name: change}), mean=0.5, std=0.5)


@pytest.mark.parametrize("dtype", ["int8", "complex64", "float8_e4m3fn", "bool"])
def test_tensors_of_other_types_are_refused_by_name(resnet, dtype):
  torch = pytest.importorskip("torch", reason="makes tensors")
  change = lambda w: torch.from_numpy(np.array(w)).to(getattr(torch, dtype))
  with pytest.raises(ValueError, match=rf"^conv1\.0\.weight is of the type {dtype}; expected"):
    changed = resnet_with(resnet[0], **{"conv1.0.weight": change})
    from_torch("resnet18", changed, mean=0.5, std=0.5)
