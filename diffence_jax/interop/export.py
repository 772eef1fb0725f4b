"""A predictor as one file that JAX runs without this package.

    from pathlib import Path
    import jax
    from jax import export

    program = export.deserialize(bytearray(Path("protected.stablehlo").read_bytes()))
    predict = jax.jit(program.call)
    logits = predict(jax.random.key_data(jax.random.key(0)), images)

There it takes `jax` and `flatbuffers`, the small package that JAX reads its own format with
and does not install itself.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from diffence_jax.disk import write_atomically
from diffence_jax.predictor import Predict, runs_on_host
from diffence_jax.rng import GENERATOR

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

# What JAX's format has room for, 2 GiB with the rest.
_MOST_BYTES = 2**31 - 2**20


def export(
  path: str | os.PathLike,
  predict: Predict,
  image_shape: tuple[int, int, int],
  *,
  platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> None:
  """Writes a predictor, protected or not, as a StableHLO program.

  The program is a function of `(key data u32[2], images f32[N,H,W,C] in [0, 1])`, with any N
  from 1 on, and returns what `predict(key, images)` does but for rounding. What draws noise
  asks for new key data with every call, unless it was made with `randomness="per_input"`,
  where it is the secret: `jax.random.key_data(key)` of a threefry key, JAX's default, or any
  other 64 random bits. All of it is compiled together, so the raw prediction that the labels
  follow is the program's own.

  The file holds the program with its constants, that is, weights, the noise schedule and the
  interval, no sample, and no paths of this machine; it is as large as the weights. Images are
  not checked there: values outside [0, 1] are the caller's mistake.

  Args:
    path: the file, replaced if it is there.
    predict: `(key, images f32[N,H,W,C]) -> logits [N,K]`, which JAX can trace for a symbolic N;
      as `dj.protect` returns it, without a mesh. Give `chunk_size` there if the program is to
      run on another machine, as by default it is chosen for this one. `dj.defense.memguard`
      searches in rounds that the host counts, and is not exported.
    image_shape: (H,W,C).
    platforms: what the program can run on, of `PLATFORMS`. None of them needs to be here;
      each adds a few per cent to a small file.

  Raises:
    FileNotFoundError: there is no such folder.
    TypeError: `predict` is no function, or one that runs on the host.
    ValueError: an argument is not right, the predictor cannot be traced, or its weights take
      more than 2 GiB, as those of the public ImageNet diffusion model do in float32.
  """
  path, platforms = Path(path), tuple(platforms)
  if not callable(predict):
    raise TypeError(f"predict is a {type(predict).__name__}; expected a predictor, a function.")
  if runs_on_host(predict):
    raise TypeError(
      "predict runs on the host, as do host_predictor, MemGuard and constant_time=False; "
      "expected a function that JAX can compile. Nothing else can be exported."
    )
  if len(image_shape) != 3 or any(size != int(size) or size < 1 for size in image_shape):
    raise ValueError(f"image_shape is {image_shape}; expected (height, width, channels).")
  if not platforms or set(platforms) - set(PLATFORMS):
    raise ValueError(f"platforms are {platforms}; expected some of {PLATFORMS}.")
  check_folder_of(path)
  exported = _trace(predict, image_shape, platforms)
  if (size := len(exported.mlir_module_serialized)) > _MOST_BYTES:
    raise ValueError(
      f"The program takes {size / 1e9:.1f} GB, nearly all of it weights; one file can hold "
      f"{_MOST_BYTES / 1e9:.1f} GB. Bind weights of half precision, or protect with a smaller "
      "diffusion model."
    )
  write_atomically(path, exported.serialize())


def check_folder_of(path: Path) -> None:
  """Raises FileNotFoundError where there is no folder for a file."""
  if not path.parent.is_dir():
    raise FileNotFoundError(f"There is no folder {path.parent} for {path.name}; make it first.")


def _trace(predict, image_shape, platforms):
  def program(key_data, images):
    return predict(jax.random.wrap_key_data(key_data, impl=GENERATOR), images)

  (num,) = jax.export.symbolic_shape("N")
  inputs = (
    jax.ShapeDtypeStruct((2,), jnp.uint32),
    jax.ShapeDtypeStruct((num, *image_shape), jnp.float32),
  )
  try:
    exported = without_paths(program, inputs, platforms)
  except (TypeError, ValueError, jax.errors.InconclusiveDimensionOperation) as error:
    reason = str(error).strip().partition("\n")[0]
    raise ValueError(
      f"The predictor cannot be traced for batches of any size: {reason} It must be a "
      "function that JAX can compile; write images.shape[0], not len(images), and leave out "
      "what runs on the host, such as MemGuard."
    ) from error
  shapes = [leaf.shape for leaf in exported.out_avals]
  if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != num:
    raise ValueError(f"The predictor returns arrays of shapes {shapes}; expected one, [N, K].")
  return exported


def without_paths(
  function: Callable[..., Any], inputs: Sequence[Any], platforms: Sequence[str]
) -> jax.export.Exported:
  """Traces a function as a program that tells no paths of this machine, as JAX's do.

  Args:
    function: that JAX can compile.
    inputs: its arguments, pytrees of `jax.ShapeDtypeStruct`.
    platforms: what the program can run on, of `PLATFORMS`.
  """
  before = jax.config.jax_traceback_in_locations_limit
  jax.config.update("jax_traceback_in_locations_limit", 0)
  try:
    return jax.export.export(jax.jit(function), platforms=platforms)(*inputs)
  finally:
    jax.config.update("jax_traceback_in_locations_limit", before)
