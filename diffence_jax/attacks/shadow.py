"""Shadow models: classifiers trained as the target is, on training sets that are known.

Which example is in which model's training set is drawn, and recorded, first. Models are
trained in groups: several at once or one after another on every device, different ones on
different devices and hosts. No model needs to hear of another, so nothing is communicated; and
each is handed over to be kept as soon as it is done.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from diffence_jax import models, parallel, rng
from diffence_jax.progress import progress_bar
from diffence_jax.training.classifier import Recipe, classifier_steps
from diffence_jax.training.loop import TrainState, index_batches, init_state, train_step

# Several models at once are faster on accelerators, slower on CPU, where convolutions with a
# batch of weights are up to four times slower than one after another.
_MODELS_AT_ONCE = {"cpu": 1}
_MODELS_AT_ONCE_ELSEWHERE = 8


def membership_matrix(num_models: int, num_examples: int, seed: int) -> np.ndarray:
  """Draws who is in which model's training set: every example in exactly half of the models.

  Models come in pairs, a random half of the examples and the other half. A pair depends on the
  seed and its own number only, so more models can be added and those there are stay right.

  Args:
    num_models: S, even, at least 2.
    num_examples: N, at least 2.
    seed: of the draw.

  Returns:
    bool[S,N]; every row has N/2 members (for odd N rounded up and down in turn).

  Raises:
    ValueError: an odd number of models, or too few models or examples.
  """
  if num_models < 2 or num_models % 2:
    raise ValueError(f"num_models is {num_models}; expected an even number, at least 2.")
  if num_examples < 2:
    raise ValueError(f"There are {num_examples} examples; expected at least 2.")
  membership = np.zeros((num_models, num_examples), bool)
  for pair in range(num_models // 2):
    draw = np.random.default_rng(rng.numpy_seed(seed, f"shadow/membership/{pair}"))
    half = draw.permutation(num_examples)[: -(-num_examples // 2)]
    membership[2 * pair, half] = True
    membership[2 * pair + 1] = ~membership[2 * pair]
  return membership


def default_models_at_once(backend: str) -> int:
  """How many models a device of this backend ("cpu", "gpu", "tpu") trains at once."""
  return _MODELS_AT_ONCE.get(backend, _MODELS_AT_ONCE_ELSEWHERE)


def make_ensemble_step(recipe: Recipe, mesh: Mesh) -> Callable[..., Any]:
  """Compiles one training step of a group of models, without collectives.

  Args:
    recipe: how each is trained.
    mesh: the models are divided over it; each device maps its own by `vmap`.

  Returns:
    `(examples, state, rows, keys) -> (state, metrics)`: examples {images u8[N,H,W,C], labels
    i32[N]} whole on every device; a `TrainState` whose leaves have the G models as first axis,
    taken over (donated); rows i32[G,B], every model's batch; keys[G].
  """
  step = train_step(*recipe)

  def one_model(examples, state, rows, key):
    return step(state, {name: values[rows] for name, values in examples.items()}, key)

  def device_step(examples, state, rows, keys):
    if len(rows) > 1:
      return jax.vmap(one_model, in_axes=(None, 0, 0, 0))(examples, state, rows, keys)
    # One model needs no batch of weights.
    first = jax.tree.map(lambda leaf: leaf[0], (state, rows, keys))
    return jax.tree.map(lambda leaf: leaf[None], one_model(examples, *first))

  return jax.jit(parallel.map_over_batch(device_step, mesh), donate_argnums=1)


def train_shadow_models(
  module: nn.Module,
  recipe: Recipe,
  images: np.ndarray,
  labels: np.ndarray,
  membership: np.ndarray,
  *,
  numbers: Sequence[int],
  keep: Callable[[int, Any], None],
  epochs: int,
  batch_size: int,
  seed: int,
  mesh: Mesh,
  models_at_once: int | None = None,
) -> None:
  """Trains some models of an ensemble, and hands each over when it is done.

  Model s depends on the seed, on s and on its row of `membership` only: the number of devices
  and of models at once changes nothing but rounding.

  Args:
    module: the classifier.
    recipe: how it is trained.
    images: u8[N,H,W,C].
    labels: i[N].
    membership: bool[S,N], as `membership_matrix` draws it.
    numbers: the models s to train; their number need not be a multiple of anything.
    keep: `keep(s, variables)` is called with every model's variables, NumPy arrays.
    epochs: how often a model sees each of its members.
    batch_size: of every model.
    seed: of initialisation, order and dropout, in streams of each model's own.
    mesh: groups of models are divided over it.
    models_at_once: on every device; None for `default_models_at_once`.

  Raises:
    FloatingPointError: the loss of a model is no longer finite.
    ValueError: `models_at_once` is less than 1, or the shapes do not fit.
  """
  if membership.ndim != 2 or membership.shape[1] != len(images):
    raise ValueError(
      f"membership is {list(membership.shape)}; expected [S, {len(images)}], as many columns "
      "as there are images."
    )
  if models_at_once is None:
    models_at_once = default_models_at_once(mesh.devices.flat[0].platform)
  if models_at_once < 1:
    raise ValueError(f"models_at_once is {models_at_once}; expected at least 1.")
  if not numbers:
    return
  num_steps = classifier_steps(int(membership.sum(axis=1).max()), epochs, batch_size)
  group_size = mesh.size * min(models_at_once, -(-len(numbers) // mesh.size))
  ensemble_step = make_ensemble_step(recipe, mesh)
  init = jax.jit(jax.vmap(lambda key: _init(module, recipe, key, images.shape[1:])))
  examples = {"images": images, "labels": np.asarray(labels, np.int32)}
  examples = parallel.replicate(mesh, examples)
  with progress_bar(len(numbers) * num_steps, "shadow models", "step") as bar:
    for start in range(0, len(numbers), group_size):
      group = list(numbers[start : start + group_size])
      # The last group is filled up with its last model: one compiled shape.
      filled = group + group[-1:] * (group_size - len(group))
      state = parallel.shard_batch(mesh, init(_keys(seed, filled, "init")))
      keys = parallel.shard_batch(mesh, _keys(seed, filled, "steps"))
      batches = _batches(membership, filled, batch_size, seed)
      for rows in itertools.islice(batches, num_steps):
        rows = parallel.shard_batch(mesh, rows)
        state, metrics = ensemble_step(examples, state, rows, keys)
        bar.update(len(group))
      losses = np.asarray(metrics["loss"])[: len(group)]
      if not np.isfinite(losses).all():
        raise FloatingPointError(
          f"The loss of shadow model {group[np.argmin(np.isfinite(losses))]} is no longer "
          "finite; lower classifier.learning_rate."
        )
      variables = jax.device_get({"params": state.params, **state.model_state})
      for i, s in enumerate(group):
        keep(s, jax.tree.map(lambda leaf, i=i: leaf[i], variables))
      bar.set_postfix(loss=f"{losses.mean():.4f}")


def ensemble_logits(module: nn.Module, models_at_once: int) -> Callable[..., jax.Array]:
  """A function of the images that all models of an ensemble answer, in evaluation mode.

  Args:
    module: the classifier.
    models_at_once: how many answer at once; the rest follow one after another.

  Returns:
    `(variables with first axis S, images f32[n,H,W,C]) -> logits f32[n,S*K]`, model by model:
    for `models.predictor`, so that an ensemble goes through a defense as one classifier does.
  """

  def apply(variables, images):
    answer = lambda own: models.predictor(module, own)(None, images)
    # Inside a device a loop over models; forward passes are not slow in loops.
    logits = jax.lax.map(answer, variables, batch_size=models_at_once)
    return jnp.moveaxis(logits, 0, 1).reshape(len(images), -1)

  return apply


def _init(module, recipe, key, image_shape) -> TrainState:
  return init_state(models.init(module, key, image_shape), recipe.optimizer)


def _keys(seed, group, purpose):
  return jnp.stack([rng.stream(seed, f"shadow/{s}/{purpose}") for s in group])


def _batches(membership, group, batch_size, seed) -> Iterator[np.ndarray]:
  """Every model's next batch, i32[G,B], rows of the examples."""
  members = [np.flatnonzero(membership[s]) for s in group]
  orders = [
    index_batches(len(own), batch_size, rng.numpy_seed(seed, f"shadow/{s}/order"))
    for s, own in zip(group, members, strict=True)
  ]
  for chosen in zip(*orders, strict=True):
    yield np.stack([own[i] for own, i in zip(members, chosen, strict=True)]).astype(np.int32)
