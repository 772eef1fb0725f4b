"""The command `diffence import-torch`: a process of its own, and the same in this one."""

import hashlib
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from fixtures.load import load_fixture, pseudo_state_dict

from diffence_jax.cli import main
from diffence_jax.interop import from_torch
from diffence_jax.models.saved import load_model, read_manifest

safetensors = pytest.importorskip("safetensors.numpy", reason="writes safetensors files")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """(file, state dict) of the U-Net fixture."""
  state_dict = pseudo_state_dict(load_fixture("ddpm_unet")[0])
  path = tmp_path_factory.mktemp("published") / "unet.safetensors"
  safetensors.save_file(state_dict, path)
  return path, state_dict


def run(*arguments):
  """The exit code of the command in this process."""
  return main.run(["diffence", "import-torch", *map(str, arguments)])


def test_a_file_becomes_a_saved_model(checkpoint, tmp_path):
  path, state_dict = checkpoint
  output = tmp_path / "models" / "unet"
  process = subprocess.run(
    [sys.executable, "-m", "diffence_jax.cli.main", "import-torch", "ddpm_unet", str(path),
     f"--output={output}", "--set", "dropout=0.3", "dtype=bfloat16"],
    capture_output=True, text=True,
  )  # fmt: skip
  assert process.returncode == 0, process.stderr
  assert process.stderr == ""  # nobody watches
  assert process.stdout.startswith(f"{output}: the denoiser ddpm_unet, ")
  module, variables = load_model(output)
  expected, weights = from_torch("ddpm_unet", state_dict, dropout=0.3, dtype="bfloat16")
  assert module == expected
  assert jax.tree.all(jax.tree.map(np.array_equal, variables, weights))
  manifest = read_manifest(output)
  assert manifest.image_channels == 3 and manifest.kind == "ddpm_unet"
  assert manifest.source == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
  assert sorted(file.name for file in output.parent.iterdir()) == ["unet"]


def test_a_classifier_and_its_fields(tmp_path, capsys):
  state_dict = pseudo_state_dict(load_fixture("resnet18")[0])
  safetensors.save_file(state_dict, tmp_path / "resnet.safetensors")
  assert run("resnet18", tmp_path / "resnet.safetensors", "--output", tmp_path / "saved",
             "--set=mean=0.1,0.2,0.3", "--set", "std=(0.2,)", "norm=batch") == 0  # fmt: skip
  told = capsys.readouterr().out
  assert "the classifier resnet18" in told and "assumed" not in told
  manifest = read_manifest(tmp_path / "saved")
  assert (manifest.role, manifest.image_channels) == ("classifier", 3)
  module = manifest.make_module()
  assert (module.mean, module.std, module.norm) == ((0.1, 0.2, 0.3), (0.2,), "batch")


def test_what_the_weights_do_not_tell_is_said(tmp_path, capsys):
  state_dict = pseudo_state_dict(load_fixture("resnet18")[0])
  safetensors.save_file(state_dict, tmp_path / "resnet.safetensors")
  arguments = ["resnet18", tmp_path / "resnet.safetensors", "--output", tmp_path / "saved"]
  assert run(*arguments, "--set=mean=0.4") == 0
  assert "The weights do not tell std=(0.5,), which was assumed" in capsys.readouterr().out
  assert read_manifest(tmp_path / "saved").make_module().mean == (0.4,)


def test_a_folder_of_diffusers_records_both_of_its_files(tmp_path):
  fixture, _ = load_fixture("diffusers_unet")
  folder = tmp_path / "published"
  folder.mkdir()
  (folder / "config.json").write_text(json.dumps(fixture["configs"]["published"]))
  weights = folder / "diffusion_pytorch_model.safetensors"
  safetensors.save_file(pseudo_state_dict(fixture), weights)
  assert run("ddpm_unet", folder, f"--output={tmp_path / 'saved'}") == 0
  manifest = read_manifest(tmp_path / "saved")
  assert set(manifest.source) == {"config.json", weights.name}
  assert manifest.fields["time_layout"] == "sin_cos"


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "required: KIND, FILE, --output"),
    (["ddpm_unet", "{file}"], "required: --output"),
    (["ddpm_net", "{file}", "--output={new}"], "did you mean 'ddpm_unet'"),
    (["resnet18", "{file}", "--output={new}"], "not the weights of a resnet18"),
    (["ddpm_unet", "nowhere.pt", "--output={new}"], "There is no file nowhere.pt"),
    (["ddpm_unet", "{file}", "--output={old}"], "there already, and is not overwritten"),
    (["ddpm_unet", "{file}", "--output={new}", "--set", "dropout"], "expected FIELD=VALUE"),
    (["ddpm_unet", "{file}", "--output={new}", "--set", "a=1", "a=2"], "got a twice"),
    (["ddpm_unet", "{file}", "--output={new}", "--set=drop_out=0"], "did you mean 'dropout'"),
    (["ddpm_unet", "{file}", "--output={new}", "--set=kind=0"], "no field of 'ddpm_unet'"),
    (["ddpm_unet", "{file}", "--output={new}", "--overwrite"], "--overwrite; see diffence"),
    (
      ["ddpm_unet", "{file}", "--output={new}", "--set=channels=wide"],
      "channels of 'ddpm_unet' is 'wide'; expected a whole number",
    ),
    (
      ["ddpm_unet", "{file}", "--output={new}", "--set=dropout=1"],
      "dropout of 'ddpm_unet' is 1, which leaves nothing; expected less than 1.",
    ),
    (
      ["ddpm_unet", "{file}", "--output={new}", "--set=dtype=bfloat"],
      "dtype of 'ddpm_unet' is 'bfloat'; expected a dtype",
    ),
  ],
)
def test_what_is_not_right_is_said_and_leaves_nothing(
  checkpoint, tmp_path, capsys, arguments, message
):
  names = {"file": checkpoint[0], "new": tmp_path / "new", "old": tmp_path}
  assert run(*(argument.format(**names) for argument in arguments)) == 2
  output = capsys.readouterr()
  assert message in output.err and "Traceback" not in output.err and output.out == ""
  assert not list(tmp_path.iterdir())


def test_help_is_quick_and_goes_before_everything_else():
  program = (
    "import sys; from diffence_jax.cli import main\n"
    "code = main.run(['diffence', 'import-torch', 'x', '--help'])\n"
    "assert code == 0 and 'jax' not in sys.modules, code\n"
  )
  process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
  assert process.returncode == 0, process.stderr
  assert process.stdout.startswith("diffence import-torch KIND FILE --output=FOLDER")
