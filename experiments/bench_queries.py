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

from typing import NamedTuple

import jax.numpy as jnp
import measuring
import query_timing
from absl import app, flags
from accepted import ACCEPTANCE, draw_images
from random_networks import bind, in_pytorch, networks_of, random_variables, variables_of

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


_PYTORCH = "PyTorch, as published"


def measure(name: str) -> list[dict]:
  """Figures of the networks of one config, an entry a way."""
  networks = networks_of(name, small=_SMALL.value)
  try:
    theirs = in_pytorch(networks)
    variables = variables_of(networks, theirs)
  except ModuleNotFoundError:
    theirs, variables = None, random_variables(networks)
  bound = *bind(networks, variables, _DTYPE.value, _CLASSIFIER_DTYPE.value), networks.schedule
  ways = ways_of(name, networks, bound, theirs)
  for way in list(ways)[theirs is not None :]:
    ways[way].run()
  runs = {name: lambda way=way: measuring.timed(way.run) for name, way in ways.items()}
  dtype = jnp.dtype(_DTYPE.value)
  runs["a FLOP"] = lambda: 1.0 / measuring.matmul_peak(dtype, rounds=3)
  seconds = measuring.in_turn(runs, _ROUNDS.value)
  peak = 1.0 / min(seconds.pop("a FLOP"))
  flops = query_timing.query_flops(bound, networks.image_shape, _STEP.value)
  of_each = {
    name: measuring.summary([1e3 * s / way.images for s in seconds[name]])
    for name, way in ways.items()
  }
  entries = []
  for way, (num_images, evaluations, _) in ways.items():
    ms, floor = of_each[way], 1e3 * flops.of(evaluations, _CANDIDATES.value) / peak
    entries.append(
      {
        "networks": name,
        "way": way,
        "images": num_images,
        "evaluations": evaluations,
        "ms": ms,
        "queries_a_second": measuring.summary([num_images / s for s in seconds[way]]),
        "against_pytorch": of_each[_PYTORCH]["median"] / ms["median"] if theirs else None,
        "floor_ms": floor,
        "share_of_floor": floor / ms["median"],
        "peak": peak,
        "flops": flops._asdict(),
        "chunk_size": _CHUNK.value,
      }
    )
  return entries


def ways_of(name, networks, bound, theirs) -> dict[str, query_timing.Way]:
  """The ways to answer, PyTorch's first where its networks are there, which has run once."""
  size, shape = _SIZES[name], networks.image_shape
  settings = {"num_candidates": _CANDIDATES.value, "step": _STEP.value}
  images, ways = draw_images(_IMAGES.value or size.images, shape, 0.0), {}
  if theirs:
    how = {**settings, "dtype": _DTYPE.value}
    query_timing.published(networks, theirs, images[:1], **how).run()
    ways[_PYTORCH] = query_timing.published(networks, theirs, images, **how)
  settings["chunk_size"] = _CHUNK.value
  ways["all candidates drawn"] = query_timing.all_drawn(bound, images, **settings)
  num = _EARLY_IMAGES.value or size.early_images
  for way, acceptance in ACCEPTANCE.items():
    ways[way] = query_timing.early_exit(bound, shape, num, acceptance, **settings)
  return ways


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
