"""The training loop: compiled steps, checkpoints, metrics in JSON lines.

Every batch and every key is a function of the seed and the step number, so a run that goes on
from a checkpoint is the run that was never interrupted.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from diffence_jax import parallel, rng
from diffence_jax.checkpoint import Checkpoints
from diffence_jax.compiling import compiled_quickly, shared
from diffence_jax.disk import write_atomically
from diffence_jax.progress import progress_bar
from diffence_jax.stopping import Saver
from diffence_jax.training.save_step import Agreement

# (params, model_state, batch, key) -> (loss f32[], (new model_state, metrics)).
Loss = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]]

# (state, batch, key) -> (state, metrics with at least "loss"): one step of training.
Step = Callable[[Any, Any, jax.Array], tuple[Any, dict[str, jax.Array]]]


class TrainState(NamedTuple):
  """All that a training run carries from step to step.

  Attributes:
    step: i32[], steps done.
    params: the trained parameters.
    model_state: the model's other variables (running statistics), {} if it has none.
    opt_state: the optimizer's.
    average: exponential moving average of the parameters, None if none is kept.
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  average: Any


def init_state(
  variables: dict[str, Any], optimizer: optax.GradientTransformation, *, average: bool = False
) -> TrainState:
  """The state before the first step, from a model's freshly drawn variables."""
  model_state = {name: value for name, value in variables.items() if name != "params"}
  params = variables["params"]
  # A copy: the parameters' own buffers are donated to the step.
  with compiled_quickly():
    # One program for all parameters, not one for each shape.
    opt_state, first_average = _compile_start(optimizer, average)(params)
  return TrainState(jnp.zeros((), jnp.int32), params, model_state, opt_state, first_average)


@shared(16)
def _compile_start(optimizer, average):
  def start(params):
    return optimizer.init(params), jax.tree.map(jnp.copy, params) if average else None

  return jax.jit(start)


def train_step(
  loss: Loss, optimizer: optax.GradientTransformation, ema_decay: float | None = None
) -> Step:
  """Builds the pure step `(state, batch, key) -> (state, metrics)`, not yet compiled.

  Args:
    loss: the loss; its key is `fold_in(key, step)`.
    optimizer: an optax transformation.
    ema_decay: of the parameters' moving average, as in `averaged`.

  Returns:
    The step.
  """

  def step(state, batch, key):
    key = jax.random.fold_in(rng.own_key(key), state.step)
    gradient_of = jax.value_and_grad(loss, has_aux=True)
    (value, (model_state, metrics)), gradients = gradient_of(
      state.params, state.model_state, batch, key
    )
    state = descend(state._replace(model_state=model_state), gradients, optimizer)
    return averaged(state, ema_decay), {"loss": value, **metrics}

  return step


def descend(
  state: TrainState, gradients: Any, optimizer: optax.GradientTransformation
) -> TrainState:
  """The state after one step along some gradients of its parameters."""
  updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return state._replace(step=state.step + 1, params=params, opt_state=opt_state)


def averaged(state: TrainState, ema_decay: float | None) -> TrainState:
  """The state after a step, its parameters taken into their moving average.

  Args:
    state: with the parameters after the step.
    ema_decay: decay of the average, reached as (1 + t) / (10 + t) grows past it, so that a
      short run's average forgets its random start; 0 for the parameters themselves. None where
      no average is kept.
  """
  if ema_decay is None:
    return state
  t = (state.step - 1).astype(jnp.float32)
  decay = jnp.minimum(ema_decay, (1.0 + t) / (10.0 + t))
  average = optax.incremental_update(state.params, state.average, 1.0 - decay)
  return state._replace(average=average)


@shared(16)
def compile_step(step: Step) -> Step:
  """Compiles a step, once; the result takes over (donates) the state it is given."""
  return jax.jit(step, donate_argnums=0)


def take(examples: dict[str, Any], rows: Any) -> dict[str, Any]:
  """The examples of some rows, and which of these are none: a batch of one group.

  Args:
    examples: arrays with the examples along their first axis, NumPy's or JAX's.
    rows: i[B]; -1 where a batch is filled up.

  Returns:
    The arrays' rows, and "is_padding" bool[B].
  """
  return {**{name: values[rows] for name, values in examples.items()}, "is_padding": rows < 0}


def grouped(steps: Iterable[tuple[str, Any]], size: int) -> Iterator[tuple[str, list[Any]]]:
  """Puts what the same kind of step does next together.

  Args:
    steps: the kind and the batch of every step.
    size: steps to put together.

  Yields:
    A kind and `size` batches of it; or one, of those that are left before the kind changes or
    all ends: a kind of step is compiled for two lengths at most. From the end of a group on,
    the groups are those of a run that begins there.
  """
  for kind, run in itertools.groupby(steps, key=lambda step: step[0]):
    while group := [batch for _, batch in itertools.islice(run, size)]:
      whole = len(group) == size
      for part in [group] if whole else ([batch] for batch in group):
        yield kind, part


def stack_rows(*rows: np.ndarray) -> np.ndarray:
  """Batches i[B] as one array i32[n,B], filled up with -1 to the longest of them."""
  longest = max(map(len, rows))
  fill = lambda row: np.pad(row, (0, longest - len(row)), constant_values=-1)
  return np.stack([fill(row) for row in rows]).astype(np.int32)


def place(mesh: Mesh, batches: list[Any], steps_per_call: int) -> Any:
  """Splits what one call takes over the mesh: a batch, or several steps' rows as [S,B]."""
  if steps_per_call == 1:
    return parallel.shard_batch(mesh, *batches)
  return parallel.shard_batch(mesh, jax.tree.map(stack_rows, *batches), axis=1)


def fit(
  steps: Mapping[str, Step],
  state: Any,
  batches: Callable[[int], Iterator[tuple[str, Any]]],
  *,
  num_steps: int,
  key: jax.Array,
  mesh: Mesh,
  directory: Path,
  checkpoint_every: int,
  description: str,
  steps_per_call: int = 1,
  shard_parameters: bool = False,
) -> Any:
  """Takes `num_steps` steps, from the last checkpoint in `directory` if there is one.

  Args:
    steps: kind of step to compiled step, as `compile_step` makes it; or what takes several,
      given their batches along one more axis in front, as `feed.feed` makes it.
    state: the state before the first step.
    batches: given the number of steps done, what comes next: a kind of step and its batch, a
      pytree of arrays with the examples along their first axis; for several steps a call, of
      rows i[B].
    num_steps: steps in all.
    key: of the steps' randomness.
    mesh: batches are split over it.
    directory: `resume/` in it holds the checkpoints, `metrics.jsonl` the metrics.
    checkpoint_every: steps between checkpoints; they, and the metrics, are written after the
      call in which they fall due, a checkpoint also when the process is asked to stop, or,
      where the state is divided over processes, one of these.
    description: for the progress bar.
    steps_per_call: steps of one kind in a row that are one call; see `grouped`.
    shard_parameters: whether the steps are of a state that is divided over the mesh.

  Returns:
    The state after the last step, whole; of what was divided NumPy arrays.

  Raises:
    FloatingPointError: the loss is no longer finite.
    ValueError: the batch cannot be split over the devices.
  """
  folder, writes = directory / "resume" / "checkpoints", parallel.writes(mesh)
  if writes:
    checkpoints = Checkpoints(folder)
  parallel.meet(mesh, f"{description}: checkpoints")
  if not writes:
    checkpoints = Checkpoints(folder, writes=False)
  first_step = checkpoints.latest_step()
  state = (parallel.spread if shard_parameters else parallel.replicate)(mesh, state)
  if first_step:
    state = checkpoints.restore(state)
  # Of what is divided each has a part; what is whole the first saves when it is asked itself.
  agreement = Agreement(mesh if shard_parameters else mesh.local_mesh)
  log_every = max(1, num_steps // 100)
  left = itertools.islice(batches(first_step), num_steps - first_step)
  with (
    _open_log(directory / "metrics.jsonl", first_step, writes) as log,
    progress_bar(num_steps, description, "step", first_step) as bar,
    Saver() as saver,
  ):
    done, latest = first_step, {}  # metrics of every kind since the last line
    for kind, group in grouped(left, steps_per_call):
      batch = place(mesh, group, steps_per_call)
      state, latest[kind] = steps[kind](state, batch, key)
      bar.update(len(group))
      before, done = done, done + len(group)
      if done // log_every > before // log_every or done == num_steps:
        for kind, metrics in latest.items():
          values = {name: float(value) for name, value in metrics.items()}
          if not np.isfinite(values["loss"]):
            raise FloatingPointError(
              f"The loss is {values['loss']} at step {done} of the {description}; "
              "lower the learning rate or the clipping norm."
            )
          log.write(json.dumps({"step": done, "kind": kind, **values}) + "\n")
        bar.set_postfix(loss=f"{values['loss']:.4f}")
        latest.clear()
      is_due = done // checkpoint_every > before // checkpoint_every
      is_asked = agreement.reached(saver.is_asked())
      if (is_due or is_asked) and done < num_steps:
        log.flush()
        if writes or shard_parameters:
          checkpoints.save(done, state)
        if writes and is_asked:  # of a pod the others go on until the first has saved
          saver.saved()
  return parallel.whole(mesh, state) if shard_parameters else state


def _open_log(path, first_step, writes):
  """Opens the metrics for appending, less the lines after the checkpoint."""
  if not writes:
    return open(os.devnull, "w", encoding="utf-8")
  lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
  kept = []
  for line in lines:
    try:
      is_before = json.loads(line)["step"] <= first_step
    except (ValueError, TypeError, KeyError):  # a line that a killed run was writing
      break
    if is_before:
      kept.append(line)
  write_atomically(path, "".join(f"{line}\n" for line in kept))
  return open(path, "a", encoding="utf-8")
