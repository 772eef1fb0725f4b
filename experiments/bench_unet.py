"""How close the U-Net's forward pass comes to the hardware's limit, and what holds it back.

    pip install torch && python experiments/bench_unet.py --output=bench_unet.json

The 35.7 M-parameter network of the paper on 32x32 images, for every batch size in turn with
the same network in PyTorch, and with a product of large matrices, whose FLOP/s are the limit.
Then layer by layer: each kind of layer, of each shape, is timed alone, times how often it
occurs. Prints tables in Markdown. Without PyTorch its columns are left out.
"""

import functools
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import measuring
import numpy as np
from absl import app, flags
from network_flops import conv_flops, forward_flops

from diffence_jax import models
from diffence_jax.models.ddpm_unet import DDPMUNet
from diffence_jax.models.unet_layers import GroupNorm

_BATCHES = flags.DEFINE_list("batches", ["4", "8", "16", "32", "64"], "Images at a time.")
_CHANNELS = flags.DEFINE_integer("channels", 128, "Features of the first level.")
_SIZE = flags.DEFINE_integer("size", 32, "Height and width of the images.")
_DTYPE = flags.DEFINE_string("dtype", "float32", "Computation dtype of ours.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; the median is reported.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the figures.")


def torch_forward(module, x):
  """A function that runs the network in PyTorch once, or None without PyTorch."""
  try:
    import torch
    import torch_networks
  except ModuleNotFoundError:
    return None
  network = torch_networks.UNet(module).eval().to(torch_networks.DEVICE)
  x = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy(), device=torch_networks.DEVICE)
  t = torch.full((len(x),), 160, device=torch_networks.DEVICE)

  reduced = torch.autocast(
    torch_networks.DEVICE, torch.bfloat16, enabled=module.dtype == jnp.bfloat16
  )

  def run():
    with torch.inference_mode(), reduced:
      return network(x, t).cpu()

  return run


def layers_of(module: DDPMUNet, x: jax.Array) -> Counter:
  """How often every layer with weights occurs, by (module, shape of its input)."""
  layers = Counter()

  def note(method, args, kwargs, context):
    if context.method_name == "__call__" and isinstance(context.module, nn.Conv | GroupNorm):
      layers[context.module.clone(parent=None, name=None), args[0].shape] += 1
    return method(*args, **kwargs)

  with nn.intercept_methods(note):
    jax.eval_shape(module.init, jax.random.key(0), x, jnp.zeros(len(x), jnp.int32))
  return layers


def layer_profile(module: DDPMUNet, batch: int, rounds: int) -> list[dict]:
  """Of every layer timed alone: its kind, shape, count, seconds in all and FLOPs in all."""
  rows = []
  x = jnp.zeros((batch, _SIZE.value, _SIZE.value, module.out_channels))
  for (layer, shape), count in layers_of(module, x).items():
    inputs = jax.random.normal(jax.random.key(0), shape, jnp.float32)
    variables = layer.init(jax.random.key(1), inputs)
    flops, activation = 0, lambda h: h
    if isinstance(layer, GroupNorm):
      kind, activation = "normalisation and activation", nn.silu
    else:
      kernel, stride = layer.kernel_size[0], np.max(layer.strides)
      kind = f"{kernel}x{kernel} convolution"
      flops = count * batch * conv_flops(shape[-1], layer.features, shape[1], kernel, stride)
    inputs = inputs.astype(module.dtype)
    apply = jax.jit(lambda v, h, layer=layer, act=activation: act(layer.apply(v, h)))
    run = functools.partial(apply, variables, inputs)
    run()
    seconds = count * min(measuring.timed(run, 3) for _ in range(rounds))
    features = getattr(layer, "features", shape[-1])
    rows.append(
      {
        "kind": kind,
        "shape": shape,
        "features": features,
        "count": count,
        "seconds": seconds,
        "flops": int(flops),
      }
    )
  return sorted(rows, key=lambda row: -row["seconds"])


def main(_) -> None:
  """Measures, prints and writes."""
  module = DDPMUNet(out_channels=3, channels=_CHANNELS.value, dtype=jnp.dtype(_DTYPE.value))
  shape = (_SIZE.value, _SIZE.value, 3)
  variables = models.init(module, jax.random.key(0), shape)
  apply = jax.jit(module.apply)
  counted = forward_flops(module, _SIZE.value)
  figures = {
    "parameters": models.num_parameters(variables),
    "flops_by_kind": dict(counted),
    "flops": counted.total(),
    "batches": [],
  }
  rows = []
  for batch in map(int, _BATCHES.value):
    x = jax.random.normal(jax.random.key(1), (batch, *shape))
    t = jnp.full((batch,), 160, jnp.int32)
    ours = functools.partial(apply, variables, x, t)
    theirs = torch_forward(module, x)
    ways = {"ours": lambda run=ours: measuring.timed(run)}
    if theirs:
      ways["PyTorch"] = lambda run=theirs: measuring.timed(run)
    for run in ways.values():
      run()
    ways["a FLOP"] = lambda: 1.0 / measuring.matmul_peak(module.dtype, rounds=3)
    seconds = measuring.in_turn(ways, _ROUNDS.value)
    peak, flops = 1.0 / min(seconds.pop("a FLOP")), batch * counted.total()
    by_xla = measuring.compiled_flops(module.apply, variables, x, t)
    entry = {"batch": batch, "peak": peak, "flops": flops, "xla_flops": by_xla}
    row = [batch]
    for name, values in seconds.items():
      rate = measuring.summary([flops / s for s in values])
      share = rate["median"] / peak
      entry[name] = {"flops_a_second": rate, "share_of_peak": share}
      row += [measuring.with_range(rate, ".0f", 1e-9), f"{share:.0%}"]
    figures["batches"].append(entry)
    rows.append([*row, f"{peak / 1e9:.0f}", f"{by_xla / flops:.3f}"])
  names = [name for name in ("ours", "PyTorch") if name in entry]
  columns = [column for name in names for column in (f"{name}, GFLOP/s (range)", "of peak")]
  print(
    f"\n{figures['parameters']:,} parameters, {counted.total() / 1e9:.2f} GFLOPs an image\n"
  )
  measuring.show_table(["images", *columns, "peak, GFLOP/s", "XLA's count / ours"], rows)

  batch, entry = int(_BATCHES.value[-1]), figures["batches"][-1]
  profile = layer_profile(module, batch, _ROUNDS.value)
  whole = entry["flops"] / entry["ours"]["flops_a_second"]["median"]
  figures["profile"] = {"batch": batch, "seconds": whole, "layers": profile}
  kinds = {}
  for layer in profile:
    total = kinds.setdefault(layer["kind"], Counter())
    total.update(seconds=layer["seconds"], flops=layer["flops"])
  print(f"\n{batch} images, {1e3 * whole:.0f} ms; layers timed alone, times their number:\n")
  header = ["kind", "ms", "of the whole", "GFLOP/s", "of peak"]
  print_rows = [
    [kind, f"{1e3 * k['seconds']:.0f}", f"{k['seconds'] / whole:.0%}", *_rate(k, entry["peak"])]
    for kind, k in kinds.items()
  ]
  measuring.show_table(header, print_rows)
  print("\nThe ten slowest:\n")
  measuring.show_table(
    ["kind", "input", "features", "how often", "ms", "GFLOP/s", "of peak"],
    [
      [
        layer["kind"],
        "x".join(map(str, layer["shape"])),
        layer["features"],
        layer["count"],
        f"{1e3 * layer['seconds']:.1f}",
        *_rate(layer, entry["peak"]),
      ]
      for layer in profile[:10]
    ],
  )
  measuring.write_figures(_OUTPUT.value, figures)


def _rate(entry, peak):
  """GFLOP/s and its share of the peak, as text; empty where there are none to speak of."""
  rate = entry["flops"] / entry["seconds"]
  return [f"{rate / 1e9:.0f}", f"{rate / peak:.0%}"] if rate else ["", ""]


if __name__ == "__main__":
  app.run(main)
