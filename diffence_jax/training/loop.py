"""The training loop: host-driven compiled steps, checkpoints, metrics in JSON lines.

Every batch and every key is a function of the seed and the step number, so a run that goes on
from a checkpoint is the run that was never interrupted.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from diffence_jax import parallel
from diffence_jax.artifacts import write_atomically
from diffence_jax.checkpoint import Checkpoints
from diffence_jax.progress import progress_bar

# (params, model_state, batch, key) -> (loss f32[], (new model_state, metrics)).
Loss = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]]


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
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=optimizer.init(params),
    # A copy: the parameters' own buffers are donated to the step.
    average=jax.tree.map(jnp.copy, params) if average else None,
  )


def train_step(
  loss: Loss, optimizer: optax.GradientTransformation, ema_decay: float | None = None
) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
  """Builds the pure step `(state, batch, key) -> (state, metrics)`, not yet compiled.

  Args:
    loss: the loss; its key is `fold_in(key, step)`.
    optimizer: an optax transformation.
    ema_decay: decay of the parameters' moving average, reached as (1 + t) / (10 + t) grows
      past it, so that a short run's average forgets its random start; None keeps no average.

  Returns:
    The step.
  """

  def step(state, batch, key):
    key = jax.random.fold_in(key, state.step)
    gradient_of = jax.value_and_grad(loss, has_aux=True)
    (value, (model_state, metrics)), gradients = gradient_of(
      state.params, state.model_state, batch, key
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if ema_decay is not None:
      t = state.step.astype(jnp.float32)
      decay = jnp.minimum(ema_decay, (1.0 + t) / (10.0 + t))
      average = optax.incremental_update(params, average, 1.0 - decay)
    state = TrainState(state.step + 1, params, model_state, opt_state, average)
    return state, {"loss": value, **metrics}

  return step


def make_train_step(
  loss: Loss, optimizer: optax.GradientTransformation, ema_decay: float | None = None
) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
  """Compiles `train_step`; the result takes over (donates) the state it is given."""
  return jax.jit(train_step(loss, optimizer, ema_decay), donate_argnums=0)


def index_batches(
  num_examples: int, batch_size: int, seed: int | Sequence[int], first_step: int = 0
) -> Iterator[np.ndarray]:
  """Batches of indices from one endless stream of shuffled epochs.

  A batch may span two epochs, so all batches are full, every example is seen equally often,
  and the compiled step has one shape.

  Args:
    num_examples: examples to draw from, at least 1.
    batch_size: indices in a batch.
    seed: of the shuffles, one number or several; epoch e is shuffled by (seed, e).
    first_step: the step to start from.

  Yields:
    i64[batch_size].
  """
  position = first_step * batch_size
  epoch, order = -1, np.empty(0, np.int64)
  while True:
    parts, missing = [], batch_size
    while missing:
      if position // num_examples != epoch:
        epoch = position // num_examples
        order = np.random.default_rng([*np.atleast_1d(seed), epoch]).permutation(num_examples)
      offset = position % num_examples
      parts.append(order[offset : offset + missing])
      position += len(parts[-1])
      missing -= len(parts[-1])
    yield np.concatenate(parts)


def fit(
  train_step: Callable[[TrainState, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]],
  state: TrainState,
  examples: dict[str, np.ndarray],
  *,
  num_steps: int,
  batch_size: int,
  seed: int,
  key: jax.Array,
  mesh: Mesh,
  directory: Path,
  checkpoint_every: int,
  description: str,
) -> TrainState:
  """Runs `train_step` to `num_steps`, from the last checkpoint in `directory` if there is one.

  Args:
    train_step: as `make_train_step` builds it.
    state: the state before the first step.
    examples: arrays with the examples along their first axis.
    num_steps: steps in all.
    batch_size: examples a step, over all devices.
    seed: of the order of the examples.
    key: of the step's randomness.
    mesh: batches are split over it.
    directory: `resume/` in it holds the checkpoints, `metrics.jsonl` the metrics.
    checkpoint_every: steps between checkpoints.
    description: for the progress bar.

  Returns:
    The state after the last step.

  Raises:
    FloatingPointError: the loss is no longer finite.
    ValueError: the batch cannot be split over the devices.
  """
  checkpoints = Checkpoints(directory / "resume")
  first_step = checkpoints.latest_step()
  state = parallel.replicate(mesh, state)
  if first_step:
    state = checkpoints.restore(state)
  log_every = max(1, num_steps // 100)
  num_examples = len(next(iter(examples.values())))
  batches = index_batches(num_examples, batch_size, seed, first_step)
  with (
    _open_log(directory / "metrics.jsonl", first_step) as log,
    progress_bar(num_steps, description, "step", first_step) as bar,
  ):
    for step in range(first_step, num_steps):
      chosen = next(batches)
      batch = {name: values[chosen] for name, values in examples.items()}
      state, metrics = train_step(state, parallel.shard_batch(mesh, batch), key)
      bar.update()
      done = step + 1
      if done % log_every == 0 or done == num_steps:
        values = {name: float(value) for name, value in metrics.items()}
        if not np.isfinite(values["loss"]):
          raise FloatingPointError(
            f"The loss is {values['loss']} at step {done} of the {description}; "
            "lower the learning rate or the clipping norm."
          )
        bar.set_postfix(loss=f"{values['loss']:.4f}")
        log.write(json.dumps({"step": done, **values}) + "\n")
      if done % checkpoint_every == 0 and done < num_steps:
        log.flush()
        checkpoints.save(done, state)
  checkpoints.close()
  return state


def _open_log(path, first_step):
  """Opens the metrics for appending, less the lines after the checkpoint."""
  lines = path.read_text().splitlines() if path.is_file() else []
  kept = []
  for line in lines:
    try:
      if json.loads(line)["step"] <= first_step:
        kept.append(line)
    except ValueError:  # a line that a killed run was writing
      break
  write_atomically(path, "".join(f"{line}\n" for line in kept))
  return open(path, "a", encoding="utf-8")
