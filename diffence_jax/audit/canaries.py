"""Canaries: samples that stand for the worst off, one kind a function (Aerni et al. 2024).

A kind is a function `(images u8[n,H,W,C], labels i[n], num_classes, draw, **options) ->
(images u8[n,H,W,C], labels i[n])`: of samples that nothing else is trained on it makes n
canaries, and draws from the NumPy generator `draw` only.

Source: Aerni, Zhang and Tramer, "Evaluations of Machine Learning Privacy Defenses are
Misleading" (arXiv:2404.17399), section 4: which samples are worst off depends on the defense,
so one kind alone may miss its weakness.
"""

import numpy as np

from diffence_jax.data import SOURCES, load
from diffence_jax.named import Choice, Registry, option_key

_HERE = "diffence_jax.audit.canaries"

CANARIES = Registry(
  "kind of canary",
  "canaries",
  {
    "clean": f"{_HERE}:clean",
    "mislabelled": f"{_HERE}:mislabelled",
    "blank": f"{_HERE}:blank",
    "out_of_distribution": f"{_HERE}:out_of_distribution",
  },
  num_args=4,
)


def clean(
  images: np.ndarray, labels: np.ndarray, num_classes: int, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """The samples as they are: what the other kinds are compared with."""
  del num_classes, draw
  return images, labels


def mislabelled(
  images: np.ndarray, labels: np.ndarray, num_classes: int, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """The same images, each with another label than its own."""
  return images, (labels + draw.integers(1, num_classes, len(labels))) % num_classes


def blank(
  images: np.ndarray, labels: np.ndarray, num_classes: int, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Images of one colour each but for +-1 of 255 a pixel, with labels by chance."""
  num, *_, channels = images.shape
  colours = draw.integers(0, 256, (num, 1, 1, channels))
  noise = draw.integers(-1, 2, images.shape)
  blanks = np.clip(colours + noise, 0, 255).astype(np.uint8)
  return blanks, draw.integers(0, num_classes, len(labels))


def out_of_distribution(
  images: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  draw: np.random.Generator,
  *,
  source: str = "photographs",
) -> tuple[np.ndarray, np.ndarray]:
  """Images of another data set, with labels by chance.

  Args:
    images: u8[n,H,W,C]; only their shape matters.
    labels: i[n]; only their number matters.
    num_classes: K.
    draw: of the images and labels.
    source: a name of `data.SOURCES` that needs no options, or module:function; by default
      tiles of the photographs that scikit-learn ships. Images are scaled by taking the nearest
      pixel, channels averaged or repeated: whole numbers, the same on every machine.

  Returns:
    The canaries.

  Raises:
    ValueError: the data set has too few images, or there is no way to as many channels.
  """
  num, height, width, channels = images.shape
  others = load(source).images
  if len(others) < num:
    raise ValueError(
      f"source is {source!r}, which has {len(others)} images; expected at least {num}, one for "
      "each canary of the kind."
    )
  chosen = np.asarray(others[np.sort(draw.permutation(len(others))[:num])])
  rows, columns = (
    (np.arange(size) * 2 + 1) * of // (2 * size)
    for size, of in ((height, chosen.shape[1]), (width, chosen.shape[2]))
  )
  chosen = chosen[:, rows][:, :, columns]
  if 1 not in (channels, chosen.shape[-1]) and channels != chosen.shape[-1]:
    raise ValueError(
      f"source is {source!r}, whose images have {chosen.shape[-1]} channels; expected 1 or "
      f"{channels}."
    )
  if channels < chosen.shape[-1]:
    chosen = np.sum(chosen, axis=-1, keepdims=True, dtype=np.int64) // chosen.shape[-1]
  chosen = np.broadcast_to(chosen, images.shape).astype(np.uint8)
  return chosen, draw.integers(0, num_classes, len(labels))


def _check_source(source: str) -> None:
  try:
    SOURCES.find(source)
  except ValueError as error:
    raise ValueError(f"source is {source!r}. {error}") from error


out_of_distribution.check_options = _check_source


def make_canaries(
  kind: Choice,
  images: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  draw: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
  """The canaries of one kind.

  Args:
    kind: from `CANARIES`.
    images: u8[n,H,W,C], that they are made of.
    labels: i[n].
    num_classes: K.
    draw: of what is drawn.

  Returns:
    u8[n,H,W,C] and i32[n].

  Raises:
    ValueError: what a user's own function returns are no canaries.
  """
  made = CANARIES.call(kind, images, labels, num_classes, draw)
  pair = [np.asarray(values) for values in made] if isinstance(made, tuple) else []
  whole = [values for values in pair if np.issubdtype(values.dtype, np.integer)]
  if [values.shape for values in whole] != [images.shape, labels.shape]:
    raise ValueError(
      f"The kind of canary {kind.name!r} returned something else than whole numbers "
      f"{list(images.shape)} and {list(labels.shape)}; expected (images, labels)."
    )
  for name, values, most in (("images", whole[0], 255), ("labels", whole[1], num_classes - 1)):
    if values.min() < 0 or values.max() > most:
      raise ValueError(
        f"The kind of canary {kind.name!r} returned {name} from {values.min()} to "
        f"{values.max()}; expected 0 to {most}."
      )
  return whole[0].astype(np.uint8), whole[1].astype(np.int32)


def title_of(kind: Choice) -> str:
  """A kind as reports write it: "out of distribution"."""
  return option_key(kind.name).replace("_", " ")
