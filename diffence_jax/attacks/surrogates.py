"""Label-only attacks with shadow networks: a gradient of these, and what the target keeps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffence_jax.attacks.attack import View
from diffence_jax.attacks.ensemble import Networks
from diffence_jax.attacks.label_only import check_samples, predictor_of
from diffence_jax.attacks.shadow_phi import check_membership
from diffence_jax.batching import batches, even_size, to_float
from diffence_jax.predictor import Predict, ask

# Images at a time; of each all that is asked is kept.
BATCH = 256


@jax.jit
def label_slope(
  predict: Predict, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The gradient f32[n,H,W,C] of every image's cross-entropy, and the logits f32[n,K].

  Args:
    predict: a pytree that JAX can differentiate; its key is None.
    images: f32[n,H,W,C] in [0, 1].
    labels: i[n], below K.
  """

  def total_loss(images):
    logits = predict(None, images)
    rows = jnp.arange(len(images))
    return -jnp.sum(jax.nn.log_softmax(logits)[rows, labels]), logits

  return jax.grad(total_loss, has_aux=True)(images)


def loaded(
  networks: Networks, images: ArrayLike, labels: ArrayLike, num_models: int, **needed: Any
) -> tuple[list[Predict], np.ndarray, np.ndarray, np.ndarray]:
  """The first networks, and who was trained with which sample; all that is given is checked.

  Args:
    networks: shadow networks.
    images: f[N,H,W,C] in [0, 1].
    labels: i[N], true labels.
    num_models: so many at most.
    **needed: of a sample's models, as `check_membership` takes it.

  Returns:
    S predictors, membership bool[S,N], the images, and the labels.

  Raises:
    TypeError: the images are not floating point.
    ValueError: images or labels are not right, or a sample lacks models.
  """
  membership = networks.membership[:num_models]
  predictors = [networks.load(model) for model in range(len(membership))]
  images, labels = check_samples(predictors[0], images, labels)
  shape = (len(predictors), len(images))
  membership = check_membership(membership, shape, **needed)
  return predictors, membership, np.asarray(images), np.asarray(labels)


def share_kept(view: View, changed: Callable[..., np.ndarray], **options: Any) -> np.ndarray:
  """The share f64[N] of changed images that the target gives the true label.

  Args:
    view: what the attacker sees.
    changed: `(networks, images, labels, **options) -> f32[N,Q,H,W,C]`.
    **options: its own.
  """
  asked = changed(view.networks, to_float(np.asarray(view.images)), view.labels, **options)
  predict, kept = predictor_of(view), np.empty(asked.shape[:2], bool)
  for rows, num in batches(len(asked), even_size(len(asked), BATCH)):
    for query in range(asked.shape[1]):
      answers = np.asarray(jnp.argmax(ask(predict, None, asked[rows, query]), axis=-1))
      kept[rows[:num], query] = (answers == view.labels[rows])[:num]
  return kept.mean(axis=1)
