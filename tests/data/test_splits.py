"""Splits: disjoint, seeded, by id."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence_jax import data
from diffence_jax.data import Split, make_dataset, make_split, read_index_file, write_index_file
from diffence_jax.data.augment import augment


def dataset_of(num, seed=0, num_test=0):
  rng = np.random.default_rng(seed)
  ids = rng.permutation(10 * num)[:num]
  part = np.zeros(num, np.int8)
  part[:num_test] = 1
  images = rng.integers(0, 256, (num, 2, 2, 1)).astype(np.uint8)
  return make_dataset(images, rng.integers(0, 2, num), ids, num_classes=2, part=part)


def equal(a, b):
  return all(np.array_equal(a.groups()[name], b.groups()[name]) for name in a.groups())


@settings(max_examples=60, deadline=None)
@given(
  seed=st.integers(0, 2**31 - 1),
  members=st.integers(4, 40),
  nonmembers=st.integers(4, 40),
  fraction=st.sampled_from([0.25, 0.5, 0.75]),
)
def test_sizes_disjointness_and_independence_of_the_order(seed, members, nonmembers, fraction):
  dataset = dataset_of(100)
  options = dict(
    seed=seed, num_members=members, num_nonmembers=nonmembers, known_fraction=fraction
  )
  split = make_split(dataset, **options)
  assert len(split.known_members) == round(members * fraction)
  assert (len(split.members), len(split.nonmembers)) == (members, nonmembers)
  every = np.concatenate(list(split.groups().values()))
  assert len(np.unique(every)) == len(every) == 100 and set(every) == set(dataset.ids)
  order = np.random.default_rng(seed).permutation(100)
  shuffled = make_dataset(
    dataset.images[order], dataset.labels[order], dataset.ids[order], num_classes=2
  )
  assert equal(make_split(shuffled, **options), split)


def test_the_seed_decides():
  splits = [
    make_split(dataset_of(100), seed=s, num_members=40, num_nonmembers=40) for s in (0, 0, 1)
  ]
  assert equal(splits[0], splits[1]) and not equal(splits[0], splits[2])


def test_nonmembers_can_come_from_the_test_part():
  dataset = dataset_of(100, num_test=30)
  split = make_split(dataset, seed=0, num_members=40, num_nonmembers=30, nonmembers_from="test")
  assert dataset.take(split.nonmembers).part.all()
  assert not dataset.take(split.members).part.any()
  assert not dataset.take(split.reference).part.any() and len(split.reference) == 30


@pytest.mark.parametrize(
  "options, match",
  [
    ({"num_members": 101}, "asks for 101 members, and 100 samples"),
    ({"num_nonmembers": 61}, "asks for 61 non-members, and 60 samples"),
    ({"num_reference": 21}, "asks for 21 reference samples, and 20"),
    ({"nonmembers_from": "test"}, "from the test part, and 0"),
    ({"nonmembers_from": "tset"}, "nonmembers_from is 'tset'; expected one of 'any', 'test'"),
    ({"num_members": -1}, "asks for -1 members"),
    ({"num_reference": -1}, "asks for -1 reference samples"),
    ({"known_fraction": -0.5}, "known_fraction is -0.5; expected a number"),
    ({"known_fraction": float("nan")}, "known_fraction is nan"),
    ({"known_fraction": 0.0}, "There are no known_members"),
    ({"known_fraction": 1.0}, "There are no target_members"),
  ],
)
def test_splits_that_cannot_be_made_say_why(options, match):
  options = {"num_members": 40, "num_nonmembers": 40, **options}
  with pytest.raises(ValueError, match=match):
    make_split(dataset_of(100), seed=0, **options)


def test_shared_samples_are_refused():
  groups = [np.array(ids) for ids in ([1, 2], [3], [4, 5], [6, 2], [7])]
  with pytest.raises(ValueError, match="known_members and target_nonmembers share 1"):
    Split(*groups)
  with pytest.raises(ValueError, match="known_members name 1 samples twice"):
    Split(np.array([1, 1]), *groups[1:3], np.array([6]), groups[4])


def test_index_files(tmp_path):
  dataset, path = dataset_of(100), tmp_path / "split.json"
  split = make_split(dataset, seed=0, num_members=40, num_nonmembers=40)
  write_index_file(split, path)
  assert equal(read_index_file(path, dataset), split)
  archive = tmp_path / "split.npz"
  np.savez(archive, **split.groups())
  assert equal(read_index_file(archive, dataset), split)
  path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as saved by an editor on Windows
  assert equal(read_index_file(path, dataset), split)


def test_an_index_file_of_two_sides_is_halved_at_random(tmp_path):
  dataset, path = dataset_of(100), tmp_path / "split.json"
  ids = np.sort(dataset.ids).tolist()

  def read(members, **options):
    path.write_text(json.dumps({"members": members, "nonmembers": ids[40:70]}))
    return read_index_file(path, dataset, **options)

  halved = read(ids[:40])
  assert (len(halved.known_members), len(halved.target_members)) == (20, 20)
  assert (len(halved.known_nonmembers), len(halved.target_nonmembers)) == (15, 15)
  assert set(halved.members) == set(ids[:40]) and set(halved.nonmembers) == set(ids[40:70])
  assert not len(halved.reference)
  # A file sorted by class, say, must not put other samples into known than into target.
  assert set(halved.known_members) not in (set(ids[:20]), set(ids[20:40]))
  assert equal(read(ids[:40][::-1]), halved)
  assert not equal(read(ids[:40], seed=1), halved)


@pytest.mark.parametrize(
  "content, match",
  [
    ("{", "not a JSON object"),
    ("[1, 2]", "not a JSON object"),
    ("[" * 100_000, "not a JSON object"),
    ("[true, false, true]", "has True and False; expected ids, .*ids\\[mask\\]"),
    ('{"members": [true, false], "nonmembers": [false, true]}', "has True and False; expected"),
    ('{"members": ["5", "6"], "nonmembers": [1, 2]}', "no files of their own; expected ids"),
    ('{"members": [3, 4], "nonmembers": [1.5, 2]}', "'nonmembers' is not a list of whole"),
    ('{"members": [true, 4], "nonmembers": [2, 3]}', "'members' is not a list of whole"),
    ('{"members": [-1, 4], "nonmembers": [2, 3]}', "'members' is not a list of whole"),
    ('{"members": 5, "nonmembers": [2, 3]}', "'members' is not a list of whole"),
    ('{"members": [[1, 2]], "nonmembers": [2, 3]}', "'members' is not a list of whole"),
    ('{"members": [1, 4], "nonmembers": [2, 3], "known_members": [5]}', "has the groups"),
    ('{"members": [1, 4], "members": [2, 3], "nonmembers": [5]}', "a name is there twice"),
    ('{"members": [1, 2]}', "has the groups members, reference; expected"),
    ('{"members": [1, 2, 3, 4], "nonmembers": [1, 5, 6, 7]}', "share 1 samples"),
    ('{"members": [100001, 100002], "nonmembers": [100003, 100004]}', "not in the dataset"),
  ],
)
def test_index_files_that_are_not_right_are_refused(tmp_path, content, match):
  path = tmp_path / "split.json"
  path.write_text(content)
  with pytest.raises(ValueError, match=match):
    read_index_file(path, dataset_of(100))
  with pytest.raises(FileNotFoundError, match=r"no file .*set data.index_file"):
    data.read_index_file(tmp_path / "nowhere.json", dataset_of(100))


def test_a_damaged_index_archive_is_refused(tmp_path):
  path = tmp_path / "split.npz"
  np.savez(path, members=np.arange(4) / 2, nonmembers=np.arange(4))
  with pytest.raises(ValueError, match="'members' is not a list of whole numbers"):
    read_index_file(path, dataset_of(100))
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(ValueError, match=r"cannot be read as an \.npz"):
    read_index_file(path, dataset_of(100))


def test_masks_and_arrays_that_are_too_large_are_refused_before_they_are_read(tmp_path):
  dataset, mask = dataset_of(100), np.arange(100) < 50
  np.save(tmp_path / "mask.npy", mask)
  np.save(tmp_path / "ids.npy", dataset.ids)
  np.savez(tmp_path / "masks.npz", members=mask, nonmembers=~mask)
  np.savez_compressed(tmp_path / "large.npz", members=np.zeros(10**7, int), nonmembers=[1, 2])
  for name, match in (
    ("mask.npy", r"mask.npy has True and False; expected ids"),
    ("masks.npz", r"masks.npz has True and False; expected ids"),
    ("ids.npy", "has one array; expected an .npz"),
    ("large.npz", r"members is int64\[10000000\]; expected ids, at most 100"),
  ):
    with pytest.raises(ValueError, match=match):
      read_index_file(tmp_path / name, dataset)
  # As the error says.
  ids = dataset.ids
  np.savez(tmp_path / "split.npz", members=ids[mask], nonmembers=ids[~mask])
  split = read_index_file(tmp_path / "split.npz", dataset)
  assert set(split.members) == set(ids[mask]) and set(split.nonmembers) == set(ids[~mask])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_an_index_file_that_is_a_pipe_is_never_waited_for(tmp_path):
  os.mkfifo(tmp_path / "split.json")
  with pytest.raises(ValueError, match=r"no regular file; set data.index_file"):
    read_index_file(tmp_path / "split.json", dataset_of(100))


def _whole(**changed):
  images, labels = np.zeros((12, 4, 4, 1), np.uint8), np.arange(12) % 3
  return data.make_dataset(**{"images": images, "labels": labels, **changed})


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: _whole(images=None), "images are a NoneType"),
    (lambda: _whole(images="x"), "images are a str"),
    (lambda: _whole(labels=None), "labels are a NoneType"),
    (lambda: _whole(labels=[[1], [1, 2]]), "labels are no array"),
    (lambda: _whole(ids=list("abcdefghijkl")), "ids are a list"),
    (lambda: _whole(part="test"), "part are a str"),
    (lambda: _whole(num_classes="3"), "num_classes is '3'"),
    (lambda: _whole(num_classes=3.5), "num_classes is 3.5"),
    (lambda: _whole(renumber="no"), "renumber is 'no'"),
    (lambda: _whole().take(None), "ids are a NoneType"),
    (lambda: _whole().take(np.ones(12, bool)), r"ids are bool\[12\]; .* Of a mask"),
    (lambda: _whole().take([[0, 1]]), r"ids are int64\[1, 2\]"),
    (lambda: _split(seed="x"), "seed is 'x'"),
    (lambda: _split(seed=None), "seed is None"),
    (lambda: _split(seed=-1), "seed is -1"),
    (lambda: _split(nonmembers_from=None), "nonmembers_from is None"),
    (lambda: data.Split(None, [1], [2], [3], [4]), "known_members are a NoneType"),
    (lambda: data.Split([0.5], [1], [2], [3], [4]), r"known_members are float64\[1\]"),
    (lambda: data.Split([[0, 9]], [1], [2], [3], [4]), r"known_members are int64\[1, 2\]"),
    (lambda: augment(None, "flip"), "images are a NoneType"),
  ],
)
def test_what_is_no_array_or_number_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def _split(**changed):
  return data.make_split(
    _whole(), **{"seed": 0, "num_members": 4, "num_nonmembers": 4, **changed}
  )


def test_lists_are_taken_for_arrays():
  images, labels = np.zeros((12, 4, 4, 1), np.uint8), np.arange(12) % 3
  found = data.make_dataset(images, labels.tolist(), ids=list(range(12)), part=[False] * 12)
  assert found.digest == data.make_dataset(images, labels).digest
  assert data.Split([0, 1], [2], [3], [4], []).members.tolist() == [0, 1, 2]


def test_what_is_no_dataset_split_or_path_is_named(tmp_path):
  for call, message in (
    (
      lambda: data.make_split(None, seed=0, num_members=1, num_nonmembers=1),
      "dataset is a N",
    ),
    (lambda: data.write_index_file(None, tmp_path / "a.json"), "split is a NoneType"),
    (lambda: data.read_index_file(None, _whole()), "path is a NoneType"),
    (lambda: data.read_index_file(tmp_path, (1, 2)), "dataset is a tuple"),
  ):
    with pytest.raises(TypeError, match=message):
      call()
