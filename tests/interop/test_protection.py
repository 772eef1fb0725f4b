"""diffence protect: what is written answers as its parts do, and keeps their labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli.command import refused

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
  network = dj.models.make_denoiser(
    "ddpm_unet", out_channels=1, channels=8, multipliers=(1,), attention_levels=()
  )
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
    (command(parts, output, members, "--classifier=of_numpy:answer"), "runs on the host"),
    (["protect"], "required: --classifier"),
  ):
    assert message in refused(*arguments), message
  assert not list(tmp_path.iterdir())
