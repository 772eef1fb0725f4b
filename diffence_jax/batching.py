"""Batches of one size, so that whatever takes them is compiled once; and bytes as floats."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

# (examples in every group, seed, batches already drawn) -> group to rows i64[B], endlessly.
Batches = Callable[
  [Mapping[str, int], int | Sequence[int], int], Iterator[dict[str, np.ndarray]]
]


def to_float(images: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
  """8-bit images, NumPy's or JAX's, as float32 in [0, 1]."""
  return images.astype(np.float32) / np.float32(255.0)


def to_bytes(images: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
  """Images in [0, 1], NumPy's or JAX's, as the nearest of 256 levels, uint8."""
  return (images * 255.0).round().astype(np.uint8)


def filled(start: int, size: int, total: int) -> np.ndarray:
  """The rows i64[size] from `start` on, with the last of `total` rows repeated beyond it."""
  return np.minimum(np.arange(start, start + size), total - 1)


def even_size(total: int, size: int, multiple: int = 1) -> int:
  """The size of batches, at most `size`, that leaves little of the last one to be filled up.

  Args:
    total: rows in all, at least 1.
    size: the most rows of a batch.
    multiple: the size is rounded up to a multiple of this.
  """
  size = -(-total // -(-total // size))
  return -(-size // multiple) * multiple


def batches(total: int, size: int, first: int = 0) -> Iterator[tuple[np.ndarray, int]]:
  """Goes through `total` rows in batches of one size.

  Args:
    total: rows in all.
    size: rows of every batch.
    first: the row to begin with.

  Yields:
    Rows i64[size], and how many of them are not repetitions that fill the last batch.
  """
  for start in range(first, total, size):
    yield filled(start, size, total), min(size, total - start)


def in_batches(
  function: Callable[[np.ndarray], jax.Array], total: int, size: int
) -> np.ndarray:
  """`function` of all rows up to `total`, called on the same number of them every time."""
  parts = [function(rows) for rows, _ in batches(total, min(size, total))]
  return np.concatenate(jax.device_get(parts))[:total]


def cut(num: int, sizes: list[int]) -> Iterator[tuple[slice, int]]:
  """Cuts `num` rows into parts, each for a batch of one of a few sizes.

  Args:
    num: rows.
    sizes: falling.

  Yields:
    A part, and the size of its batch; only the last part may be shorter than its batch.
  """
  start = 0
  while start < num:
    size = next((size for size in sizes if size <= num - start), sizes[-1])
    yield slice(start, min(start + size, num)), size
    start += size


def round_up(num: int, bits: int) -> int:
  """The least number, at least `num`, of which but the first `bits` binary digits are 0."""
  grain = 1 << max(0, num.bit_length() - bits)
  return -(-num // grain) * grain


def fill_devices(num: int, num_devices: int, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Which rows of `num` fill a batch of `size` on every device, and where each one is then.

  Every device has equally many first, the last ones repetitions of the last row.

  Args:
    num: rows.
    num_devices: D.
    size: rows of every device, at least num / D.

  Returns:
    Rows i64[D * size], and the places i64[num] of every row among them.
  """
  share = -(-num // num_devices)
  each = filled(0, size, share)
  rows = np.arange(num_devices)[:, None] * share + each[None]
  at = np.arange(num)
  return np.minimum(rows.ravel(), num - 1), at // share * size + at % share


def index_batches(
  num_examples: int, batch_size: int, seed: int | Sequence[int], first_step: int = 0
) -> Iterator[np.ndarray]:
  """Batches of indices from one endless stream of shuffled epochs.

  A batch may span two epochs, so all batches are full, every example is seen equally often,
  and the compiled step has one shape.

  Args:
    num_examples: examples to draw from, at least 1.
    batch_size: indices in a batch.
    seed: of the shuffles, one number or several; epoch e is shuffled by (seed, e).
    first_step: the step to start from.

  Yields:
    i64[batch_size].
  """
  position = first_step * batch_size
  epoch, order = -1, np.empty(0, np.int64)
  while True:
    parts, missing = [], batch_size
    while missing:
      if position // num_examples != epoch:
        epoch = position // num_examples
        order = np.random.default_rng([*np.atleast_1d(seed), epoch]).permutation(num_examples)
      offset = position % num_examples
      parts.append(order[offset : offset + missing])
      position += len(parts[-1])
      missing -= len(parts[-1])
    yield np.concatenate(parts)


def shuffled(**batch_sizes: int) -> Batches:
  """Batches drawn by `index_batches` from every group of examples that a step looks at.

  Args:
    **batch_sizes: group ("members", "reference") to how many of its examples a step sees.

  Returns:
    `(num_examples, seed, first) -> batches`.
  """

  def batches(num_examples, seed, first):
    seed = list(np.atleast_1d(seed))
    # The groups' orders differ: each but the first has one more number in its seed, past all
    # epochs.
    streams = [
      index_batches(num_examples[group], size, seed + [2**31 + i] * (i > 0), first)
      for i, (group, size) in enumerate(batch_sizes.items())
    ]
    for rows in zip(*streams, strict=True):
      yield dict(zip(batch_sizes, rows, strict=True))

  return batches
