"""Who is a member: seeded, disjoint groups of ids."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np

from diffence_jax.data.dataset import Dataset


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
    num_nonmembers: non-members, likewise.
    num_reference: reference samples; None for all that are left.
    known_fraction: share of members and of non-members that is known, in (0, 1).
    nonmembers_from: "any", or "test": non-members from the source's test part and everything
      else from its training part, as in the paper.

  Returns:
    The split.

  Raises:
    ValueError: too few samples, or a group would be empty.
  """
  in_test = dataset.part == 1 if nonmembers_from == "test" else None
  pools = [dataset.ids] if in_test is None else [dataset.ids[~in_test], dataset.ids[in_test]]
  rng = np.random.default_rng(seed)
  train, *test = (rng.permutation(np.sort(pool)) for pool in pools)
  members, train = _cut(train, num_members, "members")
  if test:
    nonmembers, _ = _cut(test[0], num_nonmembers, "non-members, from the test part")
  else:
    nonmembers, train = _cut(train, num_nonmembers, "non-members")
  num_reference = len(train) if num_reference is None else num_reference
  reference, _ = _cut(train, num_reference, "reference samples")
  return Split(*_halve(members, known_fraction), *_halve(nonmembers, known_fraction), reference)


def read_index_file(path: str, dataset: Dataset) -> Split:
  """Reads an explicit split: that of a checkpoint somebody else trained, say.

  Args:
    path: JSON, `{"members": [ids], "nonmembers": [ids], "reference": [ids]}` (the first half
      of either side is then the known one), or the five groups of `Split` by name; reference
      may be left out.
    dataset: that the ids are of.

  Returns:
    The split.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is damaged, lacks a group, or names samples that are not there.
  """
  try:
    content = json.loads(Path(path).read_text())
    groups = {name: np.asarray(ids, np.int64) for name, ids in content.items()}
  except FileNotFoundError:
    raise FileNotFoundError(f"There is no index file {path} (data.index_file).") from None
  except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
    raise ValueError(f"{path} is not a JSON object of lists of ids: {error}.") from error
  groups.setdefault("reference", np.empty(0, np.int64))
  if {"members", "nonmembers"} <= set(groups):
    for side in ("members", "nonmembers"):
      groups[f"known_{side}"], groups[f"target_{side}"] = _halve(groups.pop(side), 0.5)
  expected = {field.name for field in dataclasses.fields(Split)}
  if set(groups) != expected:
    raise ValueError(
      f"{path} has the groups {', '.join(sorted(groups))}; expected members and nonmembers, "
      f"or {', '.join(sorted(expected))}."
    )
  split = Split(**groups)
  dataset.take(np.concatenate(list(split.groups().values())))
  return split


def write_index_file(split: Split, path: str | Path) -> None:
  """Writes the five groups as JSON that `read_index_file` reads."""
  groups = {name: ids.tolist() for name, ids in split.groups().items()}
  Path(path).write_text(json.dumps(groups))


def _cut(ids, num, what):
  if num > len(ids):
    raise ValueError(f"The split asks for {num} {what}, and {len(ids)} samples are left.")
  return ids[:num], ids[num:]


def _halve(ids, fraction):
  known = round(len(ids) * fraction)
  return ids[:known], ids[known:]
