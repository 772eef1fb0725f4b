"""`curves.npz`: the ROC curves of a report, for others to draw again. Shows no sample."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffence_jax.data.arrays import archive_headers, read_arrays
from diffence_jax.disk import write_atomically

FILE = "curves.npz"
# More points than any audit of so many samples has; larger files are no curves.
_MAX_POINTS = 50_000_000


class Curve(NamedTuple):
  """A ROC curve.

  Attributes:
    fpr: f64[P], false positive rates in [0, 1], rising.
    tpr: f64[P], true positive rates, rising with them.
  """

  fpr: np.ndarray
  tpr: np.ndarray


def write_curves(arrays: Mapping[str, np.ndarray], folder: Path) -> None:
  """Writes the curves among the arrays of a report, whole or not at all.

  Args:
    arrays: as `render_page` takes them; `p/fpr` and `p/tpr` of every predictor p are written.
    folder: for `curves.npz`.
  """
  curves = {n: a for n, a in sorted(arrays.items()) if n.endswith(("/fpr", "/tpr"))}
  content = io.BytesIO()
  np.savez_compressed(content, **curves)
  write_atomically(folder / FILE, content.getvalue())


def read_curves(path: str | os.PathLike) -> dict[str, Curve]:
  """Predictor to the ROC of its strongest attack.

  Raises:
    ValueError: the file is damaged, or holds something else.
  """
  headers = archive_headers(path)
  names = [name.removesuffix("/fpr") for name in headers if name.endswith("/fpr")]
  pairs = {name: (f"{name}/fpr", f"{name}/tpr") for name in names}
  for name, pair in pairs.items():
    shapes = [headers[one].shape if one in headers else None for one in pair]
    is_curve = shapes[0] == shapes[1] and len(shapes[0]) == 1 and shapes[0][0] >= 2
    if not is_curve or shapes[0][0] > _MAX_POINTS:
      raise ValueError(f"{path} has shapes {shapes} for {name!r}; expected two of one length.")
  arrays = read_arrays(path, [one for pair in pairs.values() for one in pair])
  curves = {name: Curve(*(arrays[one] for one in pair)) for name, pair in pairs.items()}
  for name, curve in curves.items():
    if not all(_is_rate(values) for values in curve):
      raise ValueError(
        f"{path} has a curve of {name!r} that is no ROC; expected rates that rise from 0 to 1."
      )
  return curves


def _is_rate(values):
  if values.dtype.kind != "f":
    return False
  # NaN compares as False.
  return bool(values[0] >= 0.0 and values[-1] <= 1.0 and np.all(np.diff(values) >= 0.0))
