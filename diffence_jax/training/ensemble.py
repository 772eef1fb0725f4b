"""Training many classifiers by one recipe, each on examples of its own.

Models are trained in groups: several at once or one after another on every device, different
ones on different devices and hosts. No model needs to hear of another, so nothing is
communicated; and each is handed over to be kept as soon as it is done. So shadow models are
trained, and the teachers of a classifier that learns from others.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffence_jax import models, parallel, rng
from diffence_jax.batching import filled, in_batches, to_float
from diffence_jax.data import Images
from diffence_jax.disk import read_checked, write_checked
from diffence_jax.progress import progress_bar
from diffence_jax.training.feed import check_steps_per_call, on_rows
from diffence_jax.training.loop import Step, grouped, stack_rows
from diffence_jax.training.recipe import Recipe, Teachers

# Several models at once are faster on accelerators, slower on CPU, where convolutions with a
# batch of weights are up to four times slower than one after another.
_MODELS_AT_ONCE = {"cpu": 1}
_MODELS_AT_ONCE_ELSEWHERE = 8

# Images that are answered in one call.
_ANSWERED_AT_ONCE = 512


def default_models_at_once(backend: str) -> int:
  """How many models a device of this backend ("cpu", "gpu", "tpu") trains at once."""
  return _MODELS_AT_ONCE.get(backend, _MODELS_AT_ONCE_ELSEWHERE)


@functools.lru_cache(maxsize=16)
def make_ensemble_step(step: Step, mesh: Mesh) -> Callable[..., Any]:
  """Compiles training steps of a group of models, without collectives; once for a step.

  Args:
    step: of one model, pure; see `recipe.Kind`.
    mesh: the models are divided over it; each device maps its own by `vmap`.

  Returns:
    `(examples, own, state, rows, keys) -> (state, metrics)`: examples, group to {images
    u8[N,H,W,C], labels i32[N]}, whole on every device; own, further arrays [G,N,...] of the
    members that differ from model to model; a state whose leaves have the G models as first
    axis, taken over (donated); rows, group to i32[G,S,B], every model's batches of S steps;
    keys[G]. Metrics are those of the last step.
  """
  steps = on_rows(step)

  def one_model(examples, own, state, rows, key):
    examples = {**examples, "members": {**examples["members"], **own}}
    return steps(examples, state, rows, key)

  def device_step(examples, own, state, rows, keys):
    if len(keys) > 1:
      mapped = jax.vmap(one_model, in_axes=(None, 0, 0, 0, 0))
      return mapped(examples, own, state, rows, keys)
    # One model needs no batch of weights.
    first = jax.tree.map(lambda leaf: leaf[0], (own, state, rows, keys))
    return jax.tree.map(lambda leaf: leaf[None], one_model(examples, *first))

  return jax.jit(parallel.map_over_batch(device_step, mesh), donate_argnums=2)


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
    reference: likewise of the reference set, the same for all, where the recipe needs one.
    membership: bool[S,N], who is in which model's training set.
    names: S names of streams of randomness, for initialisation, order, dropout and noise.
    keep: `keep(i, variables)` is called with every model's variables, NumPy arrays.
    seed: of the streams.
    mesh: groups of models are divided over it.
    models_at_once: on every device; None for `default_models_at_once`.
    steps_per_call: None for `feed.default_steps_per_call`.
    description: for the progress bar and errors.

  Raises:
    FloatingPointError: the loss of a model is no longer finite.
    ValueError: `models_at_once` or `steps_per_call` is less than 1, or the shapes do not fit.
  """
  num = len(members["images"])
  if membership.shape != (len(names), num):
    raise ValueError(
      f"membership is {list(membership.shape)}; expected [{len(names)}, {num}], a row a name "
      "and a column an image."
    )
  if models_at_once is None:
    models_at_once = default_models_at_once(mesh.devices.flat[0].platform)
  if models_at_once < 1:
    raise ValueError(f"models_at_once is {models_at_once}; expected at least 1.")
  steps_per_call = check_steps_per_call(steps_per_call, mesh)
  if not len(names):
    return
  members, reference = _in_memory(members), _in_memory(reference or {})
  # Groups of one size, so that the last one is not filled up in vain.
  num_groups = -(-len(names) // (mesh.size * models_at_once))
  group_size = mesh.size * -(-len(names) // (mesh.size * num_groups))
  steps = {name: make_ensemble_step(kind.step, mesh) for name, kind in recipe.kinds.items()}
  shape = members["images"].shape[1:]
  init = _make_init(recipe.init, shape)
  examples = parallel.replicate(mesh, {"members": members, "reference": reference})
  with progress_bar(len(names) * len(recipe.schedule), description, "step") as bar:
    for start in range(0, len(names), group_size):
      group = list(range(start, min(start + group_size, len(names))))
      # The last group is filled up with its last model: one compiled shape.
      padded = [group[i] for i in filled(0, group_size, len(group))]
      own = {}
      if recipe.teachers is not None:
        taught = teach(
          recipe.teachers,
          members,
          membership[group],
          names=[names[i] for i in group],
          seed=seed,
          mesh=mesh,
          models_at_once=models_at_once,
          steps_per_call=steps_per_call,
        )
        own["soft_labels"] = taught[filled(0, group_size, len(group))]
      own = parallel.shard_batch(mesh, own)
      keys = lambda use, f=padded: jnp.stack([rng.stream(seed, f"{names[i]}/{use}") for i in f])
      state = parallel.shard_batch(mesh, init(keys("init")))
      step_keys = parallel.shard_batch(mesh, keys("steps"))
      streams = [
        _batches(recipe, np.flatnonzero(membership[i]), reference, seed, names[i])
        for i in padded
      ]
      coming = zip(recipe.schedule, zip(*streams, strict=True), strict=True)
      for kind, batches in grouped(coming, steps_per_call):
        rows = parallel.shard_batch(mesh, _rows_of_models(batches))
        state, metrics = steps[kind](examples, own, state, rows, step_keys)
        bar.update(len(group) * len(batches))
      losses = np.asarray(metrics["loss"])[: len(group)]
      if not np.isfinite(losses).all():
        raise FloatingPointError(
          f"The loss of {description}, {names[group[np.argmin(np.isfinite(losses))]]}, is no "
          "longer finite; lower classifier.learning_rate."
        )
      variables = jax.device_get(recipe.variables(state))
      for place, i in enumerate(group):
        keep(i, jax.tree.map(lambda leaf, place=place: leaf[place], variables))
      bar.set_postfix(loss=f"{losses.mean():.4f}")


def teach(
  teachers: Teachers,
  members: Mapping[str, Images],
  membership: np.ndarray,
  *,
  names: Sequence[str],
  seed: int,
  mesh: Mesh,
  models_at_once: int | None = None,
  steps_per_call: int | None = None,
  directory: Path | None = None,
) -> np.ndarray:
  """Trains the teachers of some classifiers, all as one ensemble, and asks them.

  Args:
    teachers: of each.
    members: "images" u8[N,H,W,C] and "labels" i[N] of the examples.
    membership: bool[G,N], who is in which classifier's training set.
    names: G names of the classifiers.
    seed: as in `train_ensemble`.
    mesh: likewise.
    models_at_once: likewise.
    steps_per_call: likewise.
    directory: keeps the answers of every teacher that is done, so that none is trained twice.

  Returns:
    f32[G,N,K], soft labels of each classifier's members; 0 for its non-members.

  Raises:
    ValueError: a teacher's recipe needs a reference set.
  """
  if teachers.recipe.needs_reference:
    raise ValueError("Teachers cannot be trained with a reference set; choose another recipe.")
  members = _in_memory(members)
  rows, own = [], [np.flatnonzero(one) for one in membership]
  for name, chosen in zip(names, own, strict=True):
    taught = teachers.membership(len(chosen), rng.numpy_seed(seed, f"{name}/teachers"))
    for one in taught:
      rows.append((chosen, one))
  num_teachers, num = len(rows) // len(names), membership.shape[1]
  of_teachers = np.zeros((len(rows), num), bool)
  for row, (chosen, one) in zip(of_teachers, rows, strict=True):
    row[chosen[one]] = True
  answers = (
    {} if directory is None else _read_answers(directory, len(rows), len(members["images"]))
  )
  missing = [i for i in range(len(rows)) if i not in answers]
  answer = models.compiled_predictor(teachers.recipe.answering)

  def keep(i, variables):
    answers[missing[i]] = found = _answers(answer, variables, members["images"])
    if directory is not None:
      write_checked(directory / str(missing[i]), found.tobytes())

  train_ensemble(
    teachers.recipe,
    members,
    None,
    of_teachers[missing],
    names=[f"{names[i // num_teachers]}/teacher/{i % num_teachers}" for i in missing],
    keep=keep,
    seed=seed,
    mesh=mesh,
    models_at_once=models_at_once,
    steps_per_call=steps_per_call,
    description="teachers",
  )
  soft_labels = np.zeros((len(names), num, answers[0].shape[-1]), np.float32)
  for place, chosen in enumerate(own):
    mine = range(place * num_teachers, (place + 1) * num_teachers)
    logits = np.stack([answers[i][chosen] for i in mine])
    soft_labels[place, chosen] = teachers.soft_labels(logits, of_teachers[mine][:, chosen])
  return soft_labels


def _read_answers(directory, num_teachers, num):
  """Answers that an earlier, killed run kept: a teacher's number to f32[N,K]."""
  directory.mkdir(parents=True, exist_ok=True)
  kept = {i: read_checked(directory / str(i)) for i in range(num_teachers)}
  return {
    i: np.frombuffer(content, np.float32).reshape(num, -1)
    for i, content in kept.items()
    if content is not None
  }


@functools.lru_cache(maxsize=16)
def _make_init(init, image_shape):
  return jax.jit(jax.vmap(lambda key: init(key, image_shape)))


def _in_memory(examples):
  """Models draw from all examples at any time: images that are on disk are read."""
  return {name: np.asarray(values) for name, values in examples.items()}


def _answers(answer, variables, images):
  """Logits f32[N,K] of images u8[N,H,W,C], in batches of one size."""
  of_rows = lambda rows: answer(variables, to_float(images[rows]))
  return in_batches(of_rows, len(images), _ANSWERED_AT_ONCE)


def _rows_of_models(batches):
  """Group to i32[G,S,B], of S steps' batches of each of G models."""
  shape = len(batches[0]), len(batches), -1
  each = itertools.chain.from_iterable(zip(*batches, strict=True))
  return jax.tree.map(lambda *rows: stack_rows(*rows).reshape(shape), *each)


def _batches(recipe, own, reference, seed, name) -> Iterator[dict[str, np.ndarray]]:
  """One model's batches in the order of the schedule: rows of all examples."""
  sizes = {"members": len(own), "reference": len(reference.get("images", ()))}
  for _, rows in recipe.batches(sizes, rng.numpy_seed(seed, f"{name}/order")):
    members = np.where(rows["members"] < 0, -1, own[rows["members"]])
    yield {**rows, "members": members}
