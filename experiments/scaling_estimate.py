"""What the paper's CIFAR-10 run with shadow models takes on so many devices, computed.

    python experiments/scaling_estimate.py --output=scaling_estimate.json

Nothing is trained and no weights are allocated: operations are those that XLA counts in the
programs of the package, lowered from shapes; with `--memory` the training steps and a chunk of
re-generations are compiled too, for what they hold (of this machine's backend; ten minutes on
two cores). Seconds follow from an assumed peak and the assumed share of it that is reached:
they are estimates, and nobody has measured them. Prints tables in Markdown.
"""

import functools
import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import measuring
from absl import app, flags
from step_timing import denoiser_training

from diffence_jax import models
from diffence_jax.experiment.claims import Alone, Claims
from diffence_jax.experiment.presets import paper_config
from diffence_jax.training import baselines
from diffence_jax.training.recipe import TrainSettings

_DEVICES = flags.DEFINE_list("devices", ["1", "8", "64"], "Numbers of devices.")
_MODELS = flags.DEFINE_integer("models", 128, "Shadow models.")
_IMAGES = flags.DEFINE_integer("images", 50_000, "Images that every model is asked about.")
_PEAK = flags.DEFINE_float("peak_tflops", 494.0, "A device's peak, in 10^12 FLOP/s.")
_SHARE = flags.DEFINE_float("share_of_peak", 0.3, "The share of it that is assumed.")
_MEMORY = flags.DEFINE_bool("memory", False, "Compile, and say what programs hold.")
_SMALL = flags.DEFINE_bool("small", False, "Tiny networks, to try the script.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the figures.")

_SHAPE = (32, 32, 3)
_CLASSES = 10
_MEMBERS = 25_000
_A_HOST = 8  # devices
_CHUNK = 512  # re-generations at a time, for the memory


class Program(NamedTuple):
  """A function to be compiled, and the shapes that it is compiled for."""

  function: Callable[..., Any]
  args: tuple[Any, ...]

  def flops(self) -> float:
    """Operations of one call, by XLA."""
    return self._lowered().cost_analysis()["flops"]

  def memory(self) -> dict[str, int]:
    """Bytes of arguments, results and temporaries of one call, as this backend compiles it."""
    analysis = self._lowered().compile().memory_analysis()
    return {
      "arguments": analysis.argument_size_in_bytes,
      "results": analysis.output_size_in_bytes,
      "temporaries": analysis.temp_size_in_bytes,
    }

  def _lowered(self):
    # Optax raises floats to integer powers, which the tests' strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
      return jax.jit(self.function).lower(*self.args)


class Stage(NamedTuple):
  """A part of the run.

  Attributes:
    name: for the table.
    flops: of one item.
    items: how many independent ones; what one is made of may be divided too.
    is_divided: whether one item is divided over all devices.
    written: bytes, in all.
  """

  name: str
  flops: float
  items: int
  is_divided: bool
  written: int

  def seconds(self, devices: int, rate: float) -> float:
    """How long it takes on so many devices of so many FLOP/s each, a process a host."""
    if self.is_divided:
      return self.items * self.flops / (devices * rate)
    here = min(devices, _A_HOST)
    # Whoever is free first claims a round of what is left, an item a device.
    free, left = [0.0] * math.ceil(devices / _A_HOST), self.items
    claims = Claims() if len(free) > 1 else Alone()
    while left:
      claimed = claims.share(left, here)
      left -= claimed
      rounds = math.ceil(claimed / here)
      heapq.heappush(free, heapq.heappop(free) + rounds * self.flops / rate)
    return max(free)


def paper_programs(small: bool = False) -> dict[str, Program]:
  """The paper's training steps, a re-generated chunk and a classified one.

  Args:
    small: tiny networks instead.
  """
  config = paper_config()
  fields = {"classifier": {}, "diffusion": {}}
  if small:
    fields["classifier"] = {"width": 8, "stages": (1, 1)}
    fields["diffusion"] = {"channels": 8, "multipliers": (1,), "num_res_blocks": 1}
    fields["diffusion"]["attention_levels"] = ()
  classifier = models.make_classifier(
    config.classifier.model, num_classes=_CLASSES, **fields["classifier"]
  )
  denoiser = models.make_denoiser(
    config.diffusion.model, out_channels=_SHAPE[-1], **fields["diffusion"]
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  variables = {
    module: jax.eval_shape(functools.partial(models.init, module, image_shape=_SHAPE), key)
    for module in (classifier, denoiser)
  }
  images = lambda num, dtype: jax.ShapeDtypeStruct((num, *_SHAPE), dtype)
  whole = lambda num: jax.ShapeDtypeStruct((num,), jnp.int32)
  diffusion, batch = config.diffusion, config.classifier.batch_size

  train, start = denoiser_training(denoiser, diffusion, _SHAPE)
  state = jax.eval_shape(start, variables[denoiser])
  examples = {"images": {"images": images(diffusion.batch_size, jnp.uint8)}}

  settings = TrainSettings(num_members=_MEMBERS, batch_size=batch)
  recipe = baselines.undefended(classifier, settings)
  (kind,) = recipe.kinds.values()
  learner = jax.eval_shape(lambda key: recipe.init(key, _SHAPE), key)
  members = {"images": images(batch, jnp.uint8), "labels": whole(batch)}
  return {
    "diffusion step": Program(train, (state, examples, key)),
    "classifier step": Program(kind.step, (learner, {"members": members}, key)),
    "re-generations": Program(
      denoiser.apply, (variables[denoiser], images(_CHUNK, jnp.float32), whole(_CHUNK))
    ),
    "answers": Program(classifier.apply, (variables[classifier], images(_CHUNK, jnp.float32))),
  }


def stages_of(programs: dict[str, Program], num_models: int, num_images: int) -> list[Stage]:
  """The run's parts, with what they cost.

  Args:
    programs: as `paper_programs` makes them.
    num_models: shadow models.
    num_images: images that every model is asked about.
  """
  config = paper_config()
  candidates = config.purify.num_candidates
  flops = {name: program.flops() for name, program in programs.items()}
  size = {name: _bytes(programs[name].args[0]) for name in ("re-generations", "answers")}
  steps = math.ceil(_MEMBERS * config.classifier.epochs / config.classifier.batch_size)
  training = steps * flops["classifier step"]
  regenerated = num_images * candidates * flops["re-generations"] / _CHUNK
  answered = num_images * (candidates + 1) * flops["answers"] / _CHUNK
  record = 4 * num_images * (candidates + 1) * _CLASSES
  return [
    Stage(
      "diffusion model",
      config.diffusion.num_steps * flops["diffusion step"],
      1,
      True,
      size["re-generations"],
    ),
    Stage("classifier", training, 1, True, size["answers"]),
    Stage("shadow models", training, num_models, False, num_models * size["answers"]),
    Stage("the target's record", regenerated + answered, 1, True, record),
    Stage(
      "the shadow models' record",
      regenerated + num_models * answered,
      1,
      True,
      num_models * record,
    ),
  ]


def _bytes(tree: Any) -> int:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def estimate(
  stages: Sequence[Stage], devices: Sequence[int], rate: float
) -> list[dict[str, Any]]:
  """An entry a stage: FLOPs, bytes and, for each number of devices, hours."""
  return [
    {
      "stage": stage.name,
      "flops": stage.items * stage.flops,
      "written": stage.written,
      "hours": {num: stage.seconds(num, rate) / 3600.0 for num in devices},
    }
    for stage in stages
  ]


def main(_) -> None:
  """Counts, prints and writes."""
  devices = [int(text) for text in _DEVICES.value]
  programs = paper_programs(_SMALL.value)
  rate = _SHARE.value * _PEAK.value * 1e12
  entries = estimate(stages_of(programs, _MODELS.value, _IMAGES.value), devices, rate)
  total = {
    "stage": "in all",
    **{what: sum(entry[what] for entry in entries) for what in ("flops", "written")},
    "hours": {num: sum(entry["hours"][num] for entry in entries) for num in devices},
  }
  print(
    f"{_MODELS.value} shadow models, {_IMAGES.value:,} images; {_SHARE.value:.0%} of "
    f"{_PEAK.value:g} TFLOP/s assumed\n"
  )
  measuring.show_table(
    ["stage", "10^15 FLOPs", "GB written", *(f"hours on {num}" for num in devices)],
    [
      [
        entry["stage"],
        f"{entry['flops'] / 1e15:,.1f}",
        f"{entry['written'] / 1e9:.2f}",
        *(f"{entry['hours'][num]:.2f}" for num in devices),
      ]
      for entry in [*entries, total]
    ],
  )
  memory = {}
  if _MEMORY.value:
    memory = {name: program.memory() for name, program in programs.items()}
    print()
    measuring.show_table(
      ["program", "arguments, GiB", "results, GiB", "temporaries, GiB"],
      [[n, *(f"{b / 2**30:.2f}" for b in held.values())] for n, held in memory.items()],
    )
  figures = {"rate": rate, "stages": [*entries, total], "memory": memory}
  measuring.write_figures(_OUTPUT.value, figures)


if __name__ == "__main__":
  app.run(main)
