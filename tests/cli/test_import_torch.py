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


def test_which_weights_were_taken_is_said_and_home_is_found(tmp_path, capsys, monkeypatch):
  torch = pytest.importorskip("torch", reason="writes a checkpoint")
  state_dict = pseudo_state_dict(load_fixture("resnet18")[0])
  own = {name: torch.from_numpy(np.array(value)) for name, value in state_dict.items()}
  raw = {name: torch.zeros_like(value) for name, value in own.items()}
  torch.save({"state_dict": raw, "state_dict_ema": own}, tmp_path / "a.ckpt")
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  assert run("resnet18", "~/a.ckpt", "--output=~/saved", "--set", "mean=0.5", "std=0.2") == 0
  told = "Taken: the weights under state_dict_ema, averaged over training; left: state_dict."
  assert told in capsys.readouterr().out
  variables = load_model(tmp_path / "saved")[1]
  expected = from_torch("resnet18", state_dict, mean=0.5, std=0.2)[1]
  assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))


def test_names_of_parameters_are_shown_without_escape_codes(tmp_path, capsys):
  weights = {"\x1b[31mred\ndiffence: done": np.ones(2, np.float32)}
  safetensors.save_file(weights, tmp_path / "a.safetensors")
  assert run("resnet18", tmp_path / "a.safetensors", f"--output={tmp_path / 'saved'}") == 2
  told = capsys.readouterr().err
  assert "\\x1b[31mred\\ndiffence" in told and "\x1b" not in told and told.count("\n") == 1


def test_a_normalisation_of_bytes_is_refused_with_the_remedy(tmp_path, capsys):
  state_dict = pseudo_state_dict(load_fixture("resnet18")[0])
  safetensors.save_file(state_dict, tmp_path / "resnet.safetensors")
  arguments = ["resnet18", tmp_path / "resnet.safetensors", f"--output={tmp_path / 'saved'}"]
  assert run(*arguments, "--set", "mean=125.3", "std=63") == 2
  assert "images are in [0, 1]: divide by 255, 0.4914" in capsys.readouterr().err


def test_what_the_weights_do_not_tell_is_said(tmp_path, capsys):
  state_dict = pseudo_state_dict(load_fixture("vit")[0])
  safetensors.save_file(state_dict, tmp_path / "vit.safetensors")
  arguments = ["vit", tmp_path / "vit.safetensors", "--output", tmp_path / "saved"]
  assert run(*arguments, "--set", "mean=0.4", "std=0.2") == 0
  assert "The weights do not tell heads=8, which was assumed" in capsys.readouterr().out
  assert read_manifest(tmp_path / "saved").make_module().mean == (0.4,)


def test_a_classifier_without_its_normalisation_is_refused(tmp_path, capsys):
  state_dict = pseudo_state_dict(load_fixture("resnet18")[0])
  safetensors.save_file(state_dict, tmp_path / "resnet.safetensors")
  arguments = ["resnet18", tmp_path / "resnet.safetensors", f"--output={tmp_path / 'saved'}"]
  assert run(*arguments, "--set=mean=0.4") == 2
  told = capsys.readouterr().err
  assert "do not tell std; expected" in told and "--set mean=0.4914" in told
  assert told.count("\n") == 1 and not (tmp_path / "saved").exists()


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


def test_what_a_pipeline_says_that_it_predicts_is_recorded(tmp_path, capsys):
  fixture, _ = load_fixture("diffusers_unet")
  (tmp_path / "unet").mkdir()
  (tmp_path / "scheduler").mkdir()
  (tmp_path / "unet/config.json").write_text(json.dumps(fixture["configs"]["published"]))
  weights = tmp_path / "unet/diffusion_pytorch_model.safetensors"
  safetensors.save_file(pseudo_state_dict(fixture), weights)
  scheduler = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
  (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
  assert run("ddpm_unet", tmp_path, f"--output={tmp_path / 'saved'}") == 0
  assert "It predicts 'v'" in capsys.readouterr().out
  manifest = read_manifest(tmp_path / "saved")
  assert (manifest.predicts, manifest.schedule["num_steps"]) == ("v", 1000)
  assert run("ddpm_unet", tmp_path, f"--output={tmp_path / 'b'}", "--predicts=clean") == 2
  assert "--predicts is clean, and" in capsys.readouterr().err
  scheduler["prediction_type"] = "flow"
  (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
  assert run("ddpm_unet", tmp_path, f"--output={tmp_path / 'b'}") == 2
  assert "predicts 'flow'" in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_what_a_file_predicts_and_its_schedule_are_given(checkpoint, tmp_path):
  flags = ("--predicts=edm", "--sigma_data=0.6", "--schedule", "kind=cosine", "num_steps=400")
  assert run("ddpm_unet", checkpoint[0], f"--output={tmp_path / 'saved'}", *flags) == 0
  manifest = read_manifest(tmp_path / "saved")
  assert (manifest.predicts, manifest.sigma_data) == ("edm", 0.6)
  assert manifest.schedule == {"kind": "cosine", "num_steps": 400}


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["ddpm_unet", "{file}", "--output={new}", "--predicts=flow"], "--predicts is 'flow'; exp"),
    (["ddpm_unet", "{file}", "--output={new}", "--predicts=v"], "and none is known"),
    (["ddpm_unet", "{file}", "--output={new}", "--schedule=num_steps=1"], "num_steps is 1"),
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
