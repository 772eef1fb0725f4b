"""DP-SGD tuned for accuracy at a given epsilon (De et al. 2022, arXiv:2204.13650).

The guarantee is that of DP-SGD, with the same account: what is added either concerns one
example alone, before its gradient is clipped, or is made of what steps have returned.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffence_jax.checks import check_choice, check_range, check_whole
from diffence_jax.data.augment import KINDS, augment
from diffence_jax.training.dpsgd import private_recipe
from diffence_jax.training.private_gradient import Views
from diffence_jax.training.recipe import Recipe, TrainSettings

# As published code has it: no kernel is divided by less than the root of this.
_LEAST_SQUARE = 1e-4


def dpsgd_tuned(
  module: nn.Module,
  settings: TrainSettings,
  *,
  target_epsilon: float = 8.0,
  delta: float | None = None,
  clip_norm: float = 1.0,
  multiplicity: int = 9,
  augmentation: str = "shifts",
  ema_decay: float = 0.9999,
  standardise: bool = True,
  batch_size: int | None = None,
  epochs: int | None = None,
  learning_rate: float | None = None,
) -> Recipe:
  """DP-SGD with several views of every example, an average of weights, and large batches.

  * Augmentation multiplicity: an example's gradient is the mean over `multiplicity` of its
    views, clipped as one, so that its share of the sum is no longer than without.
  * The classifier has the moving average of the parameters.
  * The kernels of convolutions are standardised, every output channel to mean 0 and squares
    that sum up to 1. The classifier has the standardised ones: it is an ordinary module. There
    is no gain; group normalisation, which takes the place of batch normalisation, has one.
  * Batches, epochs and the learning rate differ from those that suit training without noise:
    batches are large, and the rate is raised with them.

  The publication draws every view at random, of crops and mirror images, and descends by SGD.
  Here the image itself is the first view, the others are drawn from those that `data.augment`
  has, and the optimizer is that of `settings`. Options that were chosen by looking at the
  members' answers are not in the guarantee.

  Args:
    module: as in `dpsgd`.
    settings: as in `dpsgd`.
    target_epsilon: 0.01 to 1000; the noise is the least that guarantees it.
    delta: as in `dpsgd`.
    clip_norm: above 0.
    multiplicity: views of an example a step, 1, the image itself, to all of the kind's.
    augmentation: a kind of `data.augment`: "none", "flip", "shifts" or "flip_shifts", which has
      18 views.
    ema_decay: of the average, 0, for the last parameters, to 1; reached slowly, so that short
      trainings average over their last tenth.
    standardise: whether kernels are standardised.
    batch_size: 1 to `num_members`; None for the settings', and so for those that follow.
    epochs: at least 1.
    learning_rate: above 0.

  Returns:
    The recipe, with its guarantee.

  Raises:
    ModuleNotFoundError: jax-privacy, of the extra `dp`, is not installed.
    ValueError: a setting is out of its range, or the module has other variables than "params".
  """
  check_choice("augmentation", augmentation, KINDS)
  num_views = augment(np.zeros((1, 3, 3, 1)), augmentation).shape[1]
  check_whole("multiplicity", multiplicity, 1, num_views)
  # None would be DP-SGD's published noise.
  check_range("target_epsilon", target_epsilon, 0.01, 1000.0)
  check_range("ema_decay", ema_decay, 0.0, 1.0)
  if not isinstance(standardise, bool):
    raise ValueError(f"standardise is {standardise!r}; expected True or False.")
  given = {"batch_size": batch_size, "epochs": epochs, "learning_rate": learning_rate}
  changed = {name: value for name, value in given.items() if value is not None}
  return private_recipe(
    module,
    dataclasses.replace(settings, **changed),
    clip_norm=clip_norm,
    noise_multiplier=None,
    delta=delta,
    target_epsilon=target_epsilon,
    views=None if multiplicity == 1 else views_of(augmentation, multiplicity),
    weights=standardised if standardise else None,
    ema_decay=ema_decay,
  )


def views_of(augmentation: str, multiplicity: int) -> Views:
  """`(images u8[1,H,W,C], key) -> u8[V,H,W,C]`: the image, and V - 1 others of its versions.

  Args:
    augmentation: a kind of `data.augment`.
    multiplicity: V, 1 to all versions of the kind.
  """

  def views(images, key):
    versions = augment(images, augmentation)[0]
    if multiplicity == len(versions):
      return versions
    others = jax.random.permutation(key, len(versions) - 1)[: multiplicity - 1] + 1
    return versions[jnp.concatenate([jnp.zeros(1, others.dtype), others])]

  return views


def standardised(params: Any) -> Any:
  """Parameters with the kernels of convolutions standardised (Qiao et al. 2019; NFNets).

  Args:
    params: nested dicts of arrays; a "kernel" of rank 4, [h,w,in,out], or of more, with axes in
      front that count models, is a convolution's. One that sees a single number has nothing to
      standardise, and is left as it is.

  Returns:
    The same, every output channel of the kernels with mean 0, and squares that sum up to 1, or
    less where it is nearly constant.
  """

  def of_leaf(path, leaf):
    if getattr(path[-1], "key", None) != "kernel" or leaf.ndim < 4:
      return leaf
    if math.prod(leaf.shape[-4:-1]) == 1:
      return leaf
    centred = leaf - jnp.mean(leaf, axis=(-4, -3, -2), keepdims=True)
    squares = jnp.sum(centred**2, axis=(-4, -3, -2), keepdims=True)
    return centred * jax.lax.rsqrt(jnp.maximum(squares, _LEAST_SQUARE))

  return jax.tree_util.tree_map_with_path(of_leaf, params)
