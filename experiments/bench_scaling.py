"""How the cost of protected queries grows: with candidates, images, chunks and devices.

    python experiments/bench_scaling.py --output=bench_scaling.json --plot=bench_scaling.png

All candidates are drawn, through the networks of a config on random weights.

* Seconds a call against candidates and against images, each with the line fitted to it and the
  share of the variance that it explains, R^2.
* The most memory resident, of a process of its own for each number of candidates, of images,
  and chunk size.
* FLOPs of each device's share, in a process of its own for 1, 2, 4 and 8 devices that are made
  up (`--xla_force_host_platform_device_count`): what the compiled program says, not seconds.
"""

import json

import jax
import jax.numpy as jnp
import measuring
import numpy as np
from absl import app, flags
from random_networks import bind_random, networks_of, random_images

import diffence_jax as dj
from diffence_jax import parallel

_CONFIG = flags.DEFINE_string(
  "config", "fashion_mnist_small", "The config whose networks to take."
)
_CANDIDATES = flags.DEFINE_list("candidates", ["5", "10", "20", "30", "50"], "Numbers, N.")
_IMAGES = flags.DEFINE_list("images", ["16", "32", "64", "96", "128"], "Images a call.")
_CHUNKS = flags.DEFINE_list("chunk_sizes", ["64", "256", "1024"], "Chunks, for the memory.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds; the median is reported.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the figures.")
_PLOT = flags.DEFINE_string("plot", None, "An image file for the plot.")
_ALONE = flags.DEFINE_string("alone", None, "For the script itself: what a process does.")


def make_protected(config: str, num_candidates: int, chunk_size: int, mesh=None):
  """The protected predictor, and a function that draws so many images for it."""
  networks = networks_of(config)
  protected = dj.protect(
    *bind_random(networks),
    networks.schedule,
    num_candidates=num_candidates,
    chunk_size=chunk_size,
    mesh=mesh,
  )
  return protected, lambda num: random_images(num, networks.image_shape)


def alone(argument: dict) -> dict[str, float]:
  """What a process of its own finds out: the peak of memory, or FLOPs a device."""
  num_images = argument.pop("images")
  if argument.pop("flops"):
    mesh = parallel.batch_mesh()
    protected, draw = make_protected(**argument, mesh=mesh)
    images = jnp.asarray(draw(num_images))
    return {"flops": measuring.compiled_flops(protected, jax.random.key(1), images)}
  protected, draw = make_protected(**argument)
  for seed in range(2):
    protected(jax.random.key(seed), draw(num_images)).block_until_ready()
  return {"bytes": measuring.peak_memory()}


def fitted_line(x, y) -> dict[str, float]:
  """Least squares: slope, intercept and R^2."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  slope, intercept = np.polyfit(x, y, 1)
  rest = np.sum((y - slope * x - intercept) ** 2)
  r_squared = 1.0 - rest / np.sum((y - y.mean()) ** 2)
  return {"slope": float(slope), "intercept": float(intercept), "r_squared": float(r_squared)}


def growth(what: str, values: list[int], middle: dict[str, int]) -> dict:
  """Seconds a call for each of the values of "num_candidates" or "images"."""
  ways = {}
  for value in values:
    setting = {**middle, what: value}
    num_images = setting.pop("images")
    protected, draw = make_protected(_CONFIG.value, **setting, chunk_size=64)
    images = draw(num_images)
    run = lambda protected=protected, images=images: protected(jax.random.key(1), images)
    run().block_until_ready()
    ways[str(value)] = lambda run=run: measuring.timed(run, 3)
  seconds = [
    measuring.summary(times) for times in measuring.in_turn(ways, _ROUNDS.value).values()
  ]
  line = fitted_line(values, [s["median"] for s in seconds])
  return {"values": values, "seconds": seconds, "line": line, **middle, what: None}


def plot(path: str, curves: dict) -> None:
  """Draws the medians, their ranges and the lines."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 3.6), layout="constrained")
  for axes, (label, curve) in zip(figure.subplots(1, 2), curves.items(), strict=True):
    x, line = np.array(curve["values"]), curve["line"]
    middle, least, most = (
      1e3 * np.array([s[name] for s in curve["seconds"]]) for name in ("median", "min", "max")
    )
    axes.errorbar(x, middle, [middle - least, most - middle], fmt="o", capsize=3)
    ends = np.array([0, x.max()])
    text = f"{1e3 * line['slope']:.3g} ms each, $R^2$ = {line['r_squared']:.4f}"
    axes.plot(ends, 1e3 * (line["slope"] * ends + line["intercept"]), label=text)
    axes.set(xlabel=label, ylabel="ms a call", xlim=(0, None), ylim=(0, None))
    axes.legend()
  figure.savefig(path, dpi=120)


def main(_) -> None:
  """Measures, prints, draws and writes."""
  if _ALONE.value:
    print(json.dumps(alone(json.loads(_ALONE.value))))
    return
  numbers = [sorted(map(int, flag.value)) for flag in (_CANDIDATES, _IMAGES, _CHUNKS)]
  candidates, images, chunks = numbers
  network = {"config": _CONFIG.value}

  curves = {
    "candidates": growth("num_candidates", candidates, {"images": images[0]}),
    "images": growth("images", images, {"num_candidates": candidates[0]}),
  }
  measuring.show_table(
    ["of", "ms a call", "each", "R^2"],
    [
      [
        label,
        ", ".join(
          f"{value}: {1e3 * s['median']:.0f}"
          for value, s in zip(curve["values"], curve["seconds"], strict=True)
        ),
        f"{1e3 * curve['line']['slope']:.3f}",
        f"{curve['line']['r_squared']:.5f}",
      ]
      for label, curve in curves.items()
    ],
  )
  if _PLOT.value:
    plot(_PLOT.value, curves)

  memory = []
  sizes = [
    (candidates[0], images[-1]),
    (candidates[-1], images[0]),
    (candidates[-1], images[-1]),
  ]
  for chunk_size in chunks:
    for num_candidates, num_images in sizes:
      setting = {"num_candidates": num_candidates, "chunk_size": chunk_size}
      argument = {**network, **setting, "images": num_images, "flops": False}
      memory.append({**argument, **measuring.in_own_process(__file__, argument)})
  print()
  measuring.show_table(
    ["chunk size", *(f"{n} candidates, {i} images" for n, i in sizes)],
    [
      [chunk_size]
      + [f"{m['bytes'] / 2**20:.0f} MiB" for m in memory if m["chunk_size"] == chunk_size]
      for chunk_size in chunks
    ],
  )

  devices = []
  for count in (1, 2, 4, 8):
    # One chunk holds a device's share: a loop's body would count but once.
    setting = {"num_candidates": candidates[1], "images": 64, "chunk_size": 64 * candidates[1]}
    measured = measuring.in_own_process(
      __file__,
      {**network, **setting, "flops": True},
      JAX_PLATFORMS="cpu",
      XLA_FLAGS=f"--xla_force_host_platform_device_count={count}",
    )
    devices.append({**setting, "devices": count, **measured})
  print()
  measuring.show_table(
    ["devices", "GFLOPs of each", "of those on one"],
    [
      [d["devices"], f"{d['flops'] / 1e9:.3f}", f"1/{devices[0]['flops'] / d['flops']:.3f}"]
      for d in devices
    ],
  )
  measuring.write_figures(
    _OUTPUT.value, {**network, "growth": curves, "memory": memory, "devices": devices}
  )


if __name__ == "__main__":
  app.run(main)
