"""One-shot label-only attack (OSLO): each sample changed just so far as turns other models.

Peng, Roh, Maji and Houmansadr (NeurIPS 2024, arXiv:2405.16978). An adversarial change is worked
out on shadow networks without the sample, source models, with a budget that grows until others
of them, validation models, are no longer sure of the label. The target is asked once: who keeps
the label was likely trained on the sample.
"""

import numpy as np
from jax.typing import ArrayLike

from diffence_jax.attacks.attack import View, attack
from diffence_jax.attacks.ensemble import Networks
from diffence_jax.attacks.surrogates import BATCH, label_slope, loaded, share_kept
from diffence_jax.batching import batches, even_size
from diffence_jax.checks import check_range, check_whole
from diffence_jax.metrics.predictions import log_probability

# Of a sample's models without it one in so many validates; 9 sources and 3, as LeakPro has it.
_ONE_IN = 4
# Of the gradients' running sum; as MI-FGSM is published (Dong et al. 2018).
_MOMENTUM = 1.0
# Rows are filled up to a multiple of so many, so that batches are compiled once.
_ROWS = 32


def one_shot_queries(
  networks: Networks,
  images: ArrayLike,
  labels: ArrayLike,
  *,
  num_queries: int = 5,
  num_budgets: int = 80,
  num_steps: int = 5,
  largest: float = 80 / 255,
  least_sure: float = 1e-4,
  num_models: int = 24,
) -> np.ndarray:
  """The images that are asked about: each sample changed until validation models doubt it.

  In budget b of B every pixel may have moved by b/B of the largest change. Iterated signs of
  gradients with momentum (MI-FGSM) raise the mean cross-entropy of the source models within it.
  As soon as the mean probability that the validation models give the true label is at most a
  threshold, the image is as it is asked about; at the end of the last budget, in any case.

  Each threshold is one query, and one point of a ROC curve: `num_queries` of them from just
  below 1 down to `least_sure`, evenly in their logarithms, make it a curve.

  The paper's experiments choose one threshold and say that the kind of transfer attack hardly
  matters. Its text was not at hand: the numbers of models, budgets and steps, the largest
  change and the thresholds are those of LeakPro's implementation; that probabilities are
  averaged and that pixels are bounded singly is ours.

  Args:
    networks: shadow networks, and whom they were trained with. Only OUT models are used: the
      first of four of a sample's in turn validates, the others are sources.
    images: f[N,H,W,C] in [0, 1].
    labels: i[N], true labels.
    num_queries: Q, 1 to 10.
    num_budgets: B, 1 to 1,000.
    num_steps: gradients in each budget, 1 to 100.
    largest: change of a pixel, in units of the images, above 0 and at most 1.
    least_sure: the last threshold, above 0 and below 0.5.
    num_models: the first of the networks, 4 or more, that are used; all if there are fewer.

  Returns:
    f32[N,Q,H,W,C] in [0, 1].

  Raises:
    TypeError: the images are not floating point.
    ValueError: images or labels are not right, an option is out of range, or a sample has
      fewer than two OUT models.
  """
  check_oslo(
    num_queries=num_queries, num_budgets=num_budgets, num_steps=num_steps, largest=largest,
    least_sure=least_sure, num_models=num_models,
  )  # fmt: skip
  predictors, membership, images, labels = loaded(
    networks, images, labels, num_models, online=False, least=2
  )
  outside = ~membership
  validating = outside & (np.cumsum(outside, axis=0) % _ONE_IN == 1)
  thresholds = np.geomspace(least_sure, 1.0, num_queries + 1)[-2::-1]
  asked = np.empty((len(images), num_queries, *images.shape[1:]), np.float32)
  for rows, num in batches(len(images), even_size(len(images), BATCH)):
    sources, judges = (outside & ~validating)[:, rows], validating[:, rows]
    asked[rows[:num]] = _queries(
      predictors, images[rows], labels[rows], sources, judges, thresholds,
      num_budgets, num_steps, largest,
    )[:num]  # fmt: skip
  return asked


def check_oslo(
  *,
  num_queries: int,
  num_budgets: int,
  num_steps: int,
  largest: float,
  least_sure: float,
  num_models: int,
) -> None:
  """Raises ValueError where an option of `attack_oslo` is out of its range."""
  check_whole("num_queries", num_queries, 1, 10)
  check_whole("num_budgets", num_budgets, 1, 1000)
  check_whole("num_steps", num_steps, 1, 100)
  check_range("largest", largest, 1e-6, 1.0)
  check_range("least_sure", least_sure, 1e-12, 0.5)
  check_whole("num_models", num_models, 4, 1_000_000)


@attack("one-shot labels", family="label only", needs=("images", "ask", "networks"),
        in_turn=False, check=check_oslo)  # fmt: skip
def attack_oslo(
  view: View,
  *,
  num_queries: int = 5,
  num_budgets: int = 80,
  num_steps: int = 5,
  largest: float = 80 / 255,
  least_sure: float = 1e-4,
  num_models: int = 24,
) -> np.ndarray:
  """The share of the images of `one_shot_queries` that get the true label, f64[N].

  It asks the target for `num_queries` labels of every sample.
  """
  return share_kept(
    view,
    one_shot_queries,
    num_queries=num_queries,
    num_budgets=num_budgets,
    num_steps=num_steps,
    largest=largest,
    least_sure=least_sure,
    num_models=num_models,
  )


def _queries(
  predictors, images, labels, sources, judges, thresholds, num_budgets, num_steps, largest
):
  """What is asked of a batch, f32[n,Q,H,W,C]; sources and judges are bool[S,n]."""
  asked = np.repeat(images[:, None], len(thresholds), axis=1).astype(np.float32)
  is_open = np.ones((len(images), len(thresholds)), bool)
  now, momentum = images.astype(np.float32), np.zeros(images.shape)
  source_weights, judge_weights = (each / each.sum(axis=0) for each in (sources, judges))
  step = largest / num_budgets
  # Each model is asked about the samples that it was not trained with, as many for all models.
  concerned = {model: np.flatnonzero(row) for model, row in enumerate(sources | judges)}
  concerned = {model: rows for model, rows in concerned.items() if rows.size}
  num_rows = -(-max(map(len, concerned.values())) // _ROWS) * _ROWS
  for turn in range(num_budgets * num_steps):
    slope, sure = np.zeros(images.shape), np.zeros(len(images))
    for model, rows in concerned.items():
      padded, num = np.resize(rows, num_rows), rows.size
      each, logits = label_slope(predictors[model], now[padded], labels[padded])
      slope[rows] += source_weights[model, rows, None, None, None] * np.asarray(each)[:num]
      true = log_probability(np.asarray(logits)[:num], labels[rows])
      sure[rows] += judge_weights[model, rows] * np.exp(true)
    # Until now nobody doubted what is still open.
    is_open &= sure[:, None] > thresholds
    if not is_open.any():
      break
    size = np.abs(slope).mean(axis=(1, 2, 3), keepdims=True)
    momentum = _MOMENTUM * momentum + slope / np.where(size > 0.0, size, 1.0)
    reach = (turn // num_steps + 1) * step
    moved = np.clip(now + step * np.sign(momentum) - images, -reach, reach)
    now = np.clip(images + moved, 0.0, 1.0).astype(np.float32)
    np.copyto(asked, now[:, None], where=is_open[..., None, None, None])
  return asked
