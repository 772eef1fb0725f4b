"""Data: one file a source, all giving images, labels and stable ids; and splits of them."""

import importlib
import inspect
from typing import Any

from diffence_jax.config import nearest
from diffence_jax.data.augment import augment
from diffence_jax.data.dataset import Dataset, make_dataset
from diffence_jax.data.splits import Split, make_split, read_index_file, write_index_file
from diffence_jax.data.streaming import Images, StreamedImages, view

SOURCES = ("celeba", "digits", "folder", "idx", "npz", "photographs", "tfds", "utkface")

__all__ = [
  "SOURCES",
  "Dataset",
  "Images",
  "Split",
  "StreamedImages",
  "augment",
  "load",
  "make_dataset",
  "make_split",
  "read_index_file",
  "view",
  "write_index_file",
]


def load(source: str, **options: Any) -> Dataset:
  """Loads a dataset.

  Args:
    source: one of `SOURCES`, the modules of this package.
    **options: what the source's own `load` takes.

  Returns:
    The dataset, in memory unless an option of the source says otherwise.

  Raises:
    ValueError: an unknown source or option, or damaged data.
    FileNotFoundError: the data are not there; says how to get them.
  """
  if source not in SOURCES:
    raise ValueError(f"There is no data source {source!r}{nearest(source, list(SOURCES))}")
  function = importlib.import_module(f"{__name__}.{source}").load
  parameters = inspect.signature(function).parameters
  for option in options:
    if option not in parameters:
      hint = nearest(option, list(parameters)) if parameters else "; it takes none."
      raise ValueError(f"The data source {source!r} has no option {option!r}{hint}")
  for name, parameter in parameters.items():
    if parameter.default is parameter.empty and name not in options:
      raise ValueError(f"The data source {source!r} needs the option data.options.{name}.")
  return function(**options)
