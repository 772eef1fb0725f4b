"""What is on disk is there whole or not at all, and known again."""

import errno
import json
import os

import pytest

from diffence_jax import disk

REMEDY = "Delete it."


def committed(folder, **files):
  partial = folder / "partial"
  for name, content in files.items():
    (partial / name).parent.mkdir(parents=True, exist_ok=True)
    (partial / name).write_text(content)
  disk.commit(partial, folder / "whole", "manifest.json", {"kind": "test"})
  return folder / "whole"


def test_a_file_is_replaced_whole(tmp_path):
  path = tmp_path / "a.txt"
  disk.write_atomically(path, "first")
  with pytest.raises(KeyboardInterrupt), disk.replaced(path) as temporary:
    temporary.write_text("half")
    raise KeyboardInterrupt
  assert path.read_text() == "first"
  disk.write_atomically(path, "später".encode())
  assert path.read_text(encoding="utf-8") == "später"
  assert os.listdir(tmp_path) == ["a.txt"]


def test_links_and_devices_are_not_written_through(tmp_path):
  with pytest.raises(ValueError, match="is there already and is no regular file"):
    disk.write_atomically(tmp_path, "a folder")
  fifo = tmp_path / "fifo"
  os.mkfifo(fifo)
  with pytest.raises(ValueError, match="no regular file"):
    disk.write_atomically(fifo, "x")
  target = tmp_path / "target"
  target.write_text("kept")
  (tmp_path / ".out.tmp").symlink_to(target)
  disk.write_atomically(tmp_path / "out", "new")
  assert target.read_text() == "kept" and (tmp_path / "out").read_text() == "new"


def test_a_folder_is_its_files_without_what_was_for_resuming(tmp_path):
  partial = tmp_path / "partial"
  (partial / disk.RESUME).mkdir(parents=True)
  (partial / disk.RESUME / "state").write_text("to go on from")
  (partial / ".b.tmp").write_text("left by a killed process")
  path = committed(tmp_path, **{"b": "B", "sub/a": "A"})
  assert not partial.exists() and not (path / disk.RESUME).exists()
  content = disk.read_manifest(path, "manifest.json", REMEDY)
  assert content["kind"] == "test" and list(content["files"]) == ["b", "sub/a"]
  disk.verify(path, content, REMEDY)


def test_a_commit_that_was_killed_after_the_manifest_only_renames(tmp_path, monkeypatch):
  with monkeypatch.context() as patch, pytest.raises(OSError):
    patch.setattr(disk.Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    committed(tmp_path, a="A")
  manifest = (tmp_path / "partial" / "manifest.json").read_bytes()
  path = committed(tmp_path)
  assert (path / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("change", ["cut", "delete", "swap"])
def test_any_change_is_found_and_named(tmp_path, change):
  path = committed(tmp_path, a="content")
  file = path / "a"
  if change == "delete":
    file.unlink()
  else:
    file.write_text("content"[:-1] if change == "cut" else "Content")
  content = disk.read_manifest(path, "manifest.json", REMEDY)
  with pytest.raises(disk.ArtifactError, match=rf"^{file} is .* damaged\. Delete it\.$"):
    disk.verify(path, content, REMEDY)


@pytest.mark.parametrize(
  "text",
  ["", "{", "[]", "{}", '{"files": []}', '{"files": {"../a": ""}}', '{"files": {"/a": ""}}'],
)
def test_manifests_that_are_none_are_refused(tmp_path, text):
  path = committed(tmp_path, a="A")
  (path / "manifest.json").write_text(text)
  with pytest.raises(disk.ArtifactError, match=r"manifest.json is no .* damaged"):
    disk.read_manifest(path, "manifest.json", REMEDY)
  (path / "manifest.json").unlink()
  with pytest.raises(disk.ArtifactError, match="is missing"):
    disk.read_manifest(path, "manifest.json", REMEDY)


def test_digests_are_sha256(tmp_path):
  (tmp_path / "empty").write_text("")
  expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
  assert disk.file_digest(tmp_path / "empty") == expected
  path = committed(tmp_path, a="")
  assert json.loads((path / "manifest.json").read_text())["files"] == {"a": expected}


def test_room_is_looked_for_where_a_folder_will_be(tmp_path):
  disk.check_room(tmp_path / "a" / "b", 1)
  with pytest.raises(OSError, match=r"is full: .* MiB are to be written, .* Make room"):
    disk.check_room(tmp_path / "a" / "b", 2**62)
  assert not (tmp_path / "a").exists()


def test_a_full_disk_is_known_in_whosever_words():
  for number in (errno.ENOSPC, errno.EDQUOT):
    assert disk.is_full(OSError(number, "anything"))
    assert disk.is_full(
      ValueError(f"RESOURCE_EXHAUSTED: {os.strerror(number)} [os_error_code]")
    )
  assert not disk.is_full(OSError(errno.EACCES, os.strerror(errno.EACCES)))
  assert not disk.is_full(ValueError("NaN"))


def test_a_file_at_two_places_takes_no_room_twice_and_outlives_its_replacement(tmp_path):
  source, place = tmp_path / "source", tmp_path / "place"
  source.write_text("new")
  place.write_text("old")
  for _ in range(2):
    disk.link_or_copy(source, place)
    assert place.read_text() == "new" and place.samefile(source)
  disk.write_atomically(source, "newer")
  assert place.read_text() == "new"
  disk.link_or_copy(source, place)
  assert place.read_text() == "newer"
  assert {path.name for path in tmp_path.iterdir()} == {"source", "place"}


def test_a_file_system_without_links_gets_a_copy(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.EPERM, "no links here")

  monkeypatch.setattr(os, "link", refuse)
  (tmp_path / "source").write_text("new")
  (tmp_path / "source").chmod(0o600)
  disk.link_or_copy(tmp_path / "source", tmp_path / "place")
  assert (tmp_path / "place").read_text() == "new"
  assert not (tmp_path / "place").samefile(tmp_path / "source")
  assert (tmp_path / "place").stat().st_mode & 0o777 == 0o600
