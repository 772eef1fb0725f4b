"""TensorFlow Datasets, read without TensorFlow."""

import re

import numpy as np

from diffence_jax.data.dataset import Dataset, make_dataset


def load(
  name: str,
  data_dir: str | None = None,
  train_split: str = "train",
  test_split: str | None = "test",
) -> Dataset:
  """Reads a dataset that has been prepared in a random-access format.

  Args:
    name: of the dataset, for example "cifar10", "cifar100" or "svhn_cropped".
    data_dir: where it has been prepared; None for TFDS's own place.
    train_split: its training part.
    test_split: its test part; None if it has none.

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
    parts = [_read(builder.as_data_source(split=split)) for split in splits]
  except NotImplementedError as error:
    # TFDS refuses to prepare a second format in the same place.
    raise FileNotFoundError(
      f"The dataset {name!r} is in {builder.data_path} as {builder.info.file_format.value}, "
      "which only TensorFlow reads, and TFDS keeps one format in a place. In another: "
      + _how_to_prepare(name, "data/array_record")
    ) from error
  except (RuntimeError, OSError) as error:
    raise ValueError(f"The dataset in {builder.data_path} is damaged: {error}") from error
  start, ids = 0, []
  for _, _, part_ids in parts:
    ids.append(start + part_ids)
    start = int(ids[-1].max()) + 1
  return make_dataset(
    np.concatenate([images for images, _, _ in parts]),
    np.concatenate([labels for _, labels, _ in parts]),
    np.concatenate(ids),
    num_classes=getattr(features["label"], "num_classes", None),
    part=np.repeat(np.arange(len(parts)), [len(labels) for _, labels, _ in parts]),
  )


def _read(source):
  """Images, labels and ids, from 0, of one split."""
  images, labels, ids = [], [], []
  for position, example in enumerate(source):
    images.append(np.asarray(example["image"]))
    labels.append(int(example["label"]))
    ids.append(_number(example["id"]) if "id" in example else position)
  if len({image.shape for image in images}) > 1:
    raise ValueError("The images differ in size; expected all of one size.")
  return np.stack(images), np.array(labels), np.array(ids, np.int64)


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
    "Prepare it once, with TensorFlow for that one step: pip install 'diffence_jax[tfds]', "
    "then\n"
    f'  python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}{where}, '
    "file_format='array_record').download_and_prepare()\"\n"
    "and set data.options.data_dir to where it is."
  )
