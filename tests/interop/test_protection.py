"""diffence protect: what is written answers as its parts do, and keeps their labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli.command import refused
from models.small_unet import small_unet

import diffence_jax as dj
from diffence_jax.cli import main
from diffence_jax.data.sides import read_side
from diffence_jax.interop.classifier import load_classifier
from diffence_jax.interop.protection import fit_protection

SHAPE = (4, 4, 1)
SMALL = ("--num_candidates=3", "--step=100")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
  """A folder with a linear classifier as a program, a denoiser, and both sides."""
  folder = tmp_path_factory.mktemp("parts")
  draw = np.random.default_rng(0)
  weights = jnp.asarray(draw.normal(size=(16, 3)), jnp.float32)
  predict = lambda key, images: images.reshape(images.shape[0], -1) @ weights
  dj.interop.export(folder / "classifier", predict, SHAPE, platforms=("cpu",))
  network = small_unet()
  variables = dj.models.init(network, jax.random.key(0), SHAPE)
  dj.save_model(folder / "denoiser", network, variables, image_channels=1)
  for name in ("members", "nonmembers"):
    images = draw.integers(0, 256, (30, *SHAPE)).astype(np.uint8)
    np.savez(folder / f"{name}.npz", images=images, labels=np.arange(30) % 3)
  return folder


def command(parts, output, *more):
  paths = {"classifier": "classifier", "diffusion": "denoiser"}
  flags = [f"--{flag}={parts / name}" for flag, name in paths.items()]
  return ["protect", *flags, f"--output={output}", *SMALL, *more]


@pytest.mark.parametrize(
  ("policy", "sides", "options"),
  [
    ("scenario_1", ("members", "nonmembers"), ()),
    ("blend", ("nonmembers",), ("--set", "weight=0.3")),
  ],
)
def test_a_program_keeps_the_labels_and_answers_as_its_parts(
  parts, policy, sides, options, tmp_path, capsys
):
  output = tmp_path / "protected"
  paths = [f"--{side}={parts / side}.npz" for side in sides]
  arguments = command(parts, output, f"--policy={policy}", *paths, *options)
  assert main.run(["diffence", *arguments]) == 0
  said = capsys.readouterr().out
  assert "It changed no label of" in said and (policy != "scenario_1" or "phi in [" in said)
  program = jax.export.deserialize(bytearray(output.read_bytes()))
  known = {side: read_side(parts / f"{side}.npz", side) for side in sides}
  images = next(iter(known.values())).floats[:7]
  key = jax.random.key(3)
  logits = jax.jit(program.call)(jax.random.key_data(key), images)
  classifier = load_classifier(parts / "classifier", SHAPE)
  alone = classifier.predict(key, images)
  np.testing.assert_array_equal(np.argmax(logits, axis=1), np.argmax(alone, axis=1))
  done = fit_protection(
    classifier,
    parts / "denoiser",
    known.get("members"),
    known.get("nonmembers"),
    policy=policy,
    options={"weight": 0.3} if options else {},
    num_candidates=3,
    step=100,
  )
  assert done.label_changes == 0
  np.testing.assert_allclose(logits, done.protected(key, images), atol=1e-4)
  assert np.abs(logits - alone).max() > 1e-3


HOST = "def answer(images):\n  return images.reshape(len(images), -1)[:, :3]\n"


def test_what_does_not_fit_is_refused_with_nothing_written(parts, tmp_path, monkeypatch):
  (parts / "of_numpy.py").write_text(HOST)
  monkeypatch.syspath_prepend(parts)
  output = tmp_path / "protected"
  members = f"--members={parts / 'members.npz'}"
  for arguments, message in (
    (command(parts, output), "There are no known images"),
    (command(parts, output, members, "--policy=blend"), "known non-members, of which none"),
    (command(parts, output, members, "--policy=scenario_4"), "did you mean"),
    (command(parts, output, members, "--set", "width=1"), "has no option 'width'"),
    (command(parts, output, members, "--step=5000"), "step is 5000"),
    (command(parts, tmp_path / "nowhere" / "a", members), "There is no folder"),
    (command(parts, output, members, f"--diffusion={parts}"), "no saved model"),
    (command(parts, parts, members, "--classifier=of_numpy:answer"), "there already"),
    (["protect"], "required: --classifier"),
  ):
    assert message in refused(*arguments), message
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("policy", ["scenario_1", "blend", "constant"])
def test_a_bundle_protects_a_classifier_that_runs_on_the_host(
  parts, policy, tmp_path, monkeypatch, capsys
):
  (parts / "of_numpy.py").write_text(HOST)
  monkeypatch.syspath_prepend(parts)
  output, sides = tmp_path / "bundle", ("members", "nonmembers")
  paths = [f"--{side}={parts / side}.npz" for side in sides]
  arguments = command(parts, output, "--classifier=of_numpy:answer", f"--policy={policy}")
  assert main.run(["diffence", *arguments, *paths]) == 0
  said = capsys.readouterr().out
  assert "It changed no label of" in said and "dj.load_protected(folder, function)" in said
  answer = lambda images: images.reshape(len(images), -1)[:, :3]
  known = [read_side(parts / f"{side}.npz", side) for side in sides]
  done = fit_protection(
    load_classifier("of_numpy:answer", SHAPE),
    parts / "denoiser",
    *known,
    policy=policy,
    num_candidates=3,
    step=100,
  )
  protected, images = dj.load_protected(output, answer), known[0].floats[:7]
  key = jax.random.key(3)
  logits = np.asarray(protected(key, images))
  np.testing.assert_allclose(logits, done.protected(key, images), atol=1e-5)
  np.testing.assert_array_equal(logits.argmax(axis=1), answer(images).argmax(axis=1))
  assert np.abs(logits - answer(images)).max() > 1e-3
  with pytest.raises(ValueError, match="of 3 classes"):
    dj.load_protected(output, lambda images: images.reshape(len(images), -1)[:, :4])
  manifest = output / "bundle.json"
  written = manifest.read_text()
  manifest.write_text(written.replace('"step": 100', '"step": 900'))
  with pytest.raises(ValueError, match="is not what was written"):
    dj.load_protected(output, answer)
  manifest.write_text(written)
  program = output / "policy.stablehlo"
  program.write_bytes(program.read_bytes()[:-1])
  with pytest.raises(ValueError, match="is not what was written"):
    dj.load_protected(output, answer)


def test_there_is_no_bundle(tmp_path):
  with pytest.raises(FileNotFoundError, match="no bundle"):
    dj.load_protected(tmp_path, lambda images: images)
