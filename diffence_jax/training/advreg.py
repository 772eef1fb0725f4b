"""AdvReg (Nasr, Shokri & Houmansadr, CCS 2018): a classifier trained against an attack.

An attack network learns to tell members from a reference set by how the classifier answers. The
classifier learns its task, and to answer members so that the network takes them for others.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from diffence_jax import models, rng
from diffence_jax.batching import shuffled, to_float
from diffence_jax.checks import check_range
from diffence_jax.models.perceptron import dense, relu_layers
from diffence_jax.training.loop import Step, TrainState, init_state, train_step
from diffence_jax.training.recipe import (
  Kind,
  LogitLoss,
  Recipe,
  TrainSettings,
  cross_entropy,
  of_members,
  state_variables,
)

# How the two take turns, as published.
_ATTACK_EPOCHS_AT_FIRST = 5
_ATTACK_BATCHES_A_ROUND = 26
_CLASSIFIER_BATCHES_A_ROUND = 2

_ATTACK_LEARNING_RATE = 1e-4


class AdvRegState(NamedTuple):
  """What training carries: each step changes one of the two.

  Attributes:
    classifier: as undefended training carries it; its `step` counts its own steps.
    attacker: the same of the attack network.
  """

  classifier: TrainState
  attacker: TrainState


class AttackNetwork(nn.Module):
  """Two branches, for probabilities and label, joined by a third perceptron.

  All weights are drawn from N(0, 0.01^2), all biases are 0.
  """

  @nn.compact
  def __call__(self, probabilities: jax.Array, one_hot: jax.Array) -> jax.Array:
    """Maps predictions f32[N,K] and true labels f32[N,K] to f32[N], 1 for a member."""
    branches = relu_layers(probabilities, 1024, 512, 64), relu_layers(one_hot, 128, 64)
    joined = relu_layers(jnp.concatenate(branches, axis=-1), 512, 256, 128, 64)
    return nn.sigmoid(dense(1)(joined)[:, 0])


def advreg(module: nn.Module, settings: TrainSettings, *, alpha: float = 6.0) -> Recipe:
  """Plays a game of training against an attack network (algorithm 1).

  Kinds of steps, by who learns what from which batch:

  - "classifier": the classifier, the cross-entropy of `batch_size` members.
  - "attack": the attack network, by mean squared error, to answer 1 for `batch_size // 2`
    members and 0 for as many of the reference set. The classifier, as it is at the time, is
    asked in evaluation mode. Metrics: "attack_output", the mean answer for the members, and
    "attack_accuracy", how many it gets right at 1/2.
  - "regularised": the classifier, the cross-entropy of `batch_size` members + `alpha` * (the
    attack network's mean answer for them - 1/2).

  See `advreg_schedule` for their turns. The classifier starts, and goes through its members, as
  it does undefended: with `alpha` = 0 it is the undefended one.

  Its first weights are so small that the attack network answers 1/2 to everything for 500 to
  1200 of its steps (measured; those before the rounds included). Until then nothing is
  defended: a short training on few members is an undefended one.

  The attack network is given probabilities, as in the publication; the Diffence paper's code
  gives it logits, takes `batch_size` of each group for its batches, and keeps the epoch of the
  highest test accuracy, which needs a test set.

  Args:
    module: `(images f32[N,H,W,C] in [0,1], train) -> logits f32[N,K]`.
    settings: how it is trained; `batch_size` is at least 2.
    alpha: weight of privacy, at least 0. The Diffence paper's: 6 for small images, 4 for faces.

  Returns:
    The recipe; it needs a reference set.

  Raises:
    ValueError: a setting is out of its range.
  """
  check_range("alpha", alpha, 0.0, None)
  check_range("batch_size", settings.batch_size, 2, None)
  attack_optimizer = optax.adam(_ATTACK_LEARNING_RATE)
  schedule = advreg_schedule(settings)
  num_plain = schedule.count("classifier")
  members = shuffled(members=settings.batch_size)
  half = settings.batch_size // 2
  regularised = functools.partial(regularised_loss, alpha=alpha)
  kinds = {
    "classifier": Kind(
      _classifier_step(module, settings, lambda attacker: cross_entropy), members
    ),
    "attack": Kind(
      _attack_step(module, attack_optimizer),
      shuffled(members=half, reference=half),
      groups=("members", "reference"),
    ),
    # Goes on where the plain steps end, so that all members are seen equally often.
    "regularised": Kind(
      _classifier_step(module, settings, regularised),
      lambda num_examples, seed, first: members(num_examples, seed, num_plain + first),
    ),
  }
  return Recipe(
    module=module,
    init=_start_of_both(module, settings.optimizer, attack_optimizer),
    kinds=kinds,
    schedule=schedule,
    variables=lambda state: state_variables(state.classifier),
  )


def _start_of_both(
  module: nn.Module,
  optimizer: optax.GradientTransformation,
  attack_optimizer: optax.GradientTransformation,
) -> Callable[[jax.Array, tuple[int, ...]], AdvRegState]:
  """How both networks start, as `Recipe.init`."""

  def init(key, image_shape):
    variables = models.init(module, key, image_shape)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    logits = jax.eval_shape(models.predictor(module, variables), None, image)
    inputs = [jnp.zeros(logits.shape)] * 2
    attacker = AttackNetwork().init(jax.random.fold_in(rng.own_key(key), 1), *inputs)
    return AdvRegState(init_state(variables, optimizer), init_state(attacker, attack_optimizer))

  return init


def _classifier_step(
  module: nn.Module, settings: TrainSettings, loss_against: Callable[[Any], LogitLoss]
) -> Step:
  """The classifier's step, for a loss that may depend on the attack network's parameters."""

  def step(state, batch, key):
    loss = of_members(module, loss_against(state.attacker.params))
    classifier, metrics = train_step(loss, settings.optimizer)(state.classifier, batch, key)
    return state._replace(classifier=classifier), metrics

  return step


def _attack_step(module: nn.Module, optimizer: optax.GradientTransformation) -> Step:
  """The attack network's step, on how the classifier answers at the time."""

  def attack_step(state, batch, key):
    predict = models.predictor(module, state_variables(state.classifier))
    answers = {
      group: (predict(None, to_float(of["images"])), of["labels"])
      for group, of in batch.items()
    }
    attacker, metrics = train_step(attack_loss, optimizer)(state.attacker, answers, key)
    return state._replace(attacker=attacker), metrics

  return attack_step


def advreg_schedule(settings: TrainSettings) -> tuple[str, ...]:
  """The turns of the two players.

  An epoch of the classifier alone; 5 of the attack network alone, in each of which it sees as
  many members as there are; then rounds of 26 steps of the attack network and 2 of the
  classifier.

  Args:
    settings: `batch_size` is at least 2.

  Returns:
    The kind of every step. `settings.num_steps` are the classifier's, the last of all is.
  """
  num_plain = sum(settings.epoch_of(step) == 0 for step in range(settings.num_steps))
  num_regularised = settings.num_steps - num_plain
  schedule = ["classifier"] * num_plain
  if num_regularised:
    attack_epoch = -(-settings.num_members // (settings.batch_size // 2))
    schedule += ["attack"] * (_ATTACK_EPOCHS_AT_FIRST * attack_epoch)
  for done in range(0, num_regularised, _CLASSIFIER_BATCHES_A_ROUND):
    schedule += ["attack"] * _ATTACK_BATCHES_A_ROUND
    schedule += ["regularised"] * min(_CLASSIFIER_BATCHES_A_ROUND, num_regularised - done)
  return tuple(schedule)


def attack_outputs(params: Any, logits: jax.Array, labels: jax.Array) -> jax.Array:
  """What the attack network makes of a classifier's answers.

  Args:
    params: the network's.
    logits: f32[N,K], the classifier's.
    labels: i[N], the true ones.

  Returns:
    f32[N] in (0, 1), 1 for a member.
  """
  one_hot = jax.nn.one_hot(labels, logits.shape[-1])
  return AttackNetwork().apply({"params": params}, jax.nn.softmax(logits, axis=-1), one_hot)


def regularised_loss(attacker: Any, *, alpha: float) -> LogitLoss:
  """The classifier's loss against an attack network.

  Args:
    attacker: the network's parameters.
    alpha: weight of what it answers for members.

  Returns:
    Cross-entropy + `alpha` * (mean answer - 1/2), of logits and examples.
  """

  def loss(logits, examples):
    outputs = attack_outputs(attacker, logits, examples["labels"])
    return cross_entropy(logits, examples) + alpha * (jnp.mean(outputs) - 0.5)

  return loss


def attack_loss(
  params: Any, model_state: Any, batch: Mapping[str, tuple[jax.Array, jax.Array]], key: Any
) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
  """The attack network's loss, as `loop.train_step` takes it.

  Args:
    params: the network's.
    model_state: {}: it has no other variables.
    batch: (logits f32[B,K], labels i[B]) of "members" and of as many "reference" examples.
    key: not used.

  Returns:
    The mean squared error f32[] from 1 for members and 0 for the reference set, and (the model
    state, metrics); see `advreg`.
  """
  del key
  members = attack_outputs(params, *batch["members"])
  reference = attack_outputs(params, *batch["reference"])
  loss = (jnp.mean(jnp.square(members - 1.0)) + jnp.mean(jnp.square(reference))) / 2.0
  right = jnp.concatenate([members > 0.5, reference <= 0.5])
  metrics = {
    "attack_accuracy": jnp.mean(right.astype(jnp.float32)),
    "attack_output": jnp.mean(members),
  }
  return loss, (model_state, metrics)
