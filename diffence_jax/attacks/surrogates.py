"""Label-only attacks with shadow networks: a gradient of these, and what the target keeps."""

import jax
import jax.numpy as jnp
import numpy as np

from diffence_jax.attacks.attack import View
from diffence_jax.attacks.label_only import predictor_of
from diffence_jax.batching import batches, even_size
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


def share_kept(view: View, asked: np.ndarray) -> np.ndarray:
  """The share f64[N] of the images f32[N,Q,H,W,C] that the target gives the true label."""
  predict, kept = predictor_of(view), np.empty(asked.shape[:2], bool)
  for rows, num in batches(len(asked), even_size(len(asked), BATCH)):
    for query in range(asked.shape[1]):
      answers = np.asarray(jnp.argmax(ask(predict, None, asked[rows, query]), axis=-1))
      kept[rows[:num], query] = (answers == view.labels[rows])[:num]
  return kept.mean(axis=1)
