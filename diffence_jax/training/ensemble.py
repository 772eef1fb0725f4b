"""Training many classifiers by one recipe, each on examples of its own.

Models are trained in groups: several at once or one after another on every device, different
ones on different devices and hosts. No model needs to hear of another, so nothing is
communicated; and each is handed over to be kept as soon as it is done. This is how shadow
models are trained, and the teachers of a classifier that learns from others.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffence_jax import models, parallel, rng
from diffence_jax.batching import batches, even_size, filled
from diffence_jax.checks import check_instance
from diffence_jax.compiling import compiled_quickly
from diffence_jax.data import Images
from diffence_jax.predictor import check_function
from diffence_jax.progress import progress_bar
from diffence_jax.training import feed
from diffence_jax.training.loop import Step, grouped, stack_rows
from diffence_jax.training.recipe import Recipe, Teachers
from diffence_jax.training.teachers import taught, teachers_of

# Images that are answered in one call.
_ANSWERED_AT_ONCE = 512


@functools.lru_cache(maxsize=16)
def make_ensemble_step(step: Step, mesh: Mesh) -> Callable[..., Any]:
  """Compiles training steps of a group of models, without collectives; once for a step.

  Args:
    step: of one model, pure; see `recipe.Kind`.
    mesh: the models are divided over it; each device maps its own by `vmap`.

  Returns:
    `(examples, further, state, rows, keys) -> (state, metrics)`: examples, group to {images
    u8[N,H,W,C], labels i32[N]}, whole on every device; further arrays [G,N,...] of the
    members, which differ from model to model; a state whose leaves have the G models as first
    axis, taken over (donated); rows, group to i32[G,S,B], every model's batches of S steps;
    keys[G]. Metrics are those of the last step.
  """
  steps = feed.on_rows(step)

  def one_model(examples, further, state, rows, key):
    examples = {**examples, "members": {**examples["members"], **further}}
    return steps(examples, state, rows, key)

  def device_step(examples, further, state, rows, keys):
    if len(keys) > 1:
      mapped = jax.vmap(one_model, in_axes=(None, 0, 0, 0, 0))
      return mapped(examples, further, state, rows, keys)
    # One model needs no batch of weights.
    first = jax.tree.map(lambda leaf: leaf[0], (further, state, rows, keys))
    return jax.tree.map(lambda leaf: leaf[None], one_model(examples, *first))

  return jax.jit(parallel.map_over_batch(device_step, mesh), donate_argnums=2)


# Optax raises floats to integer powers, which strict promotion refuses.
@jax.numpy_dtype_promotion("standard")
def train_ensemble(
  recipe: Recipe,
  members: Mapping[str, Images],
  reference: Mapping[str, Images] | None,
  membership: np.ndarray,
  *,
  names: Sequence[str],
  keep: Callable[[int, Any], None],
  seed: int,
  mesh: Mesh,
  models_at_once: int | None = None,
  steps_per_call: int | None = None,
  description: str = "shadow models",
) -> None:
  """Trains models, and hands each over when it is done.

  A model depends on the seed, on its name and on its row of `membership` only: the number of
  devices, of models at once and of steps a call change nothing but rounding.

  Args:
    recipe: how each is trained.
    members: "images" u8[N,H,W,C] and "labels" i[N] of the examples that they draw from; they
      are copied to every device, so images on disk are read into memory.
    reference: "images" and "labels" of the reference set, the same for all models, where the
      recipe needs one.
    membership: bool[S,N], who is in which model's training set.
    names: S names of streams of randomness, for initialisation, order, dropout and noise.
    keep: `keep(i, variables)` is called with every model's variables, NumPy arrays.
    seed: of the streams.
    mesh: groups of models are divided over it.
    models_at_once: on every device; None for `feed.default_models_at_once`.
    steps_per_call: None for `feed.default_steps_per_call`.
    description: for the progress bar and errors.

  Raises:
    FloatingPointError: the loss of a model is no longer finite.
    ValueError: `models_at_once` or `steps_per_call` is less than 1, or the shapes do not fit.
  """
  check_instance("recipe", recipe, Recipe)
  check_function("keep", keep, "i, variables")
  names = feed.check_names(names)
  num_classes = getattr(recipe.module, "num_classes", None)
  members = feed.check_ensemble(members, num_classes, membership, len(names), seed, mesh)
  together = feed.models_together(models_at_once, mesh)
  steps_per_call = feed.check_steps_per_call(steps_per_call, mesh)
  if not len(names):
    return
  reference = _in_memory(feed.check_reference(reference, members, num_classes))
  members = _in_memory(members)
  ensemble = _Ensemble(
    recipe,
    members,
    reference,
    parallel.replicate(mesh, {"members": members, "reference": reference}),
    membership,
    names,
    seed,
    mesh,
    models_at_once,
    steps_per_call,
  )
  # Groups of one size, so that the last one is not filled up in vain.
  size = even_size(len(names), together, multiple=mesh.size)
  with progress_bar(len(names) * len(recipe.schedule), description, "step") as bar:
    for numbers, num in batches(len(names), size):
      group = numbers.tolist()  # the last one filled up with its last model: one compiled shape
      variables, losses = _train_group(ensemble, group, num, bar.update)
      if not np.isfinite(losses).all():
        raise FloatingPointError(
          f"The loss of {description}, {names[group[np.argmin(np.isfinite(losses))]]}, is no "
          "longer finite; lower classifier.learning_rate."
        )
      for place, i in enumerate(group[:num]):
        keep(i, jax.tree.map(lambda leaf, place=place: leaf[place], variables))
      bar.set_postfix(loss=f"{losses.mean():.4f}")


class _Ensemble(NamedTuple):
  """What all groups of an ensemble are trained from; see `train_ensemble`."""

  recipe: Recipe
  members: Mapping[str, np.ndarray]
  reference: Mapping[str, np.ndarray]  # {} where there is none
  on_devices: Mapping[str, Any]  # both, whole on every device
  membership: np.ndarray
  names: Sequence[str]
  seed: int
  mesh: Mesh
  models_at_once: int | None
  steps_per_call: int


def _train_group(
  ensemble: _Ensemble, group: list[int], num: int, progress: Callable[[int], Any]
) -> tuple[Any, np.ndarray]:
  """Trains the models of a group side by side.

  Args:
    ensemble: the one that they belong to.
    group: the numbers of G models; after the first `num`, repetitions fill it up.
    num: models in it.
    progress: is called with the steps that are done.

  Returns:
    The variables, NumPy arrays with the G models as first axis; and the losses f32[num] of the
    last step.
  """
  recipe, mesh = ensemble.recipe, ensemble.mesh
  init = _make_init(recipe.init, ensemble.members["images"].shape[1:])
  steps = {name: make_ensemble_step(kind.step, mesh) for name, kind in recipe.kinds.items()}
  further = parallel.shard_batch(mesh, _soft_labels(ensemble, group, num))
  keys = lambda use: jnp.stack(
    [rng.stream(ensemble.seed, f"{ensemble.names[i]}/{use}") for i in group]
  )
  with compiled_quickly():
    state = init(keys("init"))
  state = parallel.shard_batch(mesh, state)
  step_keys = parallel.shard_batch(mesh, keys("steps"))
  streams = [_batches(ensemble, i) for i in group]
  schedule = zip(recipe.schedule, zip(*streams, strict=True), strict=True)
  for kind, of_steps in grouped(schedule, ensemble.steps_per_call):
    rows = parallel.shard_batch(mesh, _rows_of_models(of_steps))
    state, metrics = steps[kind](ensemble.on_devices, further, state, rows, step_keys)
    progress(num * len(of_steps))
  return jax.device_get(recipe.variables(state)), np.asarray(metrics["loss"])[:num]


def _soft_labels(ensemble: _Ensemble, group: list[int], num: int) -> dict[str, np.ndarray]:
  """What each model of a group is taught about its members, f32[G,N,K]; {} without teachers."""
  if ensemble.recipe.teachers is None:
    return {}
  soft_labels = teach(
    ensemble.recipe.teachers,
    ensemble.members,
    ensemble.membership[group[:num]],
    names=[ensemble.names[i] for i in group[:num]],
    seed=ensemble.seed,
    mesh=ensemble.mesh,
    models_at_once=ensemble.models_at_once,
    steps_per_call=ensemble.steps_per_call,
  )
  return {"soft_labels": soft_labels[filled(0, len(group), num)]}


def teach(
  teachers: Teachers,
  members: Mapping[str, Images],
  membership: np.ndarray,
  *,
  names: Sequence[str],
  seed: int,
  **settings: Any,
) -> np.ndarray:
  """Trains the teachers of some classifiers, all as one ensemble, and asks them.

  Args:
    teachers: of each.
    members: "images" u8[N,H,W,C] and "labels" i[N] of the examples.
    membership: bool[G,N], who is in which classifier's training set.
    names: G names of the classifiers.
    seed: of the streams of randomness.
    **settings: further ones of `train_teachers`.

  Returns:
    f32[G,N,K], soft labels of each classifier's members; 0 for its non-members.

  Raises:
    ValueError: a teacher's recipe needs a reference set.
  """
  each = [
    teachers_of(teachers, name, row, seed) for name, row in zip(names, membership, strict=True)
  ]
  answers: list[np.ndarray] = []
  train_teachers(
    teachers,
    members,
    np.concatenate([taught_on for _, taught_on in each]),
    names=[name for its_names, _ in each for name in its_names],
    keep=lambda _, logits: answers.append(logits),  # in order
    seed=seed,
    **settings,
  )
  soft_labels, rest = [], iter(answers)
  for row, (_, taught_on) in zip(membership, each, strict=True):
    own = np.stack([*itertools.islice(rest, len(taught_on))])
    soft_labels.append(taught(teachers, row, taught_on, own))
  return np.stack(soft_labels)


def train_teachers(
  teachers: Teachers,
  members: Mapping[str, Images],
  membership: np.ndarray,
  *,
  names: Sequence[str],
  keep: Callable[[int, np.ndarray], None],
  seed: int,
  mesh: Mesh,
  models_at_once: int | None = None,
  steps_per_call: int | None = None,
) -> None:
  """Trains teachers, and hands over what each answers.

  Args:
    teachers: what they are.
    members: "images" u8[N,H,W,C] and "labels" i[N] of the examples.
    membership: bool[T,N], as `teachers_of` gives it, or some of its rows.
    names: T names, from the same.
    keep: `keep(i, logits)` is called with every teacher's answers f32[N,K].
    seed: this and the next three as `train_ensemble` takes them.
    mesh: groups of teachers are divided over it.
    models_at_once: on every device.
    steps_per_call: of every teacher.

  Raises:
    ValueError: their recipe needs a reference set.
  """
  if teachers.recipe.needs_reference:
    raise ValueError("Teachers cannot be trained with a reference set; choose another recipe.")
  members, answering = _in_memory(members), teachers.recipe.answering

  def ask(i, variables):
    keep(i, models.answer_images(answering, variables, members["images"], _ANSWERED_AT_ONCE))

  train_ensemble(
    teachers.recipe,
    members,
    None,
    membership,
    names=names,
    keep=ask,
    seed=seed,
    mesh=mesh,
    models_at_once=models_at_once,
    steps_per_call=steps_per_call,
    description="teachers",
  )


@functools.lru_cache(maxsize=16)
def _make_init(init, image_shape):
  return jax.jit(jax.vmap(lambda key: init(key, image_shape)))


def _in_memory(examples):
  """Models draw from all examples at any time: images that are on disk are read."""
  return {name: np.asarray(values) for name, values in examples.items()}


def _rows_of_models(of_steps):
  """Group to i32[G,S,B], of S steps' batches of each of G models."""
  shape = len(of_steps[0]), len(of_steps), -1
  each = itertools.chain.from_iterable(zip(*of_steps, strict=True))
  return jax.tree.map(lambda *rows: stack_rows(*rows).reshape(shape), *each)


def _batches(ensemble: _Ensemble, i: int) -> Iterator[dict[str, np.ndarray]]:
  """Model i's batches in the order of the schedule: rows of all examples."""
  chosen = np.flatnonzero(ensemble.membership[i])
  sizes = {"members": len(chosen), "reference": len(ensemble.reference.get("images", ()))}
  seed = rng.numpy_seed(ensemble.seed, f"{ensemble.names[i]}/order")
  for _, rows in ensemble.recipe.batches(sizes, seed):
    members = np.where(rows["members"] < 0, -1, chosen[rows["members"]])
    yield {**rows, "members": members}
