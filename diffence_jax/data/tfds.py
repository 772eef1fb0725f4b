"""TensorFlow Datasets, read without TensorFlow."""

import contextlib
import math
import re

import numpy as np

from diffence_jax.checks import FilePath
from diffence_jax.data.dataset import Dataset, make_dataset
from diffence_jax.data.memory import check_memory
from diffence_jax.data.streaming import StreamedImages


def load(
  name: str,
  data_dir: FilePath | None = None,
  train_split: str = "train",
  test_split: str | None = "test",
  in_memory: bool = True,
) -> Dataset:
  """Reads a dataset that has been prepared in a random-access format.

  Args:
    name: of the dataset, for example "cifar10", "cifar100" or "svhn_cropped".
    data_dir: where it has been prepared; None for TFDS's own place.
    train_split: its training part.
    test_split: its test part; None if it has none.
    in_memory: whether all images are decoded now and kept; False decodes them whenever they
      are asked for (but of parquet, TFDS keeps the encoded ones in memory).

  Returns:
    The training part, then the test part. An id is the number in the feature `id` where there
    is one (CIFAR's is the original index), else the position on disk; the test part's ids
    follow the training part's.

  Raises:
    FileNotFoundError: the dataset is not there, or in a format that only TensorFlow reads;
      says how to prepare it. Nothing is ever downloaded.
    ValueError: it has no such split or not the features `image` and `label`, or is damaged.
  """
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    prepared = builder.data_path.exists()
  except (tfds.core.DatasetNotFoundError, ImportError):
    prepared = False
  except Exception as error:  # An AssertionError for a version, a ParseError for damage, ...
    raise ValueError(f"The dataset {name!r} cannot be opened: {error}") from error
  if not prepared:
    raise FileNotFoundError(
      f"The dataset {name!r} has not been prepared for reading without TensorFlow. "
      + _how_to_prepare(name, data_dir)
    )
  splits = [split for split in (train_split, test_split) if split]
  for split in splits:
    if split not in builder.info.splits:
      raise ValueError(
        f"{name} has no split {split!r}; it has {', '.join(sorted(builder.info.splits))}."
      )
  features = builder.info.features
  if "image" not in features or "label" not in features:
    raise ValueError(
      f"{name} has the features {', '.join(features)}; expected image and label."
    )
  try:
    with _damage_named(builder):
      labels, ids = zip(*(_read_labels(builder, split) for split in splits), strict=True)
      images = _stream(builder, splits)
      if in_memory:
        remedy = "set data.options.in_memory=False"
        check_memory(f"The images of {name}", math.prod(images.shape), remedy)
        images = np.asarray(images)
  except NotImplementedError as error:
    # TFDS refuses to prepare a second format in the same place.
    raise FileNotFoundError(
      f"The dataset {name!r} is in {builder.data_path} as {builder.info.file_format.value}, "
      "which only TensorFlow reads, and TFDS keeps one format in a place. In another: "
      + _how_to_prepare(name, "data/array_record")
    ) from error
  # The test part's ids follow those of the training part.
  starts = np.cumsum([0, *(of_split.max() + 1 for of_split in ids[:-1])])
  return make_dataset(
    images,
    np.concatenate(labels),
    np.concatenate([start + of_split for start, of_split in zip(starts, ids, strict=True)]),
    num_classes=getattr(features["label"], "num_classes", None),
    part=np.repeat(np.arange(len(splits)), [len(of_split) for of_split in labels]),
  )


def _read_labels(builder, split):
  """Labels and ids, from 0, of one split."""
  import tensorflow_datasets as tfds

  labels, ids = [], []
  undecoded = {"image": tfds.decode.SkipDecoding()}
  for position, example in enumerate(builder.as_data_source(split=split, decoders=undecoded)):
    labels.append(int(example["label"]))
    ids.append(_number(example["id"]) if "id" in example else position)
  return np.array(labels), np.array(ids, np.int64)


def _stream(builder, splits):
  """The images of all splits, one after another."""
  sources = [builder.as_data_source(split=split) for split in splits]
  ends = np.cumsum([len(source) for source in sources])
  shape = np.shape(sources[0][0]["image"])

  def read(rows: np.ndarray) -> np.ndarray:
    images = []
    with _damage_named(builder):
      for source, end in zip(sources, ends, strict=True):
        places = rows[(rows >= end - len(source)) & (rows < end)] - (end - len(source))
        images += [example["image"] for example in source.__getitems__(places.tolist())]
    if any(np.shape(image) != shape for image in images):
      raise ValueError("The images differ in size; expected all of one size.")
    return np.stack(images)

  return StreamedImages(read, (int(ends[-1]), *shape))


@contextlib.contextmanager
def _damage_named(builder):
  """Says where the files are that turn out to be damaged."""
  try:
    yield
  except NotImplementedError:  # a RuntimeError too
    raise
  except (RuntimeError, OSError) as error:
    raise ValueError(f"The dataset in {builder.data_path} is damaged: {error}") from error


def _number(name):
  """The number at the end of an id such as b"train_16399"."""
  text = name.decode() if isinstance(name, bytes) else str(name)
  digits = re.search(r"\d+$", text)
  if not digits:
    raise ValueError(f"The id {text!r} does not end in a number.")
  return int(digits.group())


def _how_to_prepare(name, data_dir):
  where = f", data_dir={data_dir!r}" if data_dir else ""
  return (
    "Prepare it once, with TensorFlow for that one step: pip install -e '.[tfds]', "
    "then\n"
    f'  python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}{where}, '
    "file_format='array_record').download_and_prepare()\"\n"
    "and set data.options.data_dir to where it is."
  )
