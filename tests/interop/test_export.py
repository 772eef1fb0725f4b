"""Exported programs, run in a process that can import neither this package nor flax."""

import importlib
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import diffence_jax as dj

SHAPE = (6, 6, 1)
KEY = jax.random.key(5)
# With 4 candidates each, one does not fill a chunk of 6, and five leave the last one unfilled.
SIZES = (1, 5)

ALONE = """
import sys
sys.modules["diffence_jax"] = sys.modules["flax"] = None
from pathlib import Path
import jax, numpy as np
from jax import export

inputs = np.load(sys.argv[1])
answers = {}
for path in map(Path, sys.argv[3:]):
  program = export.deserialize(bytearray(path.read_bytes()))
  predict = jax.jit(program.call)
  for num in set(inputs) - {"key_data"}:
    answers[f"{path.name} {num}"] = predict(inputs["key_data"], inputs[num])
np.savez(sys.argv[2], **answers)
"""


@pytest.fixture(scope="module")
def networks():
  """Small and quick to compile; `test_main.py` exports real ones."""
  hidden, head, kernel = (
    jax.random.normal(jax.random.key(seed), shape)
    for seed, shape in enumerate([(36, 16), (16, 4), (3, 3, 1, 1)])
  )

  @jax.jit
  def predict(key, images):
    return jnp.tanh(images.reshape(images.shape[0], -1) @ hidden) @ head

  def denoise(x, t):
    axes = ("NHWC", "HWIO", "NHWC")
    blurred = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes)
    return 0.2 * blurred + 0.001 * t[:, None, None, None].astype(jnp.float32)

  return predict, denoise


def protect(networks, **changes):
  options = {"num_candidates": 4, "step": 300, "chunk_size": 6, **changes}
  return dj.protect(*networks, dj.linear_schedule(), **options)


@pytest.fixture
def usual_locations():
  """As it is for users: JAX notes where each operation was traced. Here tests go without."""
  before = jax.config.jax_traceback_in_locations_limit
  jax.config.update("jax_traceback_in_locations_limit", 10)
  yield
  jax.config.update("jax_traceback_in_locations_limit", before)


def test_the_file_names_no_path_of_this_machine(networks, tmp_path, usual_locations):
  dj.interop.export(tmp_path / "a", protect(networks), SHAPE, platforms=("cpu",))
  content = (tmp_path / "a").read_bytes()
  for path in (b"diffence_jax/", b"site-packages", b".py", bytes(tmp_path)):
    assert path not in content
  assert jax.config.jax_traceback_in_locations_limit == 10  # as it was


def images_of(num):
  return jax.random.uniform(jax.random.key(num), (num, *SHAPE))


def run_alone(tmp_path, *paths):
  """The programs' logits, (file name, batch size) to f32[N,K]."""
  inputs = {str(num): images_of(num) for num in SIZES}
  np.savez(tmp_path / "in.npz", key_data=jax.random.key_data(KEY), **inputs)
  command = [sys.executable, "-c", ALONE, tmp_path / "in.npz", tmp_path / "out.npz", *paths]
  process = subprocess.run(list(map(str, command)), capture_output=True, text=True)
  assert process.returncode == 0, process.stderr
  with np.load(tmp_path / "out.npz") as answers:
    return {tuple(name.split()): answers[name] for name in answers}


def test_programs_answer_as_the_predictors_do(networks, tmp_path):
  protected = {
    "scenario-3": protect(networks),
    "interval": protect(networks, interval=(1.0, 1.2)),
    "per-input": protect(networks, randomness="per_input", num_ddim_steps=2),
  }
  folder = tmp_path / "programs"
  folder.mkdir()
  for name, predict in protected.items():
    dj.interop.export(folder / name, predict, SHAPE)
  assert {path.name for path in folder.iterdir()} == set(protected)
  answers = run_alone(tmp_path, *folder.iterdir())
  assert len(answers) == len(protected) * len(SIZES)
  for (name, num), logits in answers.items():
    images = images_of(int(num))
    labels = np.argmax(networks[0](None, images), axis=-1)
    np.testing.assert_array_equal(np.argmax(logits, axis=-1), labels)
    np.testing.assert_allclose(logits, protected[name](KEY, images), atol=1e-5)


def test_another_key_draws_other_noise(networks, tmp_path):
  path = tmp_path / "protected.stablehlo"
  dj.interop.export(path, protect(networks), SHAPE, platforms=("cpu",))
  program = jax.export.deserialize(bytearray(path.read_bytes()))
  assert program.platforms == ("cpu",)
  predict, images = jax.jit(program.call), images_of(3)
  one, same, other = (
    predict(jax.random.key_data(jax.random.key(seed)), images) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(one, same)
  assert np.any(one != other)


def test_more_than_a_file_can_hold_is_refused_with_nothing_written(
  networks, tmp_path, monkeypatch
):
  module = importlib.import_module("diffence_jax.interop.export")
  monkeypatch.setattr(module, "_MOST_BYTES", 1000)
  with pytest.raises(ValueError, match=r"The program takes .* GB, nearly all of it weights"):
    dj.interop.export(tmp_path / "a.stablehlo", networks[0], SHAPE)
  assert not list(tmp_path.iterdir())


def test_what_runs_on_the_host_is_refused_with_nothing_written(networks, tmp_path):
  path = tmp_path / "guarded.stablehlo"
  draw = np.random.default_rng(0)
  known = (draw.normal(size=(8, 4)), draw.normal(size=(8, 4)))
  attacker = dj.defense.train_memguard_attacker(KEY, *known, epochs=1)
  guarded = dj.defense.memguard(protect(networks), attacker)
  on_host = lambda key, images: np.asarray(images).sum(axis=(1, 2))
  sized = lambda key, images: images.reshape(len(images), -1)
  for predict in (on_host, sized):
    with pytest.raises(ValueError, match=r"cannot be traced for batches of any size.*host"):
      dj.interop.export(path, predict, SHAPE)
  wrapped = dj.host_predictor(lambda images: images.sum(axis=(1, 2)), 3)
  early = protect(networks, constant_time=False)
  behind = protect((wrapped, networks[1]))
  for predict in (guarded, wrapped, early, behind):
    with pytest.raises(TypeError, match=r"predict runs on the host.*host_predictor, MemGuard"):
      dj.interop.export(path, predict, SHAPE)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "changes, error, match",
  [
    ({"predict": "resnet18"}, TypeError, "predict is a str"),
    ({"image_shape": (6, 6)}, ValueError, r"expected \(height, width, channels\)"),
    ({"image_shape": (6, 0, 1)}, ValueError, r"expected \(height, width, channels\)"),
    ({"platforms": ("gpu",)}, ValueError, r"platforms are \('gpu',\); expected some of"),
    ({"platforms": ()}, ValueError, "expected some of"),
    ({"path": "nowhere/program"}, FileNotFoundError, "no folder .*nowhere"),
    ({"predict": lambda key, images: images}, ValueError, r"expected one, \[N, K\]"),
    ({"predict": lambda key, images: {}}, ValueError, r"expected one, \[N, K\]"),
  ],
)
def test_what_is_not_right_is_refused(tmp_path, changes, error, match):
  flat = lambda key, images: images.reshape(images.shape[0], -1)
  arguments = {"path": "program", "predict": flat, "image_shape": SHAPE, **changes}
  arguments["path"] = tmp_path / arguments["path"]
  with pytest.raises(error, match=match):
    dj.interop.export(**arguments)
  assert not list(tmp_path.iterdir())
