"""How a classifier is trained: what a training-time defense is, as pure functions.

A recipe says nothing about devices, files or how many models there are, so that one and the
same trains the target over all devices and every model of a shadow ensemble.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from diffence_jax import models
from diffence_jax.batching import Batches, shuffled, to_float
from diffence_jax.checks import check_positive, check_range, check_whole
from diffence_jax.compiling import shared
from diffence_jax.training.loop import Loss, Step, init_state, train_step

# (logits f32[B,K], examples {"labels" i[B], ...}) -> f32[], the loss of a batch.
LogitLoss = Callable[[jax.Array, Mapping[str, jax.Array]], jax.Array]


# Of a classifier, whose schedule is in memory.
MAX_STEPS = 10_000_000


@dataclasses.dataclass(frozen=True)
class TrainSettings:
  """What all ways to train a classifier are told; checked when made.

  Attributes:
    num_members: examples that it is trained on.
    epochs: how often it sees each of them.
    batch_size: examples a step, over all devices.
    learning_rate: of Adam (AMSGrad), above 0.
    weight_decay: the L2 coefficient, added to the gradient, at least 0.
    microbatch_size: in training that has a gradient of every example, so many of them are in
      memory at a time, one lot after another; None for the whole batch's. It changes rounding
      only. Leave it None on CPU, where XLA's convolutions are many times slower inside a loop.
  """

  num_members: int
  epochs: int = 50
  batch_size: int = 64
  learning_rate: float = 1e-3
  weight_decay: float = 1e-6
  microbatch_size: int | None = None

  def __post_init__(self):
    check_whole("num_members", self.num_members, 1)
    check_whole("epochs", self.epochs, 1, MAX_STEPS)
    check_whole("batch_size", self.batch_size, 1, 1_000_000)
    if self.num_steps > MAX_STEPS:
      raise ValueError(
        f"epochs is {self.epochs}, {self.num_steps} steps of {self.batch_size} examples; "
        f"expected at most {MAX_STEPS} steps."
      )
    check_positive("learning_rate", self.learning_rate)
    check_range("weight_decay", self.weight_decay, 0.0, None)
    if self.microbatch_size is not None:
      check_whole("microbatch_size", self.microbatch_size, 1)

  @property
  def num_steps(self) -> int:
    """The steps in which every example has been seen `epochs` times."""
    return -(-self.num_members * self.epochs // self.batch_size)

  @property
  def optimizer(self) -> optax.GradientTransformation:
    """Adam (AMSGrad) with L2, as the paper trains."""
    return _amsgrad(self.weight_decay, self.learning_rate)

  def epoch_of(self, step: int) -> int:
    """The epoch, from 0, in which a step begins."""
    return step * self.batch_size // self.num_members


class Kind(NamedTuple):
  """A kind of training step.

  Attributes:
    step: pure, `(state, batch, key) -> (state, metrics)`. A batch has for every group that
      the step looks at what `loop.take` gives: "images" u8[B,H,W,C], "labels" i[B], further
      arrays that belong to examples, and "is_padding" bool[B]. The step folds its number into
      the key itself.
    batches: `(num_examples, seed, first) -> iterator` of the rows of every group: given how
      many examples each group has, batches from the `first` one of this kind on. A batch that
      is filled up with -1 ends in at least one, always.
    groups: the groups that the step looks at.
  """

  step: Step
  batches: Batches
  groups: tuple[str, ...] = ("members",)


class Teachers(NamedTuple):
  """Models that are trained before, and whose answers the classifier learns.

  Attributes:
    recipe: how each of them is trained.
    membership: `(num_members, seed) -> bool[T,n]`, which member teaches which of T teachers.
    soft_labels: `(logits f32[T,n,K], membership bool[T,n]) -> f32[n,K]`, what the classifier
      finds as "soft_labels" of its members.
  """

  recipe: "Recipe"
  membership: Callable[[int, Any], np.ndarray]
  soft_labels: Callable[[np.ndarray, np.ndarray], np.ndarray]

  @property
  def number(self) -> int:
    """T."""
    return len(self.membership(2, 0))


class Guarantee(NamedTuple):
  """What differentially private training guarantees, and by which noise.

  Attributes:
    epsilon: with or without any one member, what training returns has probabilities that
      differ by a factor of at most e^epsilon,
    delta: and by this much more.
    noise_multiplier: the standard deviation of the noise, over the clipping norm.
  """

  epsilon: float
  delta: float
  noise_multiplier: float


class Recipe(NamedTuple):
  """How a classifier is trained.

  Attributes:
    module: what is trained.
    init: `(key, image_shape) -> state` before the first step.
    kinds: name to kind of step. Groups of examples are "members", and "reference": others that
      are there to be trained with but are not to be learnt.
    schedule: the kind of every step.
    variables: state to the classifier's variables.
    answer: what answers queries, given variables and images: None for the module itself.
    teachers: models to learn from, or None.
    guarantee: of differential privacy, of the classifier alone; or None.
  """

  module: nn.Module
  init: Callable[[jax.Array, tuple[int, ...]], Any]
  kinds: Mapping[str, Kind]
  schedule: tuple[str, ...]
  variables: Callable[[Any], dict[str, Any]]
  answer: Callable[[Any, jax.Array], jax.Array] | None = None
  teachers: Teachers | None = None
  guarantee: Guarantee | None = None

  @property
  def answering(self) -> nn.Module | Callable[[Any, jax.Array], jax.Array]:
    """What `models.predictor` takes, with the variables, to make the predictor."""
    return self.answer or self.module

  @property
  def needs_reference(self) -> bool:
    """Whether it takes a reference set to train."""
    return any("reference" in kind.groups for kind in self.kinds.values())

  def batches(
    self, num_examples: Mapping[str, int], seed: int | Sequence[int], first: int = 0
  ) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """What every step sees, in the order of the schedule.

    Args:
      num_examples: group to how many examples there are.
      seed: of the order.
      first: the step to start from.

    Yields:
      The kind of the step, and group to rows i64[B].
    """
    before = collections.Counter(self.schedule[:first])
    streams = {
      name: kind.batches(num_examples, seed, before[name]) for name, kind in self.kinds.items()
    }
    for name in self.schedule[first:]:
      yield name, next(streams[name])


def with_losses(
  module: nn.Module,
  settings: TrainSettings,
  losses: Mapping[str, LogitLoss],
  schedule: tuple[str, ...],
) -> Recipe:
  """The recipe of a defense that is a loss, or several that take turns.

  Args:
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`.
    settings: how it is trained.
    losses: kind of step to its loss of the logits.
    schedule: the kind of every step.

  Returns:
    The recipe: the losses are minimised by `settings.optimizer`, batch by batch of members.
  """
  batches = shuffled(members=settings.batch_size)
  kinds = {
    name: Kind(
      _step_of(module, loss, settings.optimizer),
      in_turn(batches, tuple(i for i, kind in enumerate(schedule) if kind == name)),
    )
    for name, loss in losses.items()
  }
  return Recipe(
    module=module,
    init=_init_of(module, settings.optimizer),
    kinds=kinds,
    schedule=schedule,
    variables=state_variables,
  )


# Recipes of the same network, loss and optimizer share what they compile: another seed, another
# number of epochs, the target and the shadow models.
@shared(64)
def _amsgrad(weight_decay, learning_rate):
  return optax.chain(optax.add_decayed_weights(weight_decay), optax.amsgrad(learning_rate))


@shared(16)
def _step_of(module, loss, optimizer):
  return train_step(of_members(module, loss), optimizer)


@shared(16)
def _init_of(module, optimizer):
  return lambda key, shape: init_state(models.init(module, key, shape), optimizer)


def in_turn(batches: Batches, places: tuple[int, ...]) -> Batches:
  """Those batches of a stream that are at some places: for a kind that shares it with others.

  Args:
    batches: all of the stream.
    places: rising numbers of the steps that are of the kind.

  Returns:
    The kind's batches; as many as there are places.
  """

  def draw(num_examples, seed, first):
    if first == len(places):
      return
    at = places[first]
    stream = batches(num_examples, seed, at)
    for place in places[first:]:
      yield next(itertools.islice(stream, place - at, None))
      at = place + 1

  return draw


def with_loss(module: nn.Module, settings: TrainSettings, loss: LogitLoss) -> Recipe:
  """The recipe of a defense that is one loss; see `with_losses`."""
  return with_losses(module, settings, {"train": loss}, ("train",) * settings.num_steps)


def of_members(module: nn.Module, loss: LogitLoss) -> Loss:
  """A loss of the logits as one of parameters and batches {"members": ...}, with accuracy."""

  def of_batch(params, model_state, batch, key):
    examples = batch["members"]
    logits, model_state = train_logits(module, params, model_state, examples["images"], key)
    accuracy = jnp.mean((jnp.argmax(logits, axis=-1) == examples["labels"]).astype(jnp.float32))
    return loss(logits, examples), (model_state, {"accuracy": accuracy})

  return of_batch


def train_logits(
  module: nn.Module, params: Any, model_state: Any, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, Any]:
  """Applies a classifier in training mode.

  Args:
    module: the classifier.
    params: its parameters.
    model_state: its other variables.
    images: u8[B,H,W,C].
    key: of dropout.

  Returns:
    Logits f32[B,K], and the new model state, without gradient.
  """
  logits, model_state = module.apply(
    {"params": params, **model_state},
    to_float(images),
    **models.training_mode(module),
    mutable=list(model_state),
    rngs={"dropout": key},
  )
  return logits, jax.lax.stop_gradient(model_state)


def state_variables(state: Any) -> dict[str, Any]:
  """The variables in a `loop.TrainState`."""
  return {"params": state.params, **state.model_state}


def cross_entropy(logits: jax.Array, examples: Mapping[str, jax.Array]) -> jax.Array:
  """The mean cross-entropy f32[] of logits f32[B,K] against "labels" i[B]."""
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, examples["labels"])
  return jnp.mean(losses)
