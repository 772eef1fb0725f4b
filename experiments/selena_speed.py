"""What SELENA's teachers cost in training, against one undefended model.

    python experiments/selena_speed.py --config=configs/digits.py
    XLA_FLAGS=--xla_force_host_platform_device_count=8 python experiments/selena_speed.py ...

Times compiled training steps, in several rounds one after the other so that whatever else slows
the machine slows all: of the undefended classifier, its batches split over the devices; of the
teachers, different ones on different devices; and of the distillation. The cost of a training
follows from how many steps the recipe has. Prints a table in Markdown, medians of the rounds.
"""

import functools
import statistics

import jax
import measuring
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from step_timing import ensemble_steps, single_steps

from diffence_jax import parallel
from diffence_jax.experiment.plan import plan
from diffence_jax.training.feed import default_models_at_once

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; the median is reported.")
_STEPS = flags.DEFINE_integer("steps", 40, "Training steps of every model in a round.")


def target_steps(recipe, examples, batch_size, mesh):
  """A function that times so many steps of one classifier: seconds a step."""
  (kind,) = recipe.kinds.values()
  state = recipe.init(jax.random.key(0), examples["images"].shape[1:])
  return single_steps(kind.step, state, {"members": examples}, batch_size, mesh)


def main(argv) -> None:
  """Measures and prints."""
  del argv
  config = _CONFIG.value.copy_and_resolve_references()
  undefended = plan(config).classifier.recipe
  config.classifier.defense = "selena"
  experiment = plan(config)
  selena, mesh = experiment.classifier.recipe, parallel.batch_mesh()
  members = experiment.dataset.take(experiment.split.members)
  examples = {"images": members.images, "labels": members.labels}
  num_classes = experiment.dataset.num_classes
  soft = np.full((len(members.ids), num_classes), 1 / num_classes, np.float32)
  batch_size = config.classifier.batch_size
  at_once = default_models_at_once(jax.default_backend())
  num_teachers = len(selena.teachers.membership(2, [0]))
  ways = {
    "undefended": target_steps(undefended, examples, batch_size, mesh),
    "teachers": ensemble_steps(selena.teachers.recipe, examples, batch_size, mesh, at_once),
    "distillation": target_steps(selena, {**examples, "soft_labels": soft}, batch_size, mesh),
  }
  steps = {
    "undefended": len(undefended.schedule),
    "teachers": num_teachers * len(selena.teachers.recipe.schedule),
    "distillation": len(selena.schedule),
  }
  for run in ways.values():
    run(3)
  runs = {name: functools.partial(run, _STEPS.value) for name, run in ways.items()}
  seconds = measuring.in_turn(runs, _ROUNDS.value)
  middle = {name: statistics.median(values) for name, values in seconds.items()}
  total = {name: steps[name] * middle[name] for name in ways}
  # A last group that the devices do not divide evenly is filled up.
  total["teachers"] *= -(-num_teachers // mesh.size) * mesh.size / num_teachers
  print(
    f"\n{config.classifier.model}, images {'x'.join(map(str, members.images.shape[1:]))}, "
    f"{num_teachers} teachers; {jax.devices()[0].device_kind} x{jax.device_count()}\n"
  )
  print("| | steps | ms a step (range) | seconds | against undefended |")
  print("|---|---|---|---|---|")
  for name, values in seconds.items():
    low, median, high = (1e3 * f for f in (min(values), middle[name], max(values)))
    print(
      f"| {name} | {steps[name]:,} | {median:.2f} ({low:.2f} to {high:.2f}) "
      f"| {total[name]:.1f} | {total[name] / total['undefended']:.1f}x |"
    )
  whole = total["teachers"] + total["distillation"]
  print(f"| SELENA in all | | | {whole:.1f} | {whole / total['undefended']:.1f}x |")


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  app.run(main)
