"""DP-SGD (Abadi et al., CCS 2016): clipped gradients, noise, and the epsilon that they give."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
import scipy.special
from flax import linen as nn

from diffence_jax import models
from diffence_jax.batching import Batches
from diffence_jax.checks import check_positive, check_range, check_whole
from diffence_jax.rng import own_key
from diffence_jax.training.accounting import (
  LEAST_NOISE,
  MOST_NOISE,
  check_installed,
  epsilon,
  noise_for,
)
from diffence_jax.training.loop import Step, TrainState, averaged, descend, init_state
from diffence_jax.training.private_gradient import PrivateGradient, Views, private_gradient
from diffence_jax.training.recipe import Guarantee, Kind, Recipe, TrainSettings

_PUBLISHED_NOISE = 0.1

# The largest delta where none is given: customary for data sets of some 50,000 examples.
_LARGEST_DELTA = 1e-5

_LEAST_DELTA = 1e-100

# How likely one Poisson batch may be to outgrow the shape that the step is compiled for.
_OVERFLOW = 1e-12


def dpsgd(
  module: nn.Module,
  settings: TrainSettings,
  *,
  clip_norm: float = 1.2,
  noise_multiplier: float | None = None,
  delta: float | None = None,
  target_epsilon: float | None = None,
) -> Recipe:
  """Clips the gradient of every example, adds noise to their sum, and says what it guarantees.

  A step takes every member with a chance of batch_size / num_members (see `poisson`), clips
  their gradients to an L2 norm of `clip_norm`, adds to their sum noise of standard deviation
  `noise_multiplier * clip_norm`, and divides it by `settings.batch_size`. What
  `settings.optimizer` makes of that, weight decay included, is post-processing.

  `guarantee` is (epsilon, delta) of all steps together, for one member added or removed; see
  `epsilon`. It covers the classifier, its checkpoints too, and holds as far as NumPy's and
  JAX's random numbers are random and **the seed is kept secret**. It does not cover
  `metrics.jsonl`, whose loss and accuracy are the members' own, nor settings that were chosen
  by looking at the members.

  At the Diffence paper's noise, 0.1 for CIFAR-10 and 0.05 for CIFAR-100 and SVHN, epsilon is
  some 6,000 to 30,000. That is finite, and promises nothing: what protection such training
  gives is empirical. Promises take an epsilon of at most some 10, for which `target_epsilon`
  finds the noise: from 0.7 for large data sets to 3 and more for small ones.

  A classifier with a field `norm` that is "batch" is trained with "group" instead: the
  statistics of a batch mix examples, and running statistics are not protected by any noise.

  Args:
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`, "params" its only
      variables, once `norm` is set.
    settings: how it is trained; batches have `batch_size` examples on average, and at most
      `num_members`.
    clip_norm: above 0.
    noise_multiplier: 1e-6 to 1e6; None for 0.1, or for what `target_epsilon` asks for.
    delta: of the guarantee, 1e-100 to below 1; None for 1e-5, or 1 / (2 num_members) where
      that is less.
    target_epsilon: 0.01 to 1000; the noise is the least that guarantees it, to 0.1 %. None to
      take `noise_multiplier` as it is.

  Returns:
    The recipe, with its guarantee. Its `init` raises ValueError where the module has other
    variables than "params".

  Raises:
    ModuleNotFoundError: jax-privacy, of the extra `dp`, is not installed.
    ValueError: a setting is out of its range, or both `noise_multiplier` and `target_epsilon`
      are given.
  """
  return private_recipe(
    module,
    settings,
    clip_norm=clip_norm,
    noise_multiplier=noise_multiplier,
    delta=delta,
    target_epsilon=target_epsilon,
  )


def private_recipe(
  module: nn.Module,
  settings: TrainSettings,
  *,
  clip_norm: float,
  noise_multiplier: float | None,
  delta: float | None,
  target_epsilon: float | None,
  views: Views | None = None,
  weights: Callable[[Any], Any] | None = None,
  ema_decay: float | None = None,
) -> Recipe:
  """DP-SGD, and what may be added to it without a change of what it guarantees.

  Args:
    module: as in `dpsgd`, and so are the settings that are not named here.
    settings: as above.
    clip_norm: as above.
    noise_multiplier: as above.
    delta: as above.
    target_epsilon: as above.
    views: as in `private_gradient`.
    weights: as in `private_gradient`; the classifier has those.
    ema_decay: of the moving average of the parameters, which the classifier then has: see
      `loop.averaged`. It is made of what every step returns, so it spends nothing.

  Returns:
    The recipe.

  Raises:
    ModuleNotFoundError: as in `dpsgd`.
    ValueError: as above.
  """
  check_installed()
  check_positive("clip_norm", clip_norm)
  check_whole("batch_size", settings.batch_size, 1, settings.num_members)
  if delta is None:
    delta = min(_LARGEST_DELTA, 0.5 / settings.num_members)
  check_range("delta", delta, _LEAST_DELTA, 1.0)
  if delta == 1.0:
    raise ValueError(f"delta is {delta!r}; expected less than 1.")
  noise_multiplier = _noise(settings, noise_multiplier, target_epsilon, delta)
  spent = epsilon(noise_multiplier, _probability(settings), settings.num_steps, delta)
  if getattr(module, "norm", None) == "batch":
    module = module.clone(norm="group")
  optimizer = settings.optimizer
  gradient = private_gradient(
    module,
    clip_norm=clip_norm,
    noise_multiplier=noise_multiplier,
    batch_size=settings.batch_size,
    microbatch_size=settings.microbatch_size,
    views=views,
    weights=weights,
  )

  def variables(state):
    params = state.params if ema_decay is None else state.average
    return {"params": params if weights is None else weights(params)}

  return Recipe(
    module=module,
    init=_start(module, optimizer, average=ema_decay is not None),
    kinds={"train": Kind(_step(gradient, optimizer, ema_decay), poisson(settings))},
    schedule=("train",) * settings.num_steps,
    variables=variables,
    guarantee=Guarantee(spent, delta, noise_multiplier),
  )


def _probability(settings):
  """The chance of every member to be in a batch."""
  return settings.batch_size / settings.num_members


def _noise(
  settings: TrainSettings,
  noise_multiplier: float | None,
  target_epsilon: float | None,
  delta: float,
) -> float:
  """The noise multiplier that was given, that an epsilon asks for, or the published one."""
  if target_epsilon is None:
    noise_multiplier = _PUBLISHED_NOISE if noise_multiplier is None else noise_multiplier
    check_range("noise_multiplier", noise_multiplier, LEAST_NOISE, MOST_NOISE)
    return noise_multiplier
  if noise_multiplier is not None:
    raise ValueError(
      f"noise_multiplier is {noise_multiplier!r} and target_epsilon is {target_epsilon!r}; "
      "each follows from the other, so give only one."
    )
  check_range("target_epsilon", target_epsilon, 0.01, 1000.0)
  return noise_for(target_epsilon, _probability(settings), settings.num_steps, delta)


def _start(
  module: nn.Module, optimizer: optax.GradientTransformation, *, average: bool
) -> Callable[[jax.Array, tuple[int, ...]], TrainState]:
  """How the classifier starts, as `Recipe.init`; ValueError if it has running statistics."""

  def init(key, image_shape):
    variables = models.init(module, key, image_shape)
    if others := sorted(set(variables) - {"params"}):
      raise ValueError(
        f"{type(module).__name__} has the variables {', '.join(others)} beside its parameters. "
        "DP-SGD protects parameters only; use a module without running statistics, with group "
        'normalisation for example, or give it a field norm: str = "batch" that can be '
        '"group" as well.'
      )
    return init_state(variables, optimizer, average=average)

  return init


def poisson(settings: TrainSettings) -> Batches:
  """Batches that take each member with a chance of its own, batch_size / num_members.

  Batches are independent, and each is drawn by its own number, so that any can be had at once.
  They are filled up to one size; a batch is larger with a chance of 1e-12. If one is, nothing
  is cut off: it is filled up to twice the size, and a step is compiled for it, so that the
  sampling is exactly what is accounted for.

  Args:
    settings: the chance and the size follow from `batch_size` and `num_members`, not from how
      many examples there are, which must make no difference to what happens to any other.

  Returns:
    `(num_examples, seed, first) -> batches` of "members", each i64[B] in ascending order, and
    then -1, at least once.
  """
  probability = _probability(settings)
  counts = np.arange(settings.num_members + 1)
  exceeded = scipy.special.bdtrc(counts, settings.num_members, probability)
  capacity = int(np.argmax(exceeded <= _OVERFLOW)) + 1

  def batches(
    num_examples: Mapping[str, int], seed: int | Sequence[int], first: int
  ) -> Iterator[dict[str, np.ndarray]]:
    for number in itertools.count(first):
      rng = np.random.default_rng([*np.atleast_1d(seed), number])
      chosen = np.flatnonzero(rng.random(num_examples["members"]) < probability)
      rows = np.full(capacity * (len(chosen) // capacity + 1), -1, np.int64)
      rows[: len(chosen)] = chosen
      yield {"members": rows}

  return batches


def _step(
  gradient: PrivateGradient,
  optimizer: optax.GradientTransformation,
  ema_decay: float | None,
) -> Step:
  """The pure step that descends a private gradient."""

  def step(state, batch, key):
    key = jax.random.fold_in(own_key(key), state.step)
    gradients, metrics = gradient(state.params, batch["members"], key)
    return averaged(descend(state, gradients, optimizer), ema_decay), metrics

  return step
