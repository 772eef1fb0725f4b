"""Training steps a second: the classifier, the diffusion model, and ensembles of classifiers.

    pip install torch && python experiments/bench_training.py --config=configs/digits.py:audit

Networks, optimizers, batch sizes and images are the config's. Classifier and diffusion model
stand beside the same in PyTorch, eager as one writes it; ensembles are trained one model after
another, and several at once. All in one process, one way after the other in several rounds, so
that whatever else slows the machine slows all. What is timed is compiled and warmed up; an
hour's models follow from the steps that the config's recipe takes. Prints a table in Markdown:
the median of the rounds, their range, the ratio to PyTorch, whose lines are left out where it
is not installed, and the floor: a step's FLOPs over those a second of a product of large
matrices.
"""

import functools

import jax
import measuring
from absl import app, flags
from ml_collections import config_flags
from step_timing import denoiser_training, ensemble_steps, single_steps, step_flops

from diffence_jax import models, parallel
from diffence_jax.experiment.plan import plan

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.")
_AT_ONCE = flags.DEFINE_list("at_once", ["1", "8", "25"], "Models at once on a device.")
_DIFFUSION = flags.DEFINE_bool("diffusion", True, "Whether the diffusion model is trained too.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; the median is reported.")
_STEPS = flags.DEFINE_integer("steps", 40, "Training steps of every model in a round.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the figures.")


def main(_) -> None:
  """Measures and prints."""
  experiment = plan(_CONFIG.value)
  settings, recipe = experiment.settings.classifier, experiment.classifier.recipe
  diffusion = experiment.settings.diffusion
  classifier, denoiser = experiment.classifier.bound, experiment.diffusion.bound
  steps = {"classifier": len(recipe.schedule), "diffusion": diffusion.num_steps}
  members = experiment.dataset.take(experiment.split.members)
  examples = {"images": members.images, "labels": members.labels}
  mesh = parallel.batch_mesh()
  (kind,) = recipe.kinds.values()
  init = recipe.init(jax.random.key(0), members.images.shape[1:])
  sizes = settings.batch_size, mesh
  training = kind.step, init, {"members": examples}
  ways = {"classifier, ours": single_steps(*training, *sizes)}
  flops = {"classifier": step_flops(*training, settings.batch_size)}
  for at_once in map(int, _AT_ONCE.value):
    name = "one after another" if at_once == 1 else f"{at_once} at once"
    ways[f"classifier, ensemble, {name}"] = ensemble_steps(recipe, examples, *sizes, at_once)
  if _DIFFUSION.value:
    shape = members.images.shape[1:]
    step, start = denoiser_training(denoiser.module, diffusion, shape)
    state = start(models.init(denoiser.module, jax.random.key(0), shape))
    training = step, state, {"images": {"images": members.images}}
    ways["diffusion, ours"] = single_steps(*training, diffusion.batch_size, mesh)
    flops["diffusion"] = step_flops(*training, diffusion.batch_size)
  try:
    import torch_training

    ways["classifier, PyTorch"] = torch_training.classifier_steps(
      classifier.module, settings, members.images, members.labels
    )
    if _DIFFUSION.value:
      ways["diffusion, PyTorch"] = torch_training.denoiser_steps(
        denoiser.module, diffusion, members.images
      )
  except ModuleNotFoundError:
    print("PyTorch is not installed; its lines are left out.")
  for run in ways.values():
    run(_STEPS.value)
  runs = {name: functools.partial(run, _STEPS.value) for name, run in ways.items()}
  runs["a FLOP"] = lambda: 1.0 / measuring.matmul_peak(rounds=3)
  seconds = measuring.in_turn(runs, _ROUNDS.value)
  peak = 1.0 / min(seconds.pop("a FLOP"))
  ms = {name: measuring.summary([1e3 * s for s in times]) for name, times in seconds.items()}
  entries, rows = [], []
  for name, values in sorted(ms.items()):
    what = name.split(",")[0]
    theirs = ms.get(f"{what}, PyTorch", {"median": float("nan")})["median"]
    middle = values["median"]
    floor = 1e3 * flops[what] / peak
    entries.append(
      {"way": name, "ms": values, "against_pytorch": theirs / middle, "floor_ms": floor}
    )
    an_hour = 3.6e6 / (steps[what] * middle)
    rows.append(
      [
        name,
        measuring.with_range(values),
        f"{1e3 / middle:.1f}",
        f"{an_hour:,.1f}",
        f"{theirs / middle:.2f}x",
        f"{floor:.3g}",
        f"{floor / middle:.0%}",
      ]
    )
  counts = {
    "classifier": models.num_parameters(classifier.variables),
    "diffusion": models.num_parameters(denoiser.variables),
  }
  shape = "x".join(map(str, members.images.shape[1:]))
  print(f"\nImages {shape}; {jax.devices()[0].device_kind} x{jax.device_count()}")
  for what, batch_size in (
    ("classifier", settings.batch_size),
    ("diffusion", diffusion.batch_size),
  ):
    print(
      f"{what}: {counts[what]:,} parameters, batch {batch_size}, {steps[what]:,} steps a model"
    )
  print()
  header = ["", "ms a step and model (range)", "steps a second", "models an hour"]
  measuring.show_table([*header, "against PyTorch", "floor, ms", "of the floor"], rows)
  figures = {"config": experiment.settings.name, "parameters": counts, "steps": steps}
  figures |= {"flops": flops, "peak": peak}
  measuring.write_figures(_OUTPUT.value, {**figures, "ways": entries})


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  app.run(main)
