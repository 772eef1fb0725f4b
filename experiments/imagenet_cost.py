"""What Diffence with the public 256x256 ImageNet diffusion model costs, without its weights.

    python experiments/imagenet_cost.py --output=imagenet_cost.json

Counts the network's operations layer by layer from its fields, independently of XLA, compiles
the forward pass from shapes alone (no weights are allocated), and sets the count beside XLA's.
Prints the memory and the operations in Markdown, a line for every dtype and batch size, and the
least time that a protected query takes on an accelerator of `--peak_tflops`. Temporaries are
those of the backend it is compiled for: XLA's CPU backend computes bfloat16 convolutions in
float32, so its figures for bfloat16 are no accelerator's. Takes two minutes on two cores.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags
from network_flops import forward_flops

from diffence_jax.models import ADMUNet, init, num_parameters

_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the figures.")
_BATCHES = flags.DEFINE_list("batches", ["1", "10"], "Images at a time, to compile for.")
_DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Computation dtypes.")
_CANDIDATES = flags.DEFINE_integer("candidates", 10, "Candidates a query, N.")
_EVALUATIONS = flags.DEFINE_integer("evaluations", 2, "Network evaluations a candidate.")
_PEAK = flags.DEFINE_float("peak_tflops", 312.0, "The accelerator's peak, in 10^12 FLOP/s.")
_SIZE = 256  # what the public model takes; smaller images are resized to it and back


def parameters_of(module: ADMUNet):
  """The shapes of the module's variables."""
  shape = (32, 32, module.out_channels)  # parameters don't depend on the size
  return jax.eval_shape(functools.partial(init, module, image_shape=shape), jax.random.key(0))


def compiled_cost(dtype: str, batch: int) -> dict[str, float]:
  """What XLA says of the forward pass: FLOPs, bytes of inputs, temporaries and outputs."""
  module = ADMUNet(out_channels=3, dtype=jnp.dtype(dtype))
  x = jax.ShapeDtypeStruct((batch, _SIZE, _SIZE, 3), jnp.float32)
  t = jax.ShapeDtypeStruct((batch,), jnp.int32)
  compiled = jax.jit(module.apply).lower(parameters_of(module), x, t).compile()
  memory = compiled.memory_analysis()
  return {
    "xla_flops": compiled.cost_analysis()["flops"],
    "argument_bytes": memory.argument_size_in_bytes,
    "temporary_bytes": memory.temp_size_in_bytes,
    "output_bytes": memory.output_size_in_bytes,
  }


def main(_) -> None:
  """Counts, compiles, prints and writes."""
  module = ADMUNet(out_channels=3)
  flops = forward_flops(module, _SIZE)
  evaluations = _CANDIDATES.value * _EVALUATIONS.value
  query = flops.total() * evaluations
  parameters = num_parameters(parameters_of(module))
  figures = {
    "parameters": parameters,
    "parameter_bytes": {"float32": 4 * parameters, "bfloat16": 2 * parameters},
    "flops_by_kind": dict(flops),
    "flops": flops.total(),
    "evaluations_a_query": evaluations,
    "flops_a_query": query,
    "peak_tflops": _PEAK.value,
    "seconds_a_query": query / (_PEAK.value * 1e12),
    "backend": jax.default_backend(),
    "compiled": [],
  }
  print(f"{parameters:,} parameters, {4 * parameters / 2**30:.2f} GiB as float32")
  kinds = ", ".join(f"{kind} {count / 1e9:.1f}" for kind, count in flops.items())
  print(f"GFLOPs an image: {flops.total() / 1e9:.1f} ({kinds})\n")
  print("| dtype | images | GFLOPs counted | by XLA | ratio | temporaries GiB | in all |")
  print("|---|---|---|---|---|---|---|")
  for dtype in _DTYPES.value:
    for batch in map(int, _BATCHES.value):
      cost = compiled_cost(dtype, batch)
      counted = batch * flops.total()
      figures["compiled"].append({"dtype": dtype, "batch": batch, "flops": counted, **cost})
      temporary = cost["temporary_bytes"] / 2**30
      whole = temporary + (cost["argument_bytes"] + cost["output_bytes"]) / 2**30
      print(
        f"| {dtype} | {batch} | {counted / 1e9:.0f} | {cost['xla_flops'] / 1e9:.0f} "
        f"| {cost['xla_flops'] / counted:.4f} | {temporary:.2f} | {whole:.2f} |",
        flush=True,
      )
  print(
    f"\nA protected query: {_CANDIDATES.value} candidates x {_EVALUATIONS.value} evaluations, "
    f"{query / 1e12:.1f} TFLOPs; at {_PEAK.value:g} TFLOP/s at least "
    f"{1e3 * figures['seconds_a_query']:.0f} ms."
  )
  if _OUTPUT.value:
    Path(_OUTPUT.value).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
  app.run(main)
