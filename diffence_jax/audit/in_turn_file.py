"""`scores_in_turn.npz`: attacks' scores with every shadow model as the target. Private."""

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffence_jax.audit.in_turn import pairs_of
from diffence_jax.audit.pool import Pool
from diffence_jax.audit.rows import score_name
from diffence_jax.disk import private_bytes

SCORES_IN_TURN = "scores_in_turn.npz"

# `(predictor, attack, scores f64[S,N])`: takes what one attack says of one predictor.
Keep = Callable[[str, str, np.ndarray], None]


class ScoresInTurn(NamedTuple):
  """What attacks say with every shadow model as the target in turn, at one number of queries.

  Attributes:
    ids: i64[N], the samples' stable ids, canaries last.
    labels: i[N], as training saw them.
    membership: bool[S,N], which model was trained on which sample.
    is_known: bool[N], whose membership attacker and defender were told, of each model.
    is_canary: bool[N].
    is_reported: bool[S,N], the scores that the report's figures are about, the same of each
      model.
    pairs: i64[S]; two models of one number are partners, trained on complementary halves, and
      neither was used to attack the other.
    by_policy: name of a policy, "undefended" among them, or "labels alone", to name of an
      attack to f64[S,N], higher for likelier members, read from the file when it is asked for.
  """

  ids: np.ndarray
  labels: np.ndarray
  membership: np.ndarray
  is_known: np.ndarray
  is_canary: np.ndarray
  is_reported: np.ndarray
  pairs: np.ndarray
  by_policy: Mapping[str, Mapping[str, np.ndarray]]


@contextlib.contextmanager
def written_in_turn(
  path: Path, pool: Pool, membership: np.ndarray, reported: np.ndarray
) -> Iterator[Keep]:
  """Writes a file of scores, one array after another: only one is in memory.

  They are not compressed, which would take 3% off, and stay float64: in float32 some of RMIA's
  largest would be equal, and its AUC not that of the report.

  Args:
    path: the file, which its owner alone can read; there whole or not at all.
    pool: the N samples.
    membership: bool[S,N], of the shadow models.
    reported: bool[N], the samples that figures are about.

  Yields:
    What takes the scores f64[S,N]; no two of the same predictor and attack.
  """
  about = {
    "ids": pool.ids,
    "labels": pool.labels,
    "membership": membership,
    "is_known": pool.is_known,
    "is_canary": pool.is_canary,
    "is_reported": np.tile(reported & ~pool.is_canary, (len(membership), 1)),
    "pairs": pairs_of(membership),
  }
  with private_bytes(path) as file, zipfile.ZipFile(file, "w") as archive:

    def write(name, array):
      with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, array, allow_pickle=False)

    for name, array in about.items():
      write(name, array)
    yield lambda predictor, attack, scores: write(score_name(predictor, attack), scores)


def read_in_turn(path: Path, policies: Mapping[str, str]) -> ScoresInTurn:
  """Reads what `written_in_turn` wrote; the scores themselves later.

  Args:
    path: the file; it is read whenever scores are asked for.
    policies: predictor to the name that its scores get; others keep theirs.
  """
  names: dict[str, dict[str, str]] = {}
  with np.load(path, allow_pickle=False) as arrays:
    about = {name: arrays[name] for name in ScoresInTurn._fields[:-1]}
    for name in arrays.files[len(about) :]:
      predictor, _, attack = name.rpartition("/")
      names.setdefault(policies.get(predictor, predictor), {})[attack] = name
  by_policy = {policy: _OfFile(path, of_attacks) for policy, of_attacks in names.items()}
  return ScoresInTurn(**about, by_policy=by_policy)


class _OfFile(Mapping[str, np.ndarray]):
  """Arrays of a `.npz` file under other names, each read whenever it is asked for."""

  def __init__(self, path: Path, names: Mapping[str, str]):
    self._path, self._names = path, names

  def __getitem__(self, name: str) -> np.ndarray:
    within = self._names[name]
    with np.load(self._path, allow_pickle=False) as arrays:
      return arrays[within]

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __len__(self) -> int:
    return len(self._names)
