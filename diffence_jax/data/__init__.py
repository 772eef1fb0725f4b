"""Data: one file a source, all giving images, labels and stable ids; and splits of them."""

from typing import Any

from diffence_jax.data.augment import augment
from diffence_jax.data.dataset import Dataset, make_dataset
from diffence_jax.data.splits import Split, make_split, read_index_file, write_index_file
from diffence_jax.data.streaming import Images, StreamedImages, view
from diffence_jax.named import Choice, Registry

# `(**options) -> Dataset`.
SOURCES = Registry(
  "data source",
  "data.options.",
  {
    "celeba": "diffence_jax.data.celeba:load",
    "digits": "diffence_jax.data.digits:load",
    "folder": "diffence_jax.data.folder:load",
    "idx": "diffence_jax.data.idx:load",
    "npz": "diffence_jax.data.npz:load",
    "photographs": "diffence_jax.data.photographs:load",
    "tfds": "diffence_jax.data.tfds:load",
    "utkface": "diffence_jax.data.utkface:load",
  },
)

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


def load(source: Choice | str, **options: Any) -> Dataset:
  """Loads a dataset.

  Args:
    source: a choice from `SOURCES`; or a name of it, or "module:function" of a function of your
      own, `(**options) -> Dataset`.
    **options: the source's own, where it is given by name.

  Returns:
    The dataset, in memory unless an option of the source says otherwise.

  Raises:
    ValueError: an unknown source or option, or damaged data.
    FileNotFoundError: the data are not there; says how to get them.
  """
  choice = source if isinstance(source, Choice) else SOURCES.choose(source, options)
  dataset = SOURCES.call(choice)
  if not isinstance(dataset, Dataset):
    raise ValueError(
      f"The {SOURCES.what} {choice.name!r} returned {type(dataset).__name__}, not a Dataset."
    )
  return dataset
