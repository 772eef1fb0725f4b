"""Samples named by their files, in an index file."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from diffence_jax.data.dataset import Dataset


def files_to_ids(index_file: Path, names: Sequence[str], dataset: Dataset) -> list[int]:
  """The ids of samples that an index file names by their paths.

  Args:
    index_file: relative paths begin at its folder.
    names: paths of image files.
    dataset: with `files`.

  Returns:
    An id each.

  Raises:
    ValueError: the samples are no files, or a path is none of theirs.
  """
  if not dataset.files:
    raise ValueError(
      f"{index_file} names samples by paths, and those of this data source are no files of "
      "their own; expected ids."
    )
  place = _places()
  ids = dict(zip(map(place, dataset.files), dataset.ids.tolist(), strict=True))
  folder, known, missing = index_file.parent, [], []
  for name in names:
    file = place(folder / name)
    known.append(ids.get(file))
    if file not in ids:
      missing.append(file)
  if missing:
    raise ValueError(
      f"{index_file} names {len(missing)} files that are no samples of the data, {missing[0]} "
      "among them; expected paths of image files below data.options.path, relative ones from "
      "the index file's folder."
    )
  return known


def _places():
  """A function to a file's one place, whatever leads to its folder; links to files stay."""
  real = functools.cache(os.path.realpath)
  return lambda path: os.path.join(real(os.path.dirname(path)), os.path.basename(path))
