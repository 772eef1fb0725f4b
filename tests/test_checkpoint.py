"""Checkpoints: the newest that is whole is gone on from, and nothing that is not."""

import shutil
import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffence_jax import checkpoint, parallel
from diffence_jax.checkpoint import Checkpoints


def state_of(step):
  return {
    "w": jnp.full((64, 3), step, jnp.float32),
    "opt": (jnp.asarray(step, jnp.int32), {"m": jnp.full((5,), step, jnp.bfloat16)}),
  }


def test_the_newest_state_comes_back_with_its_dtypes_and_shardings(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  assert checkpoints.latest_step() == 0
  checkpoints.save(3, state_of(3))
  checkpoints.save(6, state_of(6))
  assert [path.name for path in tmp_path.iterdir()] == ["6"]
  again = Checkpoints(tmp_path)
  assert again.latest_step() == 6
  template = parallel.replicate(parallel.batch_mesh(), state_of(0))
  restored = again.restore(template)
  jax.tree.map(np.testing.assert_array_equal, restored, state_of(6))
  for leaf, like in zip(jax.tree.leaves(restored), jax.tree.leaves(template), strict=True):
    assert leaf.dtype == like.dtype and leaf.sharding == like.sharding
  with pytest.raises(RuntimeError, match="step 6 is already in"):
    again.save(6, state_of(6))


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def test_whatever_is_damaged_training_starts_anew_and_says_so(tmp_path):
  Checkpoints(tmp_path / "whole").save(3, state_of(3))
  files = [p for p in (tmp_path / "whole").rglob("*") if p.is_file()]
  assert len(files) > 3
  for file in files:
    for damage in (flip, lambda path: path.unlink()):
      shutil.copytree(tmp_path / "whole", tmp_path / "copy")
      damage(tmp_path / "copy" / file.relative_to(tmp_path / "whole"))
      with pytest.warns(UserWarning, match=r"damaged\. Training goes on without it\."):
        checkpoints = Checkpoints(tmp_path / "copy")
      assert checkpoints.latest_step() == 0
      checkpoints.save(3, state_of(3))
      shutil.rmtree(tmp_path / "copy")


def test_a_checkpoint_of_another_step_or_name_is_not_taken(tmp_path):
  Checkpoints(tmp_path).save(3, state_of(3))
  (tmp_path / "3").rename(tmp_path / "30")
  with pytest.warns(UserWarning, match="is of another step"):
    assert Checkpoints(tmp_path).latest_step() == 0
  Checkpoints(tmp_path).save(3, state_of(3))
  (tmp_path / "3").rename(tmp_path / "three")
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert Checkpoints(tmp_path).latest_step() == 0


def test_killed_while_it_saves_the_one_before_is_there(tmp_path, monkeypatch):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(3, state_of(3))
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(checkpoint.disk, "sync", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    checkpoints.save(6, state_of(6))
  again = Checkpoints(tmp_path)
  assert again.latest_step() == 3
  jax.tree.map(np.testing.assert_array_equal, again.restore(state_of(0)), state_of(3))
  again.save(6, state_of(6))


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path, monkeypatch, capfd):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(3, state_of(3))
  monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
  with pytest.raises(OSError, match=r"is full: .* are to be written, 0\.0 are free"):
    checkpoints.save(6, state_of(6))
  assert capfd.readouterr().err == ""
  monkeypatch.undo()
  again = Checkpoints(tmp_path)
  assert again.latest_step() == 3
  # Where the room goes while it is written: what orbax says then.
  words = "RESOURCE_EXHAUSTED: Failed to write: No space left on device [os_error_code='28']"

  def save(self, path, tree, force):
    path.with_name(f"{path.name}.orbax-checkpoint-tmp").mkdir(parents=True)
    raise ValueError(words)

  monkeypatch.setattr(checkpoint.ocp.StandardCheckpointer, "save", save)
  with pytest.raises(OSError, match=r"is full: .* were to be written"):
    again.save(6, state_of(6))
  assert not list(tmp_path.rglob("*orbax-checkpoint-tmp*"))
  words = "something else"
  with pytest.raises(ValueError, match="something else"):
    again.save(7, state_of(7))


def test_who_only_reads_writes_nothing_of_what_is_whole(tmp_path):
  checkpoints = Checkpoints(tmp_path, writes=False)
  checkpoints.save(3, {"a": np.zeros(2)})
  assert checkpoints.latest_step() == 3 and not list(tmp_path.iterdir())
