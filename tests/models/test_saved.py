"""Saved models: what was written comes back, whole, or an error that says what is wrong."""

import functools
import json
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffence_jax as dj
from diffence_jax.checkpoint import save_arrays
from diffence_jax.models import init, make_classifier, make_denoiser
from diffence_jax.models import saved as saved_model
from diffence_jax.models.saved import load_model, read_manifest, save_model


def drawn_variables(module, image_shape):
  """Variables of no particular value, without compiling the initialisers."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(
    functools.partial(init, module, image_shape=image_shape), jax.random.key(0)
  )
  return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.fixture(scope="module")
def denoiser():
  """(module, variables) of a small network."""
  module = make_denoiser(
    "ddpm_unet", out_channels=1, channels=4, multipliers=[1], num_res_blocks=0,
    attention_levels=(), time_layout="sin_cos", dtype="bfloat16",
  )  # fmt: skip
  return module, drawn_variables(module, (4, 4, 1))


@pytest.fixture
def saved(denoiser, tmp_path):
  save_model(
    tmp_path / "saved", *denoiser, image_channels=1, kind="published", source={"a.pt": "0" * 64}
  )
  return tmp_path / "saved"


def assert_same(variables, expected):
  assert jax.tree.structure(variables) == jax.tree.structure(expected)
  for leaf, other in zip(jax.tree.leaves(variables), jax.tree.leaves(expected), strict=True):
    assert leaf.dtype == other.dtype
    np.testing.assert_array_equal(leaf, other)


def test_a_model_comes_back(denoiser, saved):
  module, variables = load_model(saved)
  assert module == denoiser[0]
  assert module.multipliers == (1,) and module.dtype == jnp.bfloat16
  assert_same(variables, denoiser[1])


def test_a_classifier_with_statistics_comes_back(tmp_path):
  module = make_classifier("small_resnet", num_classes=3, mean=(0.1, 0.2, 0.3), width=4)
  variables = drawn_variables(module, (8, 8, 3))
  manifest = save_model(tmp_path / "deep" / "er", module, variables, image_channels=3)
  assert (manifest.role, manifest.kind, manifest.name) == (
    "classifier",
    "small_resnet",
    "small_resnet",
  )
  again, loaded = load_model(tmp_path / "deep" / "er")
  assert again == module and {"params", "batch_stats"} == set(loaded)
  assert_same(loaded, variables)


def test_the_manifest_tells_all_but_the_values(denoiser, saved):
  (saved / "variables.npz").unlink()
  manifest = read_manifest(saved)
  assert (manifest.role, manifest.kind, manifest.name) == ("denoiser", "published", "ddpm_unet")
  assert manifest.image_channels == 1 and manifest.source == {"a.pt": "0" * 64}
  assert manifest.fields["multipliers"] == [1] and manifest.fields["dtype"] == "bfloat16"
  assert manifest.make_module() == denoiser[0]
  expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), denoiser[1])
  found = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), manifest.variable_shapes)
  assert found == expected


def test_the_digest_is_that_of_the_network_and_its_variables(denoiser, saved, tmp_path):
  module, variables = denoiser
  digest = read_manifest(saved).digest
  again = save_model(tmp_path / "again", module, variables, image_channels=1)
  assert again.digest == digest
  others = [
    (module.clone(dropout=0.2), variables),
    (module, jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(1), variables)),
  ]
  digests = {
    save_model(tmp_path / str(i), *other, image_channels=1).digest
    for i, other in enumerate(others)
  }
  assert len(digests | {digest}) == 3


def test_a_schedule_is_kept_beside_the_digest_and_checked(denoiser, saved, tmp_path):
  path, schedule = tmp_path / "cosine", {"kind": "cosine", "num_steps": 400}
  save_model(path, *denoiser, image_channels=1, schedule=schedule)
  manifest = read_manifest(path)
  assert manifest.schedule == schedule and read_manifest(saved).schedule is None
  assert manifest.digest == read_manifest(saved).digest  # of the network alone
  text = (path / "model.json").read_text()
  (path / "model.json").write_text(text.replace("400", "500"))
  with pytest.raises(ValueError, match="is not what was written"):
    read_manifest(path)


def test_a_manifest_of_before_schedules_is_read(saved):
  content = json.loads((saved / "model.json").read_text())
  del content["schedule"]
  (saved / "model.json").write_text(json.dumps(content))
  assert read_manifest(saved).schedule is None


COSINE = {"kind": "cosine", "num_steps": 400}


@pytest.mark.parametrize("predicts", ["clean", "v", "edm"])
def test_what_a_network_predicts_is_kept_and_has_to_be_asked_for(
  denoiser, saved, tmp_path, predicts
):
  path, settings = tmp_path / "other", {"image_channels": 1, "schedule": COSINE}
  save_model(path, *denoiser, predicts=predicts, **settings)
  manifest = read_manifest(path)
  assert manifest.predicts == predicts and read_manifest(saved).predicts == "noise"
  assert manifest.sigma_data == (0.5 if predicts == "edm" else None)
  assert manifest.digest != read_manifest(saved).digest  # it is another denoiser
  with pytest.raises(ValueError, match=f"predicts '{predicts}'; expected 'noise'"):
    load_model(path)
  module, variables = load_model(path, predicts=predicts)
  assert module == denoiser[0]
  assert_same(variables, denoiser[1])


def test_a_network_that_predicts_noise_has_the_digest_that_it_always_had(denoiser, saved):
  content = json.loads((saved / "model.json").read_text())
  for name in ("schedule", "predicts", "sigma_data"):
    del content[name]
  (saved / "model.json").write_text(json.dumps(content))
  module, _ = load_model(saved)
  assert module == denoiser[0] and read_manifest(saved).predicts == "noise"


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"predicts": "epsilon"}, "predicts is 'epsilon'; expected one of 'noise', 'clean', 'v'"),
    ({"predicts": "v"}, "and none is known"),
    ({"predicts": "v", "schedule": COSINE, "sigma_data": 0.5}, "sigma_data is of 'edm'"),
    ({"sigma_data": 0.5}, "sigma_data is of 'edm'"),
    ({"predicts": "edm", "schedule": COSINE, "sigma_data": 0.0}, "sigma_data"),
  ],
)
def test_what_no_network_predicts_is_refused(denoiser, tmp_path, settings, message):
  with pytest.raises(ValueError, match=message):
    save_model(tmp_path / "a", *denoiser, image_channels=1, **settings)
  assert not list(tmp_path.iterdir())


def test_a_classifier_predicts_nothing_of_the_kind(tmp_path):
  module = make_classifier("small_resnet", num_classes=2)
  with pytest.raises(ValueError, match="the model is a classifier"):
    save_model(tmp_path / "a", module, {}, image_channels=1, predicts="v", schedule=COSINE)


def test_what_a_later_version_knows_is_named(saved):
  manifest = read_manifest(saved)._replace(predicts="flow")
  content = {"format": 1, "digest": manifest.checksum, **manifest._asdict()}
  (saved / "model.json").write_text(json.dumps(content))
  with pytest.raises(ValueError, match=r"predicts 'flow'; this version .* knows noise, clean"):
    read_manifest(saved)


def test_nothing_is_overwritten(denoiser, saved, tmp_path):
  before = (saved / "model.json").read_bytes()
  (tmp_path / "empty").mkdir()
  (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
  for path in (saved, tmp_path / "empty", tmp_path / "dangling"):
    with pytest.raises(FileExistsError, match="there already, and is not overwritten"):
      save_model(path, *denoiser, image_channels=1)
  assert (saved / "model.json").read_bytes() == before
  assert not list((tmp_path / "empty").iterdir())


def test_a_save_that_fails_leaves_nothing(denoiser, tmp_path, monkeypatch):
  def fail(path, tree):
    save_arrays(path, tree)
    raise OSError("No space left on device")

  monkeypatch.setattr(saved_model, "save_arrays", fail)
  with pytest.raises(OSError, match="No space"):
    save_model(tmp_path / "saved", *denoiser, image_channels=1)
  assert not list(tmp_path.iterdir())


def test_a_killed_save_leaves_no_model(tmp_path):
  """The process dies when the variables are written, before the folder gets its name."""
  program = f"""
import os, signal, jax.numpy as jnp
from diffence_jax import disk, models
from diffence_jax.models import saved as saved_model
disk.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
module = models.make_classifier("small_resnet", num_classes=2)
variables = {{"params": {{"w": jnp.ones(3)}}}}
saved_model.save_model({str(tmp_path / "saved")!r}, module, variables, image_channels=1)
"""
  process = subprocess.run([sys.executable, "-c", program], env=os.environ)
  assert process.returncode == -9
  assert not (tmp_path / "saved").exists()
  with pytest.raises(FileNotFoundError, match="no saved model"):
    load_model(tmp_path / "saved")


def test_what_cannot_be_saved_is_refused(denoiser, tmp_path):
  module, variables = denoiser
  with pytest.raises(ValueError, match="A Dense cannot be saved; expected a module of"):
    save_model(tmp_path / "a", nn.Dense(4), variables, image_channels=1)
  with pytest.raises(ValueError, match=r"head/bias is bfloat16; expected a dtype of"):
    half = jax.tree.map(lambda leaf: np.asarray(leaf, jnp.bfloat16), variables)
    save_model(tmp_path / "a", module, {"params": {"head": half["params"]["head"]}},
               image_channels=1)  # fmt: skip
  with pytest.raises(ValueError, match=r"time_layout is .*, which JSON does not have"):
    save_model(tmp_path / "a", module.clone(time_layout=min), variables, image_channels=1)
  assert not list(tmp_path.iterdir())


def test_missing_folders_and_files_are_named(saved, tmp_path):
  for path in (tmp_path / "nowhere", tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no saved model .*diffence import-torch"):
      load_model(path)
  (saved / "variables.npz").unlink()
  with pytest.raises(ValueError, match=r"variables\.npz is missing.*is damaged"):
    load_model(saved)


@pytest.mark.parametrize("size", [0, 100, -1])
def test_truncated_variables_are_noticed(saved, size):
  path = saved / "variables.npz"
  path.write_bytes(path.read_bytes()[:size])
  with pytest.raises(ValueError, match=r"variables\.npz is not what was written"):
    load_model(saved)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda content: content.update(format=99), r"is of format 99.*reads format 1"),
    (lambda content: content.pop("fields"), "lacks something or holds something else"),
    (lambda content: content.update(more=1), "lacks something or holds something else"),
    (lambda content: content["fields"].update(dropout=0.3), "is not what was written"),
    (lambda content: content.update(role="oracle"), "is not what was written"),
    (lambda content: content["files"].clear(), "is no list of the folder's files"),
    (lambda content: content.pop("digest"), "is not what was written"),
  ],
)
def test_a_changed_manifest_is_noticed(saved, change, message):
  path = saved / "model.json"
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))
  for read in (read_manifest, load_model):
    with pytest.raises(ValueError, match=message):
      read(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", "\xff\xfe"])
def test_a_manifest_that_is_none_is_refused(saved, text):
  (saved / "model.json").write_bytes(text.encode("latin-1"))
  with pytest.raises(ValueError, match=r"model\.json is no (JSON|list of the folder's files)"):
    read_manifest(saved)


@pytest.mark.parametrize(
  "changes, error, message",
  [
    (
      {"module": "resnet18"},
      ValueError,
      "A str cannot be saved; expected a module of resnet18",
    ),
    ({"variables": [1.0]}, TypeError, "variables is a list; expected a Mapping"),
    ({"image_channels": 0}, ValueError, "image_channels is 0; expected a whole number, 1 to"),
    ({"image_channels": None}, ValueError, "image_channels is None; expected a whole number"),
  ],
)
def test_what_is_no_model_is_refused_and_nothing_is_left(tmp_path, changes, error, message):
  module = dj.models.make_classifier("small_resnet", num_classes=3, width=4, stages=(1,))
  given = {"module": module, "variables": {}, "image_channels": 1, **changes}
  with pytest.raises(error, match=message):
    dj.save_model(tmp_path / "saved", **given)
  assert not list(tmp_path.iterdir())
