"""Who is a member: seeded, disjoint groups of ids."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np

from diffence_jax.checks import (
  check_choice,
  check_instance,
  check_numbers,
  check_range,
  check_type,
  check_whole,
  shown,
)
from diffence_jax.data.arrays import archive_headers, map_array, read_arrays
from diffence_jax.data.dataset import Dataset
from diffence_jax.data.named_files import files_to_ids
from diffence_jax.disk import check_file
from diffence_jax.rng import MAX_ID


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Five disjoint groups of samples, by id; checked when made.

  Attributes:
    known_members: i64[], members that defender and attacker know as such.
    target_members: i64[], members the attacker is after.
    known_nonmembers: i64[], non-members that both know as such.
    target_nonmembers: i64[], non-members the attacker must tell from the target members.
    reference: i64[], further non-members, for shadow models and for defenses that train on
      non-members.
  """

  known_members: np.ndarray
  target_members: np.ndarray
  known_nonmembers: np.ndarray
  target_nonmembers: np.ndarray
  reference: np.ndarray

  def __post_init__(self):
    for name, ids in self.groups().items():
      ids = check_numbers(name, ids)
      if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(
          f"{name} are {ids.dtype}{list(ids.shape)}; expected ids, integers [n]."
        )
      object.__setattr__(self, name, ids.astype(np.int64, copy=False))
      if len(np.unique(ids)) != len(ids):
        raise ValueError(f"{name} name {len(ids) - len(np.unique(ids))} samples twice.")
      if not len(ids) and name != "reference":
        raise ValueError(f"There are no {name}; every group but reference needs one at least.")
    for (first, a), (second, b) in itertools.combinations(self.groups().items(), 2):
      shared = np.intersect1d(a, b)
      if shared.size:
        raise ValueError(
          f"{first} and {second} share {shared.size} samples, id {shared[0]} among them; "
          "the groups of a split must be disjoint."
        )

  @property
  def members(self) -> np.ndarray:
    """i64[], the classifier's training set: known, then target members."""
    return np.concatenate([self.known_members, self.target_members])

  @property
  def nonmembers(self) -> np.ndarray:
    """i64[], known, then target non-members."""
    return np.concatenate([self.known_nonmembers, self.target_nonmembers])

  def groups(self) -> dict[str, np.ndarray]:
    """Name to ids, for all five groups."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def make_split(
  dataset: Dataset,
  *,
  seed: int,
  num_members: int,
  num_nonmembers: int,
  num_reference: int | None = None,
  known_fraction: float = 0.5,
  nonmembers_from: str = "any",
) -> Split:
  """Draws the groups at random, by id: the order on disk does not matter.

  Args:
    dataset: to divide.
    seed: of the draw.
    num_members: members, known and target together.
    num_nonmembers: non-members, as above.
    num_reference: reference samples; None for all that are left.
    known_fraction: share of members and of non-members that is known, 0 to 1.
    nonmembers_from: "any", or "test": non-members from the source's test part and everything
      else from its training part, as in the paper.

  Returns:
    The split.

  Raises:
    ValueError: too few samples, a group would be empty, or a setting is out of range.
  """
  check_instance("dataset", dataset, Dataset)
  check_whole("seed", seed, 0)
  check_choice("nonmembers_from", nonmembers_from, ("any", "test"))
  check_range("known_fraction", known_fraction, 0.0, 1.0)
  in_test = dataset.part == 1 if nonmembers_from == "test" else None
  pools = [dataset.ids] if in_test is None else [dataset.ids[~in_test], dataset.ids[in_test]]
  rng = np.random.default_rng(seed)
  train, *test = (rng.permutation(np.sort(pool)) for pool in pools)
  members, train = _cut(train, "num_members", num_members, "members")
  if test:
    nonmembers, _ = _cut(
      test[0], "num_nonmembers", num_nonmembers, "non-members, from the test part"
    )
  else:
    nonmembers, train = _cut(train, "num_nonmembers", num_nonmembers, "non-members")
  num_reference = len(train) if num_reference is None else num_reference
  reference, _ = _cut(train, "num_reference", num_reference, "reference samples")
  return Split(*_halve(members, known_fraction), *_halve(nonmembers, known_fraction), reference)


def read_index_file(path: str | Path, dataset: Dataset, *, seed: int = 0) -> Split:
  """Reads an explicit split: that of a checkpoint somebody else trained, say.

  Args:
    path: JSON, `{"members": [ids], "nonmembers": [ids], "reference": [ids]}` (a random half
      of either side is then the known one, whatever their order), or the five groups of
      `Split` by name; or an `.npz` file with these as arrays. Reference may be left out. In
      JSON a sample that is a file may be named by its path, a relative one from the index
      file's folder.
    dataset: that the ids are of.
    seed: of the halving.

  Returns:
    The split.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is damaged, lacks a group, or names samples that are not there.
  """
  check_instance("dataset", dataset, Dataset)
  check_file(path, "set data.index_file to an index file")
  groups = {"reference": np.empty(0, np.int64), **_read_groups(Path(path), dataset)}
  sides, expected = {"members", "nonmembers"}, {f.name for f in dataclasses.fields(Split)}
  if set(groups) == sides | {"reference"}:
    rng = np.random.default_rng(seed)
    for side in sorted(sides):
      ids = rng.permutation(np.sort(groups.pop(side)))
      groups[f"known_{side}"], groups[f"target_{side}"] = _halve(ids, 0.5)
  elif set(groups) != expected:
    raise ValueError(
      f"{path} has the groups {', '.join(sorted(groups))}; expected members and nonmembers, "
      f"or {', '.join(sorted(expected))}."
    )
  try:
    split = Split(**groups)
    dataset.take(np.concatenate(list(split.groups().values())))
  except ValueError as error:
    raise ValueError(f"The index file {path} does not fit: {error}") from error
  return split


def write_index_file(split: Split, path: str | Path) -> None:
  """Writes the five groups as JSON that `read_index_file` reads."""
  check_instance("split", split, Split)
  groups = {name: ids.tolist() for name, ids in split.groups().items()}
  Path(path).write_text(json.dumps(groups))


def _read_groups(path, dataset):
  """Name to ids, as the index file has them."""
  content = (
    _arrays(path, len(dataset.ids)) if path.suffix.lower() in (".npz", ".npy") else _json(path)
  )
  if isinstance(content, list) and _are_bools(content):
    raise _mask(path)
  if not isinstance(content, dict):
    raise ValueError(f"{path} is not a JSON object of lists of ids, but one of another kind.")
  for name, ids in content.items():
    if isinstance(ids, list) and _are_bools(ids):
      raise _mask(path)
    if isinstance(ids, list) and ids and all(type(i) is str for i in ids):
      content[name] = ids = files_to_ids(path, ids, dataset)
    # By type: NumPy would make 1 of true, of 1.5 and of "1".
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i <= MAX_ID for i in ids):
      raise ValueError(
        f"{path}: {name!r} is not a list of whole numbers from 0 to {MAX_ID}; expected ids, or "
        "the paths of image files."
      )
  return {name: np.array(ids, np.int64) for name, ids in content.items()}


def _json(path):
  try:
    # With or without the mark that Windows' editors put first.
    return json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_once)
  except (OSError, ValueError, RecursionError) as error:
    raise ValueError(f"{path} is not a JSON object of lists of ids: {error}.") from error


def _once(pairs):
  """An object of pairs, none of which is silently replaced by a later one."""
  section = dict(pairs)
  if len(section) != len(pairs):
    raise ValueError("a name is there twice")
  return section


def _arrays(path, num):
  """Name to a list, from NumPy's files; their sizes are looked at before they are read."""
  is_single = path.suffix.lower() == ".npy"
  headers = {"": map_array(path)} if is_single else archive_headers(path)
  for name, header in headers.items():
    if header.dtype == bool:
      raise _mask(path)
    if is_single:
      raise ValueError(f"{path} has one array; expected an .npz, with members and nonmembers.")
    if header.ndim != 1 or header.size > num:
      raise ValueError(
        f"{path}: {name} is {header.dtype}{list(header.shape)}; expected ids, at most {num}, "
        "as many as the data have samples."
      )
  return {name: ids.tolist() for name, ids in read_arrays(path, list(headers)).items()}


def _are_bools(values):
  return bool(values) and all(type(value) is bool for value in values)


def _mask(path):
  return ValueError(
    f"{path} has True and False; expected ids, as a mask does not say of which samples and in "
    "which order. Of a mask and the samples' ids in its order: np.savez('split.npz', "
    "members=ids[mask], nonmembers=ids[~mask]); then set data.index_file to that."
  )


def _cut(ids, name, num, what):
  num = check_type(name, num, int)
  if not 0 <= num <= len(ids):
    asked = shown(num)
    raise ValueError(
      f"{name} is {asked}: the split asks for {asked} {what}, and {len(ids)} samples are left."
    )
  return ids[:num], ids[num:]


def _halve(ids, fraction):
  known = round(len(ids) * fraction)
  return ids[:known], ids[known:]
