"""Records on disk: what is written is read, and nothing that is damaged is gone on from."""

import errno
import os
import warnings

import numpy as np
import pytest

from diffence_jax.audit.record_files import RecordWriter, join_records, read_model

NUM, PART = 10, 3
RAW = np.random.default_rng(0).normal(size=(4, NUM, 2)).astype(np.float32)
CANDIDATES = np.random.default_rng(1).normal(size=(4, NUM, 5, 2)).astype(np.float32)


def write(folder, axis, until=NUM):
  """Goes on with the record up to some row; returns the row that it began with."""
  folder.mkdir(exist_ok=True)
  writer = RecordWriter(folder, NUM, axis=axis)
  first = writer.done
  while writer.done < until:
    rows = slice(writer.done, writer.done + PART)
    parts = {"raw": RAW, "candidates": CANDIDATES}
    if axis:
      writer.write({name: array[:, rows] for name, array in parts.items()})
    else:
      writer.write({name: array[0, rows] for name, array in parts.items()})
  return first


@pytest.mark.parametrize("axis", [0, 1])
def test_a_record_is_read_as_it_was_written_model_by_model(tmp_path, axis):
  write(tmp_path, axis, until=4)
  assert write(tmp_path, axis) == 6
  for name, array in (("raw", RAW), ("candidates", CANDIDATES)):
    if axis:
      np.testing.assert_array_equal(read_model(tmp_path / f"{name}.npy", 2), array[2])
    else:
      np.testing.assert_array_equal(read_model(tmp_path / f"{name}.npy", None), array[0])


@pytest.mark.parametrize("axis", [0, 1])
def test_parts_are_joined_along_their_rows_over_what_was_half_written(tmp_path, axis):
  arrays = {"raw": RAW, "candidates": CANDIDATES}
  parts, rows_of = [], lambda array, rows: array[:, rows] if axis else array[0, rows]
  for start in range(0, NUM, PART):
    parts.append(tmp_path / str(start))
    parts[-1].mkdir()
    for name, array in arrays.items():
      np.save(parts[-1] / f"{name}.npy", rows_of(array, slice(start, start + PART)))
  write(tmp_path / "joined", axis, until=7)
  join_records(tmp_path / "joined", parts, tuple(arrays), NUM, axis=axis)
  for name, array in arrays.items():
    joined = np.load(tmp_path / "joined" / f"{name}.npy")
    np.testing.assert_array_equal(joined, rows_of(array, slice(None)))


def cut(path):
  path.write_bytes(path.read_bytes()[:-9])


def empty(path):
  path.write_bytes(b"")


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def swap(path):
  path.write_bytes(b"\xff\xfe something else\n" * 50)


def other_shape(path):
  with open(path, "wb") as file:
    np.save(file, np.zeros((NUM, 7), np.float32))


@pytest.mark.parametrize("damage", [cut, empty, flip, swap, os.remove, other_shape])
@pytest.mark.parametrize("name", ["raw.npy", "candidates.npy", "resume/rows.jsonl"])
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_that_are_not_whole_are_written_anew(tmp_path, damage, name, axis):
  write(tmp_path / "whole", axis)
  write(tmp_path / "killed", axis, until=7)
  damage(tmp_path / "killed" / name)
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    first = write(tmp_path / "killed", axis)
  assert first < 9
  # Nothing there at all, as before the first rows, is no damage.
  silent = name.endswith("jsonl") and damage in (empty, os.remove)
  assert silent or "are damaged; they are recorded anew" in str(caught[0].message)
  for file in ("raw.npy", "candidates.npy"):
    whole, resumed = (tmp_path / folder / file for folder in ("whole", "killed"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_a_line_that_was_cut_costs_its_own_rows_only(tmp_path):
  write(tmp_path, 0, until=6)
  log = tmp_path / "resume" / "rows.jsonl"
  log.write_text(log.read_text()[:-5])
  with pytest.warns(UserWarning, match="the rows from 3 on are damaged"):
    assert write(tmp_path, 0) == 3
  np.testing.assert_array_equal(np.load(tmp_path / "raw.npy"), RAW[0])


def test_rows_swapped_between_parts_are_noticed(tmp_path):
  write(tmp_path, 0, until=6)
  record = np.load(tmp_path / "raw.npy", mmap_mode="r+")
  record[:3] = record[3:6]
  record.flush()
  with pytest.warns(UserWarning, match="the rows from 0 on"):
    assert write(tmp_path, 0) == 0


def test_a_full_disk_is_an_error_before_anything_is_mapped(tmp_path, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "posix_fallocate", full)
  with pytest.raises(OSError, match="No space left"):
    write(tmp_path, 0)
  monkeypatch.undo()
  assert write(tmp_path, 0) == 0
