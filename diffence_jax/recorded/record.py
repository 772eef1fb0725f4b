"""A record of a classifier's answers and of who is a member, read and checked."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from diffence_jax.attacks.ensemble import Ensemble, ensemble_of
from diffence_jax.audit.pool import Pool
from diffence_jax.checks import check_labels, check_numbers
from diffence_jax.data.arrays import archive_headers, map_array, read_arrays
from diffence_jax.data.memory import check_memory
from diffence_jax.disk import check_file
from diffence_jax.named import nearest
from diffence_jax.recorded.outputs import Outputs

# The classifier without a defense of the user's own.
UNDEFENDED = "undefended"
_SAMPLES = ("labels", "is_member", "is_known", "ids", "groups")
_OUTPUTS = ("logits", "probabilities")
_SHADOW_OUTPUTS = ("shadow_logits", "shadow_probabilities")
_KEYS = (*_SAMPLES, *_OUTPUTS, *_SHADOW_OUTPUTS, "shadow_membership")
_DEFENDED = "defended/"
# On each side, so that thresholds can be learnt on one half and tried on the other.
_LEAST = 4


class ShadowOutputs:
  """The answers f32[S,N,Q,K] of shadow models, which are read model by model."""

  def __init__(self, outputs: Outputs):
    """Takes them as they were recorded."""
    self._outputs = outputs

  def __len__(self) -> int:
    return len(self._outputs.values)

  def __getitem__(self, model: int) -> np.ndarray:
    return self._outputs.of_model(model)

  def __iter__(self) -> Iterator[np.ndarray]:
    return (self[model] for model in range(len(self)))


@dataclasses.dataclass(frozen=True, eq=False)
class Recorded:
  """One classifier's answers, with or without a defense.

  Attributes:
    name: of the defense.
    logits: f32[N,Q,K].
    shadows: the shadow models' behind the same defense, f32[S,N,Q,K]; None without.
  """

  name: str
  logits: np.ndarray
  shadows: ShadowOutputs | None


@dataclasses.dataclass(frozen=True, eq=False)
class LogitRecord:
  """All that was recorded of N samples.

  Attributes:
    predictors: the undefended one first.
    labels: i64[N].
    is_member: bool[N].
    is_known: bool[N], whose membership thresholds may be learnt from; None where nothing says.
    ids: [N], whole numbers or text; as they were given, or positions.
    groups: [N], text; None without.
    shadow_membership: bool[S,N]; None without shadow models.
  """

  predictors: tuple[Recorded, ...]
  labels: np.ndarray
  is_member: np.ndarray
  is_known: np.ndarray | None
  ids: np.ndarray
  groups: np.ndarray | None
  shadow_membership: np.ndarray | None

  @property
  def pool(self) -> Pool:
    """The samples as audits take them; nobody is known where nothing says who is."""
    nobody = np.zeros(len(self.labels), bool)
    return Pool(
      ids=np.arange(len(self.labels)),
      labels=self.labels,
      is_member=self.is_member,
      is_known=nobody if self.is_known is None else self.is_known,
      is_canary=nobody,
    )

  @functools.cached_property
  def ensembles(self) -> dict[str, Ensemble]:
    """Predictor to its shadow models, of those that have some; read when they are asked for."""
    return {
      recorded.name: ensemble_of(recorded.shadows, self.shadow_membership, self.labels)
      for recorded in self.predictors
      if recorded.shadows is not None
    }


def read_record(record: str | os.PathLike | Mapping[str, np.ndarray]) -> LogitRecord:
  """Reads and checks a record; see docs/audit_record.md for its arrays.

  Args:
    record: an `.npz` file; a folder of `.npy` files with the same names, of which shadow
      models' answers stay on disk; or a mapping of name to array.

  Raises:
    FileNotFoundError: there is no such file or folder.
    ValueError: it is damaged, holds pickled objects, has arrays of unknown names, or an array
      is missing, misshapen, out of range or NaN.
  """
  arrays = dict(record) if isinstance(record, Mapping) else _read(record)
  defenses = _defenses(arrays)
  for needed in ("labels", "is_member"):
    if needed not in arrays:
      raise ValueError(
        f"The record has no {needed!r}; it has {', '.join(sorted(arrays)) or 'nothing'}. "
        "Expected logits (or probabilities), labels and is_member."
      )
  labels = _labels(arrays["labels"])
  num, shadow_membership = len(labels), arrays.get("shadow_membership")
  is_member = _mask("is_member", arrays["is_member"], (num,))
  is_known = None
  if "is_known" in arrays:
    is_known = _mask("is_known", arrays["is_known"], (num,))
  _check_sides(is_member, is_known)
  if shadow_membership is not None:
    shadow_membership = _shadow_membership(shadow_membership, num)
  predictors = [_recorded(UNDEFENDED, "", arrays, num, shadow_membership)]
  for name in defenses:
    prefix = f"{_DEFENDED}{name}/"
    predictors.append(_recorded(name, prefix, arrays, num, shadow_membership))
  _check_classes(predictors, labels)
  return LogitRecord(
    predictors=tuple(predictors),
    labels=labels,
    is_member=is_member,
    is_known=is_known,
    ids=_ids(arrays.get("ids", np.arange(num)), num),
    groups=_named("groups", arrays["groups"], num).astype(str) if "groups" in arrays else None,
    shadow_membership=shadow_membership,
  )


def _read(path) -> dict[str, np.ndarray]:
  path = Path(path).expanduser()
  if path.is_dir():
    files = sorted(path.rglob("*.npy"))
    return {
      file.relative_to(path).with_suffix("").as_posix(): map_array(file) for file in files
    }
  check_file(path, "expected an .npz with logits, labels and is_member, or a folder of .npy")
  headers = archive_headers(path)
  check_memory(
    f"The arrays of {path}",
    sum(array.nbytes for array in headers.values()),
    f"unpack them once, python -m zipfile -e {path} FOLDER, and audit that folder",
  )
  return read_arrays(path, list(headers))


def _defenses(arrays) -> list[str]:
  """The names of the user's own defenses; raises ValueError on arrays of unknown names."""
  names = {}
  for key in arrays:
    name, _, last = key.removeprefix(_DEFENDED).rpartition("/")
    is_defended = key.startswith(_DEFENDED) and bool(name)
    known = (*_OUTPUTS, *_SHADOW_OUTPUTS) if is_defended else _KEYS
    if (last if is_defended else key) not in known:
      raise ValueError(
        f"The record has an array {key!r}, which is none of those known"
        f"{nearest(last if is_defended else key, known)}"
      )
    if is_defended:
      names[name] = None
  for name in names:
    _check_text("names of defenses", name)
  if UNDEFENDED in names:
    raise ValueError(
      f"A defense is called {UNDEFENDED!r}, as the classifier without one is; expected "
      "another name."
    )
  return list(names)


def _recorded(name, prefix, arrays, num, shadow_membership) -> Recorded:
  key, values = _one_of([prefix + last for last in _OUTPUTS], arrays)
  if values is None:
    raise ValueError(f"The record has no {prefix}logits and no {prefix}probabilities.")
  outputs = Outputs(key, values, are_probabilities=key.endswith("probabilities"))
  outputs.check_shape(("N",), (num,))
  key, values = _one_of([prefix + last for last in _SHADOW_OUTPUTS], arrays)
  shadows = None
  if values is not None:
    if shadow_membership is None:
      raise ValueError(
        f"The record has {key} and no shadow_membership bool[S,N], which says whom each "
        "shadow model was trained with."
      )
    many = Outputs(key, values, are_probabilities=key.endswith("probabilities"))
    many.check_shape(("S", "N"), shadow_membership.shape)
    if many.values.shape[2:] != outputs.values.shape[1:]:
      raise ValueError(
        f"{key} have shape {list(many.values.shape)} beside {outputs.name} "
        f"{list(outputs.values.shape)}; expected the same with S models in front."
      )
    shadows = ShadowOutputs(many)
  elif not prefix and shadow_membership is not None:
    raise ValueError("The record has shadow_membership and no shadow_logits.")
  return Recorded(name, outputs.all(), shadows)


def _one_of(keys, arrays):
  """The one of two arrays that is there, and its name."""
  there = [key for key in keys if key in arrays]
  if len(there) > 1:
    raise ValueError(f"The record has {there[0]} and {there[1]}; expected one of them.")
  if not there:
    return None, None
  (key,) = there
  values = arrays[key]
  # A mapped array stays on disk.
  return key, values if isinstance(values, np.ndarray) else check_numbers(key, values)


def _labels(labels) -> np.ndarray:
  labels = check_numbers("labels", labels)
  if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu":
    raise ValueError(
      f"labels are {labels.dtype}{list(labels.shape)}; expected an array of integers, [N], "
      "such as labels.astype(int) of at least one."
    )
  return np.array(labels, np.int64)


def _mask(name, values, shape) -> np.ndarray:
  values = check_numbers(name, values)
  if values.shape != shape:
    raise ValueError(f"{name} has shape {list(values.shape)}; expected {list(shape)}.")
  others = values[~np.isin(values, (0, 1))]
  if others.size:
    raise ValueError(f"{name} has {others[0]}; expected True and False, or 1 and 0.")
  return np.array(values, bool)


def _shadow_membership(values, num) -> np.ndarray:
  values = check_numbers("shadow_membership", values)
  if values.ndim != 2 or not len(values) or values.shape[1] != num:
    raise ValueError(
      f"shadow_membership has shape {list(values.shape)}; expected [S, {num}], a row for each "
      "of S shadow models."
    )
  membership = _mask("shadow_membership", values, (len(values), num))
  if not (membership.any(axis=0) & ~membership.all(axis=0)).any():
    raise ValueError(
      "shadow_membership never varies: no sample is a member of some shadow models and a "
      "non-member of others, so they tell nothing; expected models trained on different "
      "samples."
    )
  return membership


def _check_sides(is_member, is_known):
  groups = {"": slice(None)}
  if is_known is not None:
    groups = {"known ": is_known, "unknown ": ~is_known}
  least = _LEAST if is_known is None else _LEAST // 2
  for group, chosen in groups.items():
    members = is_member[chosen]
    for side, count in (("members", members.sum()), ("non-members", (~members).sum())):
      if count < least:
        raise ValueError(
          f"The record has {count} {group}{side}; expected at least {least}: figures compare "
          "members with non-members."
        )


def _check_classes(predictors, labels):
  num_classes = predictors[0].logits.shape[-1]
  for recorded in predictors[1:]:
    if recorded.logits.shape[-1] != num_classes:
      raise ValueError(
        f"The answers of {recorded.name!r} have {recorded.logits.shape[-1]} classes, those of "
        f"the undefended classifier {num_classes}."
      )
  check_labels("labels", labels, num_classes)


def _ids(values, num) -> np.ndarray:
  ids = _named("ids", values, num)
  distinct, counts = np.unique(ids, return_counts=True)
  if len(distinct) < num:
    raise ValueError(
      f"{counts.max()} samples have the id {distinct[counts.argmax()]}; expected ids that tell "
      "samples apart, or none."
    )
  return ids


def _named(name, values, num) -> np.ndarray:
  """Ids or groups, whole numbers or text."""
  values = np.asarray(values)
  if values.shape != (num,) or values.dtype.kind not in "iuUS":
    raise ValueError(
      f"{name} are {values.dtype}{list(values.shape)}; expected whole numbers or text, [{num}]."
    )
  if values.dtype.kind == "S":
    values = np.char.decode(values, "utf-8", "surrogateescape")
  # Half a character would end the report halfway through its files.
  for value in values if values.dtype.kind == "U" else ():
    _check_text(name, value)
  return np.array(values)


def _check_text(name, value) -> None:
  try:
    value.encode()
  except UnicodeEncodeError:
    raise ValueError(f"{name} have {str(value)!a}; expected UTF-8 text.") from None
