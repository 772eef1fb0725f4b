"""What `accelerator.py` times: protected queries and training steps, beside PyTorch's."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import query_timing
from accelerator_size import PRECISIONS, Clock, Size
from accepted import ACCEPTANCE, draw_images
from random_networks import bind, in_pytorch, random_variables
from step_timing import denoiser_training, ensemble_steps, single_steps, step_flops

from diffence_jax import models, parallel
from diffence_jax.training import baselines
from diffence_jax.training.recipe import TrainSettings

_STEP = 160
_NOT_COMPILED = "torch.compile, which is for a GPU here"


def queries(size: Size, clock: Clock) -> Iterator[dict[str, Any]]:
  """Protected queries: all drawn, in each scenario, and PyTorch's."""
  yield from our_queries(size, clock)
  yield from their_queries(size, clock)


def our_queries(size: Size, clock: Clock) -> Iterator[dict[str, Any]]:
  """Those of `dj.protect`, beside the floor."""
  networks, shape = size.networks, size.networks.image_shape
  variables = random_variables(networks)
  settings = {"num_candidates": size.candidates, "step": _STEP}
  for name in size.precisions:
    precision = PRECISIONS[name]
    with jax.default_matmul_precision(precision.products):
      bound = *bind(networks, variables, precision.dtype), networks.schedule
      flops = query_timing.query_flops(bound, shape, _STEP)
      peak = _peak(size, jnp.dtype(precision.dtype))
      ways = [
        ("all candidates drawn", num, functools.partial(query_timing.all_drawn, bound, images))
        for num, images in ((num, draw_images(num, shape, 0.0)) for num in size.images)
      ]
      for scenario, acceptance in list(ACCEPTANCE.items())[: size.scenarios]:
        given = shape, size.early_images, acceptance
        make = functools.partial(query_timing.early_exit, bound, *given)
        ways.append((scenario, size.early_images, make))
      for what, num, make in ways:
        if clock.allows(f"{what}, {num} images, in {name}", 60):
          way = make(**settings)
          way.run()
          drawn = min(way.evaluations, size.candidates)  # not what only fills a batch
          floor = 1e3 * flops.of(drawn, size.candidates) / peak
          entry = {"precision": name, "way": what}
          yield _query_entry(entry, way, size) | {"floor_ms": floor}


def their_queries(size: Size, clock: Clock) -> Iterator[dict[str, Any]]:
  """Those of the published procedure; ModuleNotFoundError where there is no PyTorch."""
  networks = size.networks
  images = draw_images(size.images[0], networks.image_shape, 0.0)
  for name in size.precisions:
    if not clock.allows(f"PyTorch in {name}", 60):
      continue
    theirs = in_pytorch(networks)
    import torch_settings

    _note_compiling(torch_settings, clock)
    precision = PRECISIONS[name]
    with torch_settings.one_thread(size.small), torch_settings.products(precision.products):
      way = query_timing.published(
        networks,
        [torch_settings.compiled(network) for network in theirs],
        images,
        num_candidates=size.candidates,
        step=_STEP,
        batch_size=len(images),
        dtype=precision.dtype,
      )
      way.run()
      entry = _query_entry({"precision": name, "way": "PyTorch, as published"}, way, size)
    yield entry


def _peak(size, dtype=jnp.float32):
  return measuring.matmul_peak(dtype, size.rounds, 256 if size.small else None)


def _query_entry(entry, way, size):
  seconds = [measuring.timed(way.run) / way.images for _ in range(size.rounds)]
  return _timing(entry | {"images": way.images, "evaluations": way.evaluations}, seconds)


def training(size: Size, clock: Clock) -> Iterator[dict[str, Any]]:
  """Steps of the classifier, of the diffusion model and of several classifiers at once."""
  examples = draw_examples(size)
  yield from our_steps(size, clock, *examples)
  if clock.allows("PyTorch's training", 90):
    yield from their_steps(size, clock, *examples)


def draw_examples(size: Size) -> tuple[np.ndarray, np.ndarray]:
  """Images u8[N,H,W,C] and labels i32[N] to learn, at random."""
  draw, num = np.random.default_rng(0), 8 * size.batch
  images = draw.integers(0, 256, (num, *size.networks.image_shape), np.uint8)
  return images, draw.integers(0, 10, num).astype(np.int32)


def our_steps(
  size: Size, clock: Clock, images: np.ndarray, labels: np.ndarray
) -> Iterator[dict[str, Any]]:
  """Ours on images u8[N,H,W,C] and labels i32[N], beside the floor."""
  classifier, denoiser, _, shape = size.networks
  members, mesh = {"images": images, "labels": labels}, parallel.batch_mesh()
  settings = TrainSettings(len(images), batch_size=size.batch)
  recipe = baselines.undefended(classifier, settings)
  step, start = denoiser_training(denoiser, size.config.diffusion, shape)
  (kind,) = recipe.kinds.values()
  single = {  # what begins anew each time: a step takes over its state
    "diffusion": lambda: (
      step,
      start(models.init(denoiser, jax.random.key(0), shape)),
      {"images": {"images": images}},
    ),
    "classifier": lambda: (
      kind.step,
      recipe.init(jax.random.key(0), shape),
      {"members": members},
    ),
  }
  peak = _peak(size)
  flops = {what: step_flops(*make(), size.batch) for what, make in single.items()}

  def prepare(what, at_once, per_call):
    if what == "ensemble":
      return ensemble_steps(recipe, members, size.batch, mesh, at_once, per_call)
    return single_steps(*single[what](), size.batch, mesh, per_call)

  cases = [(what, 1, n) for n in size.steps_per_call for what in single]
  cases += [("ensemble", n, size.steps_per_call[-1]) for n in size.at_once]
  for what, at_once, per_call in cases:
    way = {"way": what, "at_once": at_once, "steps_per_call": per_call}
    if clock.allows(str(way), 30):
      floor = 1e3 * flops["classifier" if what == "ensemble" else what] / peak
      yield _step_entry(way, prepare(what, at_once, per_call), size) | {"floor_ms": floor}


def their_steps(
  size: Size, clock: Clock, images: np.ndarray, labels: np.ndarray
) -> Iterator[dict[str, Any]]:
  """PyTorch's on the same; ModuleNotFoundError where there is none."""
  import torch_settings
  import torch_training

  _note_compiling(torch_settings, clock)
  classifier, denoiser, *_ = size.networks
  config = size.config
  config.classifier.batch_size = config.diffusion.batch_size = size.batch
  for dtype in dict.fromkeys(PRECISIONS[name].dtype for name in size.precisions):
    how = {"wrap": torch_settings.compiled, "dtype": dtype}
    runs = {
      "diffusion": lambda how=how: torch_training.denoiser_steps(
        denoiser, config.diffusion, images, **how
      ),
      "classifier": lambda how=how: torch_training.classifier_steps(
        classifier, config.classifier, images, labels, **how
      ),
    }
    for what, prepare in runs.items():
      way = {"way": f"{what}, PyTorch, {dtype}", "at_once": 1}
      with torch_settings.one_thread(size.small), torch_settings.products("default"):
        entry = _step_entry(way, prepare(), size)
      yield entry


def _note_compiling(torch_settings, clock):
  if not torch_settings.COMPILES and _NOT_COMPILED not in clock.left_out:
    clock.left_out.append(_NOT_COMPILED)


def _step_entry(entry: dict[str, Any], run: Callable[[int], float], size: Size):
  run(size.steps)
  return _timing(entry, [run(size.steps) for _ in range(size.rounds)])


def _timing(entry: dict[str, Any], seconds: Sequence[float]) -> dict[str, Any]:
  return entry | {"ms": measuring.summary([1e3 * s for s in seconds])}
