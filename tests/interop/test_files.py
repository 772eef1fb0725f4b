"""Checkpoint files: what is in them arrives bit for bit, and nothing in them is run."""

import argparse
import datetime
import io
import json
import os
import pathlib
import pickle
import struct
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.load import load_fixture, pseudo_state_dict

from diffence_jax.interop import from_torch
from diffence_jax.interop.files import files_of, read_checkpoint, read_state_dict
from diffence_jax.interop.from_torch import LAYOUTS


@pytest.fixture(scope="module")
def torch():
  return pytest.importorskip("torch", reason="writes checkpoints with torch.save")


@pytest.fixture(scope="module")
def safetensors():
  return pytest.importorskip("safetensors.numpy", reason="writes safetensors files")


@pytest.fixture(scope="module")
def unet():
  """(state dict, variables) of the U-Net fixture."""
  state_dict = pseudo_state_dict(load_fixture("ddpm_unet")[0])
  return state_dict, from_torch("ddpm_unet", state_dict)[1]


def tensors(torch, state_dict):
  return {name: torch.from_numpy(np.array(value)) for name, value in state_dict.items()}


def assert_same(variables, expected):
  assert jax.tree.structure(variables) == jax.tree.structure(expected)
  assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.pth.tar", "A.BIN"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_files_of_torch_give_the_same_state_dict(torch, unet, tmp_path, name, is_zip):
  path = tmp_path / name
  torch.save(tensors(torch, unet[0]), path, _use_new_zipfile_serialization=is_zip)
  read = read_state_dict(path)
  assert list(read) == list(unet[0])
  assert all(np.array_equal(read[key].numpy(), unet[0][key]) for key in read)


def test_files_of_torch_give_the_same_variables(torch, unet, tmp_path):
  torch.save(tensors(torch, unet[0]), tmp_path / "a.pt")
  _, variables = from_torch("ddpm_unet", tmp_path / "a.pt")
  # Not mapped from the file any more: they outlive it.
  (tmp_path / "a.pt").write_bytes(bytes((tmp_path / "a.pt").stat().st_size))
  assert_same(variables, unet[1])


# ResNet-50s have the names of ResNet-18s.
@pytest.mark.parametrize("kind", sorted(set(LAYOUTS) - {"resnet50"}))
def test_every_kind_comes_from_a_checkpoint_as_from_arrays(torch, tmp_path, kind):
  """Wrapped, of data-parallel training; what arrays give is tested against the fixtures."""
  state_dict = pseudo_state_dict(load_fixture(kind)[0])
  parallel = {f"module.{name}": value for name, value in tensors(torch, state_dict).items()}
  torch.save({"epoch": 3, "state_dict": parallel}, tmp_path / "a.pth.tar")
  normalised = {"mean": 0.5, "std": 0.5} if LAYOUTS[kind].required else {}
  module, variables = from_torch(kind, tmp_path / "a.pth.tar", **normalised)
  expected = from_torch(kind, state_dict, **normalised)
  assert module == expected[0]
  assert_same(variables, expected[1])


def test_safetensors_give_the_same_variables(safetensors, unet, tmp_path):
  safetensors.save_file(unet[0], tmp_path / "a.safetensors")
  _, variables = from_torch("ddpm_unet", str(tmp_path / "a.safetensors"))
  assert_same(variables, unet[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_network_in_half_precision_arrives_as_float32(
  torch, safetensors, unet, tmp_path, dtype
):
  half = {name: value.astype(jnp.dtype(dtype)) for name, value in unet[0].items()}
  safetensors.save_file(half, tmp_path / "a.safetensors")
  halves = {
    name: value.to(getattr(torch, dtype)) for name, value in tensors(torch, unet[0]).items()
  }
  torch.save(halves, tmp_path / "a.pt")
  rounded = lambda leaf: np.asarray(leaf).astype(jnp.dtype(dtype)).astype(np.float32)
  expected = jax.tree.map(rounded, unet[1])
  for name in ("a.safetensors", "a.pt"):
    _, variables = from_torch("ddpm_unet", tmp_path / name)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert_same(variables, expected)


@pytest.mark.parametrize("wrapper", ["ema_model", "state_dict", "net_model"])
def test_wrapped_and_prefixed_weights_are_found(torch, unet, tmp_path, wrapper):
  inner = {f"module.{name}": value for name, value in tensors(torch, unet[0]).items()}
  torch.save({wrapper: inner, "step": 5, "optim": {"state": {0: 1.0}}}, tmp_path / "a.pt")
  assert_same(from_torch("ddpm_unet", tmp_path / "a.pt")[1], unet[1])


@pytest.mark.parametrize("beside", ["numpy", "namespace", "path", "array", "time"])
def test_plain_values_beside_the_weights_are_no_hindrance(torch, tmp_path, beside):
  """They are not made: what stands for them holds what they were given."""
  value = {
    "numpy": {"acc": np.float64(93.5), "n": np.int64(3), "half": np.float16(1.5)},
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("runs/a"), best=np.float32(0.5)),
    "path": pathlib.Path("runs/a"),
    "array": np.ones((2, 3)),
    "time": datetime.datetime(2020, 1, 1),
  }[beside]
  for is_zip in (True, False):
    path = tmp_path / f"{is_zip}.ckpt"
    content = {"state_dict": {"w": torch.ones(2)}, "args": value}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    assert list(read_state_dict(path)) == ["w"]
    read = read_checkpoint(path)["args"]
    kinds = argparse.Namespace | pathlib.Path | np.ndarray | datetime.datetime
    assert not isinstance(read, kinds)
    if beside == "numpy":
      assert read == {"acc": 93.5, "n": 3, "half": 1.5}


def test_a_numpy_scalar_of_objects_is_not_made(torch, tmp_path):
  class Scalar:
    def __reduce__(self):
      return np._core.multiarray.scalar, (np.dtype("O"), b"x")

  torch.save({"w": torch.ones(2), "args": Scalar()}, tmp_path / "a.pt")
  assert read_checkpoint(tmp_path / "a.pt")["args"] is None


def test_what_would_run_code_is_refused_and_not_run(torch, tmp_path):
  trace = tmp_path / "it-ran"

  class Malicious:
    def __reduce__(self):
      return os.mkdir, (str(trace),)

  pickle.loads(pickle.dumps(Malicious()))
  assert trace.exists()  # the trap works
  trace.rmdir()
  torch.save({"state_dict": {"w": Malicious()}}, tmp_path / "zip.pt")
  torch.save({"w": Malicious()}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
  with open(tmp_path / "plain.bin", "wb") as handle:
    pickle.dump({"w": Malicious()}, handle, protocol=2)
  torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
  for name in ("zip.pt", "legacy.pth", "plain.bin", "module.pt"):
    with pytest.raises(ValueError, match=r"would run code.*refused.*state_dict\(\)"):
      read_state_dict(tmp_path / name)
    assert not trace.exists()
  with pytest.raises(ValueError, match=r"GLOBAL \S*\.mkdir"):
    read_state_dict(tmp_path / "zip.pt")


def test_a_torch_that_can_be_made_to_run_code_is_not_used(torch, tmp_path, monkeypatch):
  torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
  for version in ("2.5.1", "2.9.1+cpu"):
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(ImportError, match=rf"torch {version[:5]}.* needs 2\.10 or later"):
      read_state_dict(tmp_path / "a.pt")
  monkeypatch.setattr(torch, "__version__", "2.10.0")
  assert list(read_state_dict(tmp_path / "a.pt")) == ["w"]


@pytest.mark.parametrize(("name", "package"), [("a.pt", "torch"), ("a.safetensors", "safeten")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, name, package):
  (tmp_path / name).write_bytes(b"0" * 100)
  monkeypatch.setitem(sys.modules, "torch", None)
  monkeypatch.setitem(sys.modules, "safetensors", None)
  with pytest.raises(ImportError, match=rf"needs the package {package}.*-e '\.\[torch\]'"):
    read_state_dict(tmp_path / name)


@pytest.mark.parametrize("is_zip", [True, False])
def test_damaged_files_of_torch_are_refused(torch, tmp_path, is_zip):
  path = tmp_path / "a.pt"
  torch.save({"w": torch.ones(3000)}, path, _use_new_zipfile_serialization=is_zip)
  content = path.read_bytes()
  for part in (b"", content[:40], content[: len(content) // 2], b"hello world"):
    path.write_bytes(part)
    with pytest.raises(ValueError, match=r"a\.pt is damaged, truncated or no checkpoint"):
      read_state_dict(path)
  start = content.index(b"w") - 20
  path.write_bytes(content[:start] + b"\xff" * 40 + content[start + 40 :])
  with pytest.raises(ValueError, match=r"a\.pt (is damaged|holds more)"):
    read_state_dict(path)


def test_a_flipped_bit_of_a_weight_is_found(torch, tmp_path):
  path = tmp_path / "a.pt"
  torch.save({"w": torch.full((3000,), 1.5)}, path)
  content = bytearray(path.read_bytes())
  content[content.index(np.float32(1.5).tobytes() * 10) + 1000] ^= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r"a\.pt is damaged.*checksum of a/data/0"):
    read_state_dict(path)


def test_a_torchscript_program_is_refused(torch, tmp_path):
  torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
  with pytest.raises(ValueError, match=r"a\.pt is a TorchScript program, which was not run"):
    read_state_dict(tmp_path / "a.pt")


def test_damaged_safetensors_are_refused(safetensors, tmp_path):
  path = tmp_path / "a.safetensors"
  safetensors.save_file({"w": np.ones(3000, np.float32)}, path)
  content = path.read_bytes()
  for part in (b"", content[:-4], content[: len(content) // 2], b"hello world, hello world"):
    path.write_bytes(part)
    with pytest.raises(ValueError, match="is damaged, truncated or no checkpoint"):
      read_state_dict(path)


def test_a_dtype_that_numpy_lacks_is_named(torch, tmp_path):
  save = pytest.importorskip("safetensors.torch", reason="writes a file in 8 bits").save_file
  save({"w": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
  with pytest.raises(ValueError, match=r"'w' in .* is of the type F8_E4M3"):
    read_state_dict(tmp_path / "a.safetensors")["w"].numpy()


def test_other_files_are_told_what_they_are(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"There is no file .*nowhere\.pt"):
    from_torch("ddpm_unet", tmp_path / "nowhere.pt")
  (tmp_path / "model.onnx").write_bytes(b"0")
  with pytest.raises(ValueError, match=r"another ending; expected .*\.pt, .*\.safetensors"):
    from_torch("ddpm_unet", tmp_path / "model.onnx")
  with pytest.raises(ValueError, match="is a folder; expected a checkpoint"):
    read_state_dict(tmp_path)
  (tmp_path / "a.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
  with pytest.raises(ValueError, match="git lfs pull"):
    from_torch("ddpm_unet", tmp_path / "a.pt")


def test_a_file_of_something_else_is_refused(torch, unet, tmp_path):
  torch.save([torch.ones(2)], tmp_path / "list.pt")
  with pytest.raises(TypeError, match=r"is a list; expected a mapping.*ema_model"):
    from_torch("ddpm_unet", tmp_path / "list.pt")
  torch.save(tensors(torch, unet[0]), tmp_path / "unet.pt")
  with pytest.raises(ValueError, match="not the weights of a resnet18"):
    from_torch("resnet18", tmp_path / "unet.pt")
  whole = tensors(torch, unet[0])
  broken = {name: value for name, value in whole.items() if name != "tail.0.weight"}
  torch.save({"ema_model": broken, "net_model": whole}, tmp_path / "broken.pt")
  with pytest.raises(ValueError, match=r"missing: tail\.0\.weight\. Check"):
    from_torch("ddpm_unet", tmp_path / "broken.pt")


@pytest.mark.parametrize(
  "page",
  [b"<!DOCTYPE html>\n<html>", b"\n <html lang='en'>", b"\xef\xbb\xbf<?xml version='1.0'"],
)
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_web_page_is_called_one(tmp_path, page, name):
  (tmp_path / name).write_bytes(page + b"x" * 1000)
  with pytest.raises(ValueError, match="is a web page and not the checkpoint"):
    read_state_dict(tmp_path / name)


@pytest.mark.parametrize("content", [b'{"error": "no"}', b"\x1f\x8b" + bytes(99), bytes(5000)])
def test_files_of_other_kinds_are_no_checkpoints(torch, tmp_path, content):
  (tmp_path / "a.pt").write_bytes(content)
  with pytest.raises(ValueError, match=r"no checkpoint \(ValueError: it does not begin as"):
    read_state_dict(tmp_path / "a.pt")


def test_what_would_wait_for_ever_is_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / "a.pt")
  (tmp_path / "b.pt").symlink_to("/dev/zero")
  for name in ("a.pt", "b.pt"):
    with pytest.raises(ValueError, match="is a device, pipe or socket; expected a checkpoint"):
      read_state_dict(tmp_path / name)


def test_compressed_entries_are_not_unpacked(torch, tmp_path, monkeypatch):
  torch.save({"w": torch.zeros(300_000)}, tmp_path / "a.pt")
  with (
    zipfile.ZipFile(tmp_path / "a.pt") as whole,
    zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
  ):
    for name in whole.namelist():
      packed.writestr(name, whole.read(name))
  assert (tmp_path / "b.pt").stat().st_size < 10_000
  monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda file: pytest.fail("it was unpacked"))
  with pytest.raises(ValueError, match=r"has compressed entries.*it was not unpacked"):
    read_state_dict(tmp_path / "b.pt")


def test_entries_that_share_their_bytes_are_refused(tmp_path):
  """A directory that names one entry many times: larger than the file without compression."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, "w") as file:
    file.writestr("a/data.pkl", bytes(10_000))
    first = file.filelist[0]
    file.filelist.extend([first] * 20)
  (tmp_path / "a.pt").write_bytes(stream.getvalue())
  pytest.importorskip("torch", reason="reads .pt")
  with pytest.raises(ValueError, match="its entries are 210,000 bytes, and the file has"):
    read_state_dict(tmp_path / "a.pt")


def test_a_tensor_larger_than_its_storage_is_refused(torch, tmp_path):
  state_dict = tensors(torch, pseudo_state_dict(load_fixture("resnet18")[0]))
  state_dict["fc.bias"] = torch.zeros(1).expand(len(state_dict["fc.bias"]))
  torch.save(state_dict, tmp_path / "a.pt")
  with pytest.raises(ValueError, match=r"'fc\.bias' is a Tensor.*larger than what is stored"):
    from_torch("resnet18", tmp_path / "a.pt", mean=0.5, std=0.5)


@pytest.mark.parametrize(
  "header",
  [
    {"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 8]}},
    {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8 * 10**12]}},
    {"w": {"dtype": "F32", "shape": [2**62, 16], "data_offsets": [0, 8]}},
    {"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
    {"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
    {"w": 5},
  ],
)
def test_headers_of_safetensors_that_lie_are_refused(safetensors, tmp_path, header):
  text = json.dumps(header).encode()
  path = tmp_path / "a.safetensors"
  for length in (len(text), 2**63, 10**7):
    path.write_bytes(struct.pack("<Q", length) + text + bytes(8))
    with pytest.raises(ValueError, match="is damaged, truncated or no checkpoint"):
      read_state_dict(path)


@pytest.fixture
def shards(safetensors, tmp_path, unet):
  """The index of the U-Net in two files."""
  names = list(unet[0])
  parts = {"a-1.safetensors": names[::2], "a-2.safetensors": names[1::2]}
  for file, own in parts.items():
    safetensors.save_file({name: unet[0][name] for name in own}, tmp_path / file)
  weight_map = {name: file for file, own in parts.items() for name in own}
  path = tmp_path / "a.safetensors.index.json"
  path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
  return path


def test_a_state_dict_in_several_files_is_read_by_its_index(shards, unet):
  assert_same(from_torch("ddpm_unet", shards)[1], unet[1])
  names = ["a.safetensors.index.json", "a-1.safetensors", "a-2.safetensors"]
  assert [file.name for file in files_of(shards)] == names


@pytest.mark.parametrize(
  "text, message",
  [
    ("{", "is damaged"),
    ("[]", "holds a list; expected options"),
    ("[" * 100_000, "is damaged"),
    ("{}", "is damaged"),
    ('{"weight_map": []}', "is damaged"),
    ('{"weight_map": {}}', "names no files"),
    ('{"weight_map": {"w": "../a-1.safetensors"}}', "files outside of its folder"),
    ('{"weight_map": {"w": "/etc/passwd"}}', "files outside of its folder"),
    ('{"weight_map": {"w": 5}}', "names no files"),
    ('{"weight_map": {"w": "a.safetensors.index.json"}}', "an index as well"),
    ('{"weight_map": {"w": "a-1.safetensors"}}', "says that 'w' is in a-1.safetensors"),
  ],
)
def test_an_index_that_is_not_right_is_refused(shards, text, message):
  shards.write_text(text)
  with pytest.raises(ValueError, match=message):
    read_state_dict(shards)


def test_a_missing_file_of_an_index_is_named(shards):
  (shards.parent / "a-2.safetensors").unlink()
  with pytest.raises(
    FileNotFoundError, match=r"names a-2\.safetensors, which is not beside it"
  ):
    read_state_dict(shards)
