"""The gradient that DP-SGD descends: every example's clipped, noise on their sum.

Gradients and noise are those of `jax_privacy`, of the extra `dp`, imported only where it is
used.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from diffence_jax.rng import own_key
from diffence_jax.training.recipe import cross_entropy, train_logits

# (params, examples, key) -> (gradient like params, metrics): what a step descends.
PrivateGradient = Callable[
  [Any, Mapping[str, jax.Array], jax.Array], tuple[Any, dict[str, jax.Array]]
]

# (images u8[1,H,W,C], key) -> u8[V,H,W,C]: what an example is seen as.
Views = Callable[[jax.Array, jax.Array], jax.Array]


def private_gradient(
  module: nn.Module,
  *,
  clip_norm: float,
  noise_multiplier: float,
  batch_size: int,
  microbatch_size: int | None = None,
  views: Views | None = None,
  weights: Callable[[Any], Any] | None = None,
) -> PrivateGradient:
  """The noisy mean of the clipped gradients of examples' cross-entropies.

  Args:
    module: a classifier without variables but its parameters.
    clip_norm: the most a gradient's L2 norm may be.
    noise_multiplier: standard deviation of the noise, before the division, by `clip_norm`.
    batch_size: what the sum is divided by, however many examples there are.
    microbatch_size: as in `TrainSettings`; a batch need not be a multiple of it.
    views: several of every example, of its image alone, over which its loss is the mean: so the
      gradient that is clipped is the mean of theirs, and one example is still one vector of
      `clip_norm` at most. None for the image as it is.
    weights: parameters to those that the module is applied with; the gradient is of what it is
      given. None for the parameters themselves.

  Returns:
    `(params, examples, key) -> (gradient, metrics)`, for examples {"images" u8[B,H,W,C],
    "labels" i[B], "is_padding" bool[B]}. The metrics, "loss", "accuracy" and "clipped", the
    share of gradients that were too long, are means over the examples that are no padding; 0
    where there are none.
  """
  from jax_privacy import clipping, noise_addition, sharding_utils

  # As `clipped_grad` does it, and with the norms that it finds anyway.
  clipped = clipping.clipped_fun(
    jax.grad(_example_loss(module, views, weights), has_aux=True),
    has_aux=True,
    l2_clip_norm=clip_norm,
    normalize_by=batch_size,
    batch_argnums=1,
    return_norms=True,
    microbatch_size=microbatch_size,
  )

  def sums(params, batch, key):
    """The clipped sum, over batch_size, and sums of metrics, of what one device has."""
    if microbatch_size is not None:
      # Whole microbatches, the last ones of nothing but padding, which are left out.
      size = len(batch["labels"])
      whole = size + -size % microbatch_size
      order = sharding_utils.compute_early_stopping_order(whole, microbatch_size)
      batch = {name: values[np.minimum(order, size - 1)] for name, values in batch.items()}
      batch["is_padding"] |= order >= size
    left_out = {} if microbatch_size is None else {"is_padding_example": batch["is_padding"]}
    gradient, (metrics, norms) = clipped(params, batch, key, **left_out)
    metrics["clipped"] = (norms > clip_norm).astype(jnp.float32)
    metrics["num"] = jnp.ones_like(norms)
    total = lambda values: jnp.sum(jnp.where(batch["is_padding"], 0.0, values))
    return gradient, jax.tree.map(total, metrics)

  def of_batch(params, examples, key):
    noise_key, dropout_key = jax.random.split(own_key(key))
    batch = {name: examples[name] for name in ("images", "labels", "is_padding")}
    batch["places"] = jnp.arange(len(batch["labels"]))
    gradient, totals = _on_each_device(sums, batch)(params, batch, dropout_key)
    privatizer = noise_addition.gaussian_privatizer(
      stddev=noise_multiplier * clipped.sensitivity(), prng_key=noise_key
    )
    gradient, _ = privatizer.update(gradient, privatizer.init(params))
    num = jnp.maximum(totals.pop("num"), 1.0)
    return gradient, {name: total / num for name, total in totals.items()}

  return of_batch


def _example_loss(module, views, weights):
  """`(params, example, key) -> (f32[], metrics)`, of a batch of one example."""

  def loss(params, example, key):
    # An example's dropout depends on its place alone, not on how far the batch is filled up.
    key = jax.random.fold_in(key, example["places"][0])
    images, labels = example["images"], example["labels"]
    if views is not None:
      key, views_key = jax.random.split(key)
      images = views(images, views_key)
      labels = jnp.broadcast_to(labels, len(images))
    applied = params if weights is None else weights(params)
    logits, _ = train_logits(module, applied, {}, images, key)
    value = cross_entropy(logits, {"labels": labels})
    correct = jnp.argmax(logits, axis=-1) == labels
    metrics = {"loss": value, "accuracy": jnp.mean(correct.astype(jnp.float32))}
    # Padding has no gradient; the package's own way to drop it takes a fifth longer.
    return jnp.where(example["is_padding"][0], 0.0, value), metrics

  return loss


def _on_each_device(sums, batch):
  """`sums(params, batch, key)` of a batch that is split over devices, if it is: added up.

  XLA must not split the computation itself: it gets the gradients of convolutions wrong when
  there is one for every example and the examples are on several devices (jaxlib 0.10.2).
  """
  mesh = jax.typeof(batch["labels"]).sharding.mesh
  if mesh.size <= 1 or AxisType.Manual in mesh.axis_types:
    return sums
  axes = mesh.axis_names
  return jax.shard_map(
    lambda *args: jax.lax.psum(sums(*args), axes),
    mesh=mesh,
    in_specs=(P(), P(axes), P()),
    out_specs=P(),
    check_vma=False,
  )
