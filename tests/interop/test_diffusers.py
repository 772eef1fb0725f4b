"""Folders of Diffusers U-Nets: its outputs, its names old and new, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.load import load_fixture, pseudo_state_dict

from diffence_jax.interop import from_torch, read_schedule
from diffence_jax.interop.diffusers import find_files
from diffence_jax.models import denoiser

safetensors = pytest.importorskip("safetensors.numpy", reason="writes safetensors files")


@pytest.fixture(scope="module")
def fixture():
  """(configs, state dict, arrays)."""
  manifest, arrays = load_fixture("diffusers_unet")
  return manifest["configs"], pseudo_state_dict(manifest), arrays


def write(folder, config, state_dict):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.json").write_text(json.dumps(config))
  safetensors.save_file(state_dict, folder / "diffusion_pytorch_model.safetensors")
  return folder


def in_old_names(state_dict):
  """As Diffusers before 0.15 named the projections of attentions."""
  old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

  def rename(name):
    for new_name, old_name in old.items():
      name = name.replace(f".{new_name}.", f".{old_name}.")
    return name

  return {rename(name): value for name, value in state_dict.items()}


def nhwc(x):
  return jnp.asarray(x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("name", ["published", "other"])
def test_the_unet_predicts_the_noise_of_diffusers(fixture, tmp_path, name):
  configs, state_dict, arrays = fixture
  module, variables = from_torch("ddpm_unet", write(tmp_path, configs[name], state_dict))
  out = jax.jit(denoiser(module, variables))(nhwc(arrays["x"]), jnp.asarray(arrays["t"]))
  np.testing.assert_allclose(out, nhwc(arrays[f"eps_{name}"]), atol=2e-5)


def test_the_config_becomes_fields_and_explicit_ones_are_kept(fixture, tmp_path):
  configs, state_dict, _ = fixture
  folder = write(tmp_path, configs["published"], state_dict)
  module, _ = from_torch("ddpm_unet", str(folder), dropout=0.25)
  assert (module.out_channels, module.channels, module.multipliers) == (3, 32, (1, 2))
  assert (module.attention_levels, module.num_res_blocks) == ((1,), 1)
  assert (module.time_layout, module.time_shift, module.norm_epsilon) == ("sin_cos", 1, 1e-6)
  assert (module.downsample_padding, module.head_features) == ("same", None)
  assert module.dropout == 0.25


def test_old_names_a_pipeline_and_a_pickle_give_the_same(fixture, tmp_path):
  configs, state_dict, _ = fixture
  module, expected = from_torch(
    "ddpm_unet", write(tmp_path / "new", configs["other"], state_dict)
  )
  pipeline = tmp_path / "pipeline"
  write(pipeline / "unet", configs["other"], in_old_names(state_dict))
  (pipeline / "model_index.json").write_text("{}")
  folders = [pipeline]
  try:
    import torch
  except ImportError:
    pass
  else:
    pickled = write(tmp_path / "pickled", configs["other"], {})
    (pickled / "diffusion_pytorch_model.safetensors").unlink()
    tensors = {name: torch.from_numpy(value) for name, value in state_dict.items()}
    torch.save(tensors, pickled / "diffusion_pytorch_model.bin")
    folders.append(pickled)
  for folder in folders:
    again, variables = from_torch("ddpm_unet", folder)
    assert again == module
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_a_network_of_a_pipeline_has_to_predict_the_noise(fixture, tmp_path, predicts):
  configs, state_dict, _ = fixture
  write(tmp_path / "unet", configs["other"], state_dict)
  (tmp_path / "scheduler").mkdir()
  config = tmp_path / "scheduler" / "scheduler_config.json"
  options = {"_class_name": "DDPMScheduler", "beta_schedule": "linear"}
  config.write_text(json.dumps({**options, "prediction_type": predicts}))
  if predicts == "epsilon":
    from_torch("ddpm_unet", tmp_path)
  else:
    for folder in (tmp_path, tmp_path / "unet"):
      with pytest.raises(ValueError, match="predicts 'v_prediction'"):
        from_torch("ddpm_unet", folder)
    module, _ = from_torch("ddpm_unet", tmp_path, predicts="v_prediction")
    assert module.channels == 32
    assert read_schedule(tmp_path).num_steps == 1000


def test_a_folder_with_its_weights_in_several_files(fixture, tmp_path):
  configs, state_dict, _ = fixture
  _, expected = from_torch("ddpm_unet", write(tmp_path / "one", configs["other"], state_dict))
  folder = write(tmp_path / "several", configs["other"], {})
  (folder / "diffusion_pytorch_model.safetensors").unlink()
  names, weight_map = list(state_dict), {}
  for part in range(2):
    own, file = names[part::2], f"diffusion_pytorch_model-0000{part}-of-00002.safetensors"
    safetensors.save_file({name: state_dict[name] for name in own}, folder / file)
    weight_map |= dict.fromkeys(own, file)
  index = folder / "diffusion_pytorch_model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": weight_map}))
  _, variables = from_torch("ddpm_unet", folder)
  assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))
  assert {file.name for file in find_files(folder).all} == {
    "config.json", index.name, *weight_map.values()
  }  # fmt: skip


def test_missing_surplus_and_misshapen_parameters_are_listed_by_diffusers_names(
  fixture, tmp_path
):
  configs, state_dict, _ = fixture
  broken = dict(state_dict)
  del broken["up_blocks.1.resnets.1.conv_shortcut.bias"]
  broken["mid_block.attentions.0.to_q.weight"] = np.zeros((64, 32), np.float32)
  broken["class_embedding.weight"] = np.zeros((10, 128), np.float32)
  with pytest.raises(ValueError) as error:
    from_torch("ddpm_unet", write(tmp_path, configs["other"], broken))
  message = str(error.value)
  assert "missing: up_blocks.1.resnets.1.conv_shortcut.bias;" in message
  assert "surplus: class_embedding.weight;" in message
  assert "mid_block.attentions.0.to_q.weight is [64, 32, 1, 1], expected [64, 64" in message


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep', expected None"),
    ({"act_fn": "relu"}, "act_fn is 'relu', expected 'silu' or 'swish'"),
    ({"in_channels": 6}, "in_channels is 6, expected as many as out_channels"),
    ({"block_out_channels": [32, 48]}, r"block_out_channels is \[32, 48\], expected multiples"),
    ({"block_out_channels": "wide"}, "block_out_channels is 'wide'"),
    (
      {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]},
      "SkipDownBlock2D'.*expected 'Do",
    ),
    ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "reverse order of down_block_types"),
    ({"norm_num_groups": 16}, "norm_num_groups is 16, expected"),
    ({"downsample_padding": 2}, "downsample_padding is 2, expected 1 or 0"),
    ({"layers_per_block": "two"}, "layers_per_block is 'two', expected 1 to 1000"),
    ({"layers_per_block": 10**9}, "layers_per_block is 1000000000, expected 1 to 1000"),
    ({"attention_head_dim": 10**9}, "attention_head_dim is 1000000000, expected null"),
    ({"block_out_channels": [32] * 31}, "block_out_channels is .*expected multiples"),
    ({"norm_eps": None}, "norm_eps is None, expected above 0"),
    ({"encoder_hid_dim": 7}, "encoder_hid_dim is 7, and no option that is known"),
    ({"act_fn": "relu", "add_attention": False}, "act_fn is .*add_attention is False"),
    ({"_class_name": "UNet2DConditionModel"}, "of a UNet2DConditionModel; expected a UNet2DM"),
  ],
)
def test_other_networks_are_refused_by_the_option(fixture, tmp_path, options, message):
  config = {**fixture[0]["published"], **options}
  with pytest.raises(ValueError, match=message):
    from_torch("ddpm_unet", write(tmp_path, config, {}))


def test_a_config_that_says_nothing_has_the_defaults_of_diffusers(tmp_path):
  """UNet2DModel() has 432 parameters, of which 20 are listed."""
  with pytest.raises(ValueError, match=r"and 412 more"):
    from_torch("ddpm_unet", write(tmp_path, {}, {}), dropout=0.0)


def test_folders_that_lack_something_are_met_with_what_it_is(fixture, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"has no config\.json, nor has .*unet"):
    from_torch("ddpm_unet", tmp_path)
  with pytest.raises(ValueError, match="is a folder; expected a checkpoint file"):
    from_torch("resnet18", tmp_path)
  (tmp_path / "config.json").write_text(json.dumps(fixture[0]["other"]))
  with pytest.raises(FileNotFoundError, match=r"no weights; expected .*safetensors or .*\.bin"):
    from_torch("ddpm_unet", tmp_path)
  write(tmp_path, {}, {})
  for text, message in (("{", "damaged, it is not JSON"), ("[]", "holds a list")):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
      from_torch("ddpm_unet", tmp_path)


def test_weights_without_their_folder_are_told_to_come_with_it(fixture, tmp_path):
  folder = write(tmp_path, fixture[0]["other"], fixture[1])
  with pytest.raises(ValueError, match=r"Weights of Diffusers need the folder"):
    from_torch("ddpm_unet", folder / "diffusion_pytorch_model.safetensors")
