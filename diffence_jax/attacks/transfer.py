"""A label-only attack of a few queries: changes that are worked out on shadow models.

Whoever has shadow networks need not look for a sample's decision boundary by asking the target.
The change that turns the sample's label where a network was not trained on it is found on such
networks; the target is asked for the labels of a few images at about that size. Who keeps the
label was likely trained on the sample.
"""

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.ensemble import Networks
from diffence_jax.attacks.surrogates import BATCH, label_slope, loaded, share_kept
from diffence_jax.batching import batches, even_size
from diffence_jax.checks import check_range, check_whole

# The smallest change, as a share of the largest.
_SMALLEST = 0.05


def transferred_changes(
  networks: Networks,
  images: ArrayLike,
  labels: ArrayLike,
  *,
  num_queries: int = 5,
  num_sizes: int = 32,
  largest: float = 0.25,
  num_models: int = 16,
) -> np.ndarray:
  """The images that are asked about: each sample changed as far as turns OUT models' labels.

  A path leads away from every sample. Its sizes grow by one factor, from a twentieth of the
  largest; a step goes by the sign of the gradient of

    mean cross-entropy over half of the OUT models - mean cross-entropy over the IN models,

  so that models without the sample lose its label and those with it keep it. The other OUT
  models say how far to go: to the first size at which at most half of them keep the label, the
  largest if there is none. Asked is about that place on the path and the nearest on either
  side of it, in turn, ends included more than once.

  The idea of one query that is worked out on surrogates, and of surrogates held out to say how
  large a change transfers, is that of OSLO (Peng et al. 2024, arXiv:2405.16978); a query that
  models with and without the sample answer differently is that of YOQO (Wu et al. 2024). Of
  both we have the abstracts: objective, path and sizes are ours.

  Args:
    networks: shadow networks, and whom they were trained with.
    images: f[N,H,W,C] in [0, 1].
    labels: i[N], true labels.
    num_queries: Q, 1 to 10.
    num_sizes: of the path, 2 to 1,000.
    largest: change of a pixel, in units of the images, above 0 and at most 1; finer sizes, and
      so a smaller one where labels turn earlier, tell more.
    num_models: the first of the networks, 2 or more, that are used; all if there are fewer.

  Returns:
    f32[N,Q,H,W,C] in [0, 1].

  Raises:
    TypeError: the images are not floating point.
    ValueError: images or labels are not right, an option is out of range, or a sample has no
      IN or no OUT model.
  """
  check_transfer(
    num_queries=num_queries, num_sizes=num_sizes, largest=largest, num_models=num_models
  )
  predictors, membership, images, labels = loaded(
    networks, images, labels, num_models, online=True
  )
  crafting, judging = _halves(~membership)
  weights = crafting / crafting.sum(axis=0) - membership / membership.sum(axis=0)
  radii = largest * np.geomspace(_SMALLEST, 1.0, num_sizes)
  offsets = np.array([(at + 1) // 2 * (-1) ** at for at in range(num_queries)])
  asked = np.empty((len(images), num_queries, *images.shape[1:]), np.float32)
  for rows, num in batches(len(images), even_size(len(images), BATCH)):
    path, kept = _path(predictors, images[rows], labels[rows], weights[:, rows], radii)
    share = np.sum(kept * judging[:, rows], axis=1) / judging[:, rows].sum(axis=0)
    turned = share <= 0.5
    first = np.where(turned.any(axis=0), turned.argmax(axis=0), num_sizes)
    places = np.clip(first[:, None] + offsets, 0, num_sizes)
    asked[rows[:num]] = path[places, np.arange(len(rows))[:, None]][:num]
  return asked


def check_transfer(
  *, num_queries: int, num_sizes: int, largest: float, num_models: int
) -> None:
  """Raises ValueError where an option of `attack_transfer` is out of its range."""
  check_whole("num_queries", num_queries, 1, 10)
  check_whole("num_sizes", num_sizes, 2, 1000)
  check_range("largest", largest, 1e-6, 1.0)
  check_whole("num_models", num_models, 2, 1_000_000)


@attack("transferred changes", family="label only", needs=("images", "ask", "networks"),
        in_turn=False, check=check_transfer)  # fmt: skip
def attack_transfer(
  view: View,
  *,
  num_queries: int = 5,
  num_sizes: int = 32,
  largest: float = 0.25,
  num_models: int = 16,
) -> np.ndarray:
  """The share of the images of `transferred_changes` that get the true label, f64[N].

  It asks the target for `num_queries` labels of every sample.
  """
  return share_kept(
    view,
    transferred_changes,
    num_queries=num_queries,
    num_sizes=num_sizes,
    largest=largest,
    num_models=num_models,
  )


def _halves(outside):
  """Of every sample's models, bool[S,N], one half and the other; both where there is one."""
  place = np.cumsum(outside, axis=0)
  first, second = outside & (place % 2 == 1), outside & (place % 2 == 0)
  return first, np.where(second.any(axis=0), second, first)


def _path(predictors, images, labels, weights, radii):
  """The path f32[R+1,n,H,W,C], and where models keep labels, bool[R+1,S,n]."""
  path, kept = [images], []
  for step in np.append(np.diff(radii, prepend=0.0), 0.0):
    total, answers = np.zeros(images.shape), []
    for predict, weight in zip(predictors, weights, strict=True):
      slope, logits = label_slope(predict, path[-1], labels)
      total += weight[:, None, None, None] * np.asarray(slope)
      answers.append(np.argmax(np.asarray(logits), axis=-1) == labels)
    kept.append(answers)
    path.append(np.clip(path[-1] + step * np.sign(total), 0.0, 1.0).astype(np.float32))
  return np.stack(path[:-1]), np.array(kept)
