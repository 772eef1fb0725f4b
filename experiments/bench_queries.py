"""Protected queries a second: all candidates drawn, early exit, and the published procedure.

    pip install torch
    python experiments/bench_queries.py --output=bench_queries.json
    python experiments/bench_queries.py --networks=cifar10 --images=256 \
      --early_images=1024 --dtype=bfloat16 --output=bench_queries_gpu.json  # on an accelerator

For the networks of each config, on random weights and images: the plain PyTorch version of the
published procedure (`torch_networks.published_procedure`, the same weights); `dj.protect`
drawing all candidates; and `dj.protect(..., constant_time=False)` in each scenario. One way
after the other, in several rounds, in one process. Beside them the floor: the FLOPs of what is
drawn, over those a second of a product of large matrices.

How long early exit takes depends on how many candidates are accepted, and random networks say
nothing of that. So a wrapper of the classifier decides it by a hash of the re-generated image,
at the rates that were measured with trained networks (`ACCEPTANCE`); the classifier is
evaluated all the same. All of the images' other candidates are refused.

Prints a table in Markdown. Without PyTorch its lines are left out.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import measuring
import numpy as np
from absl import app, flags
from accepted import ACCEPTANCE, accepting, draw_images
from random_networks import networks_of, with_pytorch

import diffence_jax as dj
from diffence_jax import models
from diffence_jax.defense import make_early_selection
from diffence_jax.defense.pairs import pair_logits

_NETWORKS = flags.DEFINE_list(
  "networks", ["digits", "fashion_mnist_small", "cifar10"], "Configs whose networks to take."
)
_CANDIDATES = flags.DEFINE_integer("candidates", 30, "Candidates a query, N.")
_STEP = flags.DEFINE_integer("step", 160, "Diffusion steps, T.")
_IMAGES = flags.DEFINE_integer("images", None, "Images a call, where all is drawn.")
_EARLY_IMAGES = flags.DEFINE_integer("early_images", None, "Images a call with early exit.")
_CHUNK = flags.DEFINE_integer(
  "chunk_size", None, "Re-generations at a time; as the memory allows by default."
)
_DTYPE = flags.DEFINE_string("dtype", "float32", "What our diffusion network computes in.")
_CLASSIFIER_DTYPE = flags.DEFINE_string(
  "classifier_dtype", "float32", "What our classifier computes in."
)
_SMALL = flags.DEFINE_bool("small", False, "Tiny networks, to try the script.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds; the median is reported.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the figures.")


class Size(NamedTuple):
  """How much of it to measure on a CPU, images a call."""

  images: int
  early_images: int


_SIZES = {
  "digits": Size(100, 1000),
  "fashion_mnist_small": Size(30, 300),
  "cifar10": Size(10, 60),
}


def measure(name: str) -> list[dict]:
  """Figures of the networks of one config, an entry a way."""
  size = _SIZES[name]
  num = _IMAGES.value or size.images
  num_early = _EARLY_IMAGES.value or size.early_images
  networks = networks_of(name, small=_SMALL.value)
  classifier, denoiser, schedule, image_shape = networks
  dtype = jnp.dtype(_DTYPE.value)
  in_torch = with_pytorch(networks)
  if in_torch:
    torch_modules, variables = in_torch
  else:
    variables = [
      models.init(module, jax.random.key(0), image_shape) for module in (classifier, denoiser)
    ]
  classifier = classifier.clone(dtype=jnp.dtype(_CLASSIFIER_DTYPE.value))
  predict = models.predictor(classifier, variables[0])
  denoise = models.denoiser(denoiser.clone(dtype=dtype), variables[1])
  settings = {"num_candidates": _CANDIDATES.value, "step": _STEP.value}
  key = jax.random.key(1)

  # A way: how many images, how many candidates of each on average, and how to run it once.
  ways, images = {}, draw_images(num, image_shape, 0.0)
  if in_torch:
    import torch_networks

    published = torch_networks.published_procedure(
      *torch_modules, np.asarray(schedule.alpha_bar), dtype=dtype.name, **settings
    )
    published(images[:1])
    ways["PyTorch, as published"] = num, 2 * _CANDIDATES.value, lambda: published(images)
  settings["chunk_size"] = _CHUNK.value
  protected = dj.protect(predict, denoise, schedule, **settings)
  ways["all candidates drawn"] = num, _CANDIDATES.value, lambda: protected(key, images)
  for way, acceptance in ACCEPTANCE.items():
    accept = accepting(predict, acceptance)
    batch = draw_images(num_early, image_shape, acceptance.never)
    select = make_early_selection(accept, denoise, schedule, **settings)
    early = dj.protect(accept, denoise, schedule, constant_time=False, **settings)
    evaluations = select(key, batch, np.arange(num_early), accept(key, batch)).evaluations
    ways[way] = num_early, evaluations / num_early, functools.partial(early, key, batch)
  for way in list(ways)[bool(in_torch) :]:
    measuring.timed(ways[way][2])
  runs = {way: lambda run=run: measuring.timed(run) for way, (_, _, run) in ways.items()}
  runs["a FLOP"] = lambda: 1.0 / measuring.matmul_peak(dtype, rounds=3)
  seconds = measuring.in_turn(runs, _ROUNDS.value)
  peak = 1.0 / min(seconds.pop("a FLOP"))

  pairs = jnp.asarray(images)[:1], jnp.arange(1), jnp.arange(1)
  draw = lambda *pairs: pair_logits(key, predict, denoise, schedule, *pairs, step=_STEP.value)
  flops = {
    "candidate": measuring.compiled_flops(draw, *pairs),
    "raw": measuring.compiled_flops(functools.partial(predict, key), pairs[0]),
    "denoiser": measuring.compiled_flops(denoise, pairs[0], pairs[1]),
  }
  entries = []
  for way, (num_images, drawn, _) in ways.items():
    published_ms = 1e3 * np.median(seconds.get("PyTorch, as published", [np.nan])) / num
    ms = measuring.summary([1e3 * s / num_images for s in seconds[way]])
    # As published, a candidate takes the diffusion network twice and the classifier once.
    once = min(drawn, _CANDIDATES.value)
    total = once * flops["candidate"] + (drawn - once) * flops["denoiser"] + flops["raw"]
    floor = 1e3 * total / peak
    entries.append(
      {
        "networks": name,
        "way": way,
        "images": num_images,
        "evaluations": drawn,
        "ms": ms,
        "queries_a_second": measuring.summary([num_images / s for s in seconds[way]]),
        "against_pytorch": published_ms / ms["median"] if in_torch else None,
        "floor_ms": floor,
        "share_of_floor": floor / ms["median"],
        "peak": peak,
        "flops": flops,
        "chunk_size": _CHUNK.value,
      }
    )
  return entries


def main(_) -> None:
  """Measures, prints and writes."""
  header = (
    "networks",
    "way",
    "evaluations a query",
    "queries a second (range)",
    "ms a query",
    "against PyTorch",
    "floor, ms",
    "of the floor",
  )
  entries = []
  for name in _NETWORKS.value:
    entries += measure(name)
    measuring.write_figures(_OUTPUT.value, {"queries": entries})
  rows = [
    [
      entry["networks"],
      entry["way"],
      f"{entry['evaluations']:.2f}",
      measuring.with_range(entry["queries_a_second"], ".3g"),
      f"{entry['ms']['median']:.3g}",
      f"{entry['against_pytorch']:.2f}x" if entry["against_pytorch"] else "",
      f"{entry['floor_ms']:.3g}",
      f"{entry['share_of_floor']:.0%}",
    ]
    for entry in entries
  ]
  print(f"\n{_CANDIDATES.value} candidates, step {_STEP.value}, {_DTYPE.value}\n")
  measuring.show_table(header, rows)


if __name__ == "__main__":
  app.run(main)
