"""All that is to be known of an accelerator, in one command and under nine minutes on an H100.

    pip install torch && python experiments/accelerator.py --output=accelerator
    python experiments/accelerator.py --output=accelerator_small --small     # anywhere, tiny

* Do the networks agree with the published code's (`tests/fixtures`), are labels kept, and does
  early exit answer as drawing all candidates does, in float32 and bfloat16?
* How fast are protected queries and training steps, beside PyTorch (compiled, channels last,
  autocast), and queries beside the floor: FLOPs that XLA counts, over those a second of a
  product of large matrices?
* Does `configs/digits.py:audit` run from nothing?

Writes `accelerator.json` after every part, and `accelerator.md`. A part that fails is told with
its reason, the rest goes on, and the exit code is 1; what the time does not allow is left out,
and told. Weights are random, and candidates are accepted at measured rates (`accepted.py`).
"""

import argparse
import contextlib
import functools
import itertools
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# The audit, a process of its own, needs memory too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import measuring
import numpy as np
from accepted import ACCEPTANCE, accepting, draw_images
from random_networks import Networks, networks_of
from step_timing import denoiser_training, ensemble_steps, single_steps

import diffence_jax as dj
from diffence_jax import models, parallel
from diffence_jax.defense import make_early_selection
from diffence_jax.defense.interval import interval_policy
from diffence_jax.defense.pairs import pair_logits
from diffence_jax.training import baselines
from diffence_jax.training.recipe import TrainSettings

_ROOT = Path(__file__).parents[1]
_SECONDS, _FOR_THE_AUDIT = 530.0, 180.0
_STEP = 160
_CHECKED = ("float32", "bfloat16")


class Precision(NamedTuple):
  """A way to compute: the networks' dtype, and how products of float32 are made."""

  dtype: str
  products: str


PRECISIONS = {
  "float32": Precision("float32", "highest"),
  "TF32": Precision("float32", "tensorfloat32"),
  "bfloat16": Precision("bfloat16", "default"),
}


class Size(NamedTuple):
  """What is measured, and how large."""

  networks: Networks
  config: Any
  fixtures: tuple[str, ...]
  checked: tuple[str, ...]  # precisions, for what is right
  precisions: tuple[str, ...]  # for how fast it is
  candidates: int
  images: tuple[int, ...]
  early_images: int
  at_once: tuple[int, ...]
  steps_per_call: tuple[int, ...]
  batch: int
  steps: int
  rounds: int
  audit: str


def size_of(small: bool) -> Size:
  """The paper's networks, or tiny ones."""
  networks = networks_of("cifar10")
  config = runpy.run_path(str(_ROOT / "configs/cifar10.py"))["get_config"]()
  if not small:
    whole = (("resnet18", "ddpm_unet"), _CHECKED, tuple(PRECISIONS), 30, (256, 1024), 1024)
    return Size(networks, config, *whole, (1, 8, 32, 64), (1, 32), 128, 32, 3, "audit")
  tiny = networks._replace(
    classifier=networks.classifier.clone(width=4, stages=(1,)),
    denoiser=networks.denoiser.clone(
      channels=8, multipliers=(1,), attention_levels=(), num_res_blocks=1
    ),
    image_shape=(8, 8, 3),
  )
  few = (("ddpm_unet",), _CHECKED, _CHECKED, 3, (4,), 8)
  return Size(tiny, config, *few, (1, 2), (1, 2), 4, 2, 1, "smoke")


class Clock:
  """The time that is left, and what it did not allow."""

  def __init__(self, seconds: float):
    """Starts now."""
    self._end, self.left_out = time.monotonic() + seconds, []

  def left(self) -> float:
    """Seconds."""
    return self._end - time.monotonic()

  def allows(self, what: str, seconds: float) -> bool:
    """Whether so many seconds are left; else notes what is left out."""
    if self.left() >= seconds:
      return True
    self.left_out.append(what)
    return False


@contextlib.contextmanager
def computing(networks: Networks, precision: Precision) -> Iterator[tuple[Networks, Any, Any]]:
  """The networks in a precision, the predictor and the denoiser, on random weights."""
  classifier, denoiser, schedule, shape = networks
  dtype = jnp.dtype(precision.dtype)
  # The classifier stays in float32, as in experiments: labels are its own.
  networks = Networks(classifier, denoiser.clone(dtype=dtype), schedule, shape)
  weights = [
    models.init(m, jax.random.key(0, impl="rbg"), shape) for m in (classifier, denoiser)
  ]
  with jax.default_matmul_precision(precision.products):
    predict = models.predictor(classifier, weights[0])
    yield networks, predict, models.denoiser(networks.denoiser, weights[1])


def fixtures(size: Size, clock: Clock) -> Iterator[dict[str, Any]]:
  """How far networks are from the published code's outputs; AssertionError where too far."""
  sys.path.insert(0, str(_ROOT / "tests"))
  from fixtures.load import load_fixture, pseudo_state_dict

  nhwc = lambda x: jnp.asarray(x.transpose(0, 2, 3, 1))
  for kind, dtype in itertools.product(size.fixtures, size.checked):
    if not clock.allows(f"{kind} in {dtype}", 20 if size.rounds > 1 else 0):
      continue
    manifest, arrays = load_fixture(kind)
    fields = {} if kind == "ddpm_unet" else {"mean": 0.0, "std": 1.0}
    weights = pseudo_state_dict(manifest)
    module, variables = dj.interop.from_torch(kind, weights, dtype=dtype, **fields)
    with jax.default_matmul_precision("highest"):
      if kind == "ddpm_unet":
        network, expected = models.denoiser(module, variables), nhwc(arrays["eps"])
        out = jax.jit(network)(nhwc(arrays["x"]), jnp.asarray(arrays["t"], jnp.int32))
      else:
        expected = arrays["logits"]
        out = models.predictor(module, variables)(None, nhwc(arrays["x"]))
    apart = float(np.abs(np.asarray(out, np.float32) - np.asarray(expected)).max())
    spread = float(np.std(expected))
    yield {"network": kind, "dtype": dtype, "apart": apart, "spread": spread}
    allowed = 1e-4 if dtype == "float32" else 0.1 * spread
    assert apart <= allowed, f"{kind} in {dtype} is {apart:.2g} apart; expected {allowed:.2g}"


def answers(size: Size, clock: Clock) -> Iterator[dict[str, Any]]:
  """Labels kept, and early exit against drawing all; AssertionError where they differ."""
  for name in size.checked:
    if not clock.allows(f"answers in {name}", 60 if size.rounds > 1 else 0):
      continue
    with computing(size.networks, PRECISIONS[name]) as (networks, predict, denoise):
      settings = {"num_candidates": size.candidates, "step": _STEP}
      bound = predict, denoise, networks.schedule
      images = draw_images(max(8, size.images[0] // 4), networks.image_shape, 0.0)
      key, ids = jax.random.key(1), np.arange(len(images), dtype=np.int32)
      raw = predict(None, images)
      draw = jax.jit(functools.partial(dj.candidate_logits, **settings))
      candidates = draw(key, *bound, images)
      phi = np.asarray(dj.scaled_logit(candidates))
      ends = tuple(float(end) for end in np.quantile(phi, (0.6, 0.7)))
      whole = dj.select(candidates, raw, ends)
      select = make_early_selection(*bound, policy=interval_policy(ends), **settings)
      early = select(key, images, ids, raw)
    label = lambda logits: np.asarray(logits).argmax(-1)
    other = np.flatnonzero(np.asarray(whole.index) != np.asarray(early.index))
    # Batches of another size round otherwise: phi at an end of the interval may be out or in.
    at_end = np.abs(phi[other][..., None] - np.array(ends)).min(axis=(1, 2), initial=np.inf)
    entry = {
      "precision": name,
      "images": len(images),
      "labels changed": int(np.sum(label(early.logits) != label(raw))),
      "labels changed, all drawn": int(np.sum(label(whole.logits) != label(raw))),
      "another candidate": len(other),
      "not at an end": int(np.sum(at_end > (1e-3 if name == "float32" else 0.05))),
    }
    yield entry
    wrong = [what for what in list(entry)[2:] if what != "another candidate" and entry[what]]
    assert not wrong, f"{name}: {', '.join(wrong)}"


def torch_networks_of(networks: Networks):
  """`torch_networks`, and the published procedure's two, as `as_compiled` makes them."""
  import torch
  import torch_networks

  theirs = (
    torch_networks.ResNet(networks.classifier, networks.denoiser.out_channels),
    torch_networks.UNet(networks.denoiser),
  )
  return torch_networks, [
    as_compiled(torch, network, torch_networks.DEVICE) for network in theirs
  ]


def as_compiled(torch, network, device):
  """A network of PyTorch, channels last, and compiled on a GPU."""
  network = network.to(device, memory_format=torch.channels_last)
  return torch.compile(network) if device == "cuda" else network


@contextlib.contextmanager
def torch_products(torch, products: str) -> Iterator[None]:
  """PyTorch's products of float32 as ours; else convolutions are in TF32, and others not."""
  kinds = torch.backends.cuda.matmul, torch.backends.cudnn
  before = [kind.allow_tf32 for kind in kinds]
  try:
    for kind in kinds:
      kind.allow_tf32 = products != "highest"
    yield
  finally:
    for kind, allowed in zip(kinds, before, strict=True):
      kind.allow_tf32 = allowed


def query_flops(size: Size, networks, predict, denoise) -> Callable[[float], float]:
  """FLOPs of a query of so many candidates, by XLA."""
  image, one = jnp.zeros((1, *networks.image_shape)), jnp.zeros(1, jnp.int32)
  key = jax.random.key(0)
  count = lambda f, *args: jax.jit(f).lower(*args).cost_analysis()["flops"]
  draw = functools.partial(pair_logits, step=_STEP)
  candidate = count(draw, key, predict, denoise, networks.schedule, image, one, one)
  raw = count(predict, key, image)
  return lambda candidates: raw + candidates * candidate


def queries(size: Size, clock: Clock) -> Iterator[dict[str, Any]]:
  """Protected queries: all drawn, in each scenario, and PyTorch's."""
  for name in size.precisions:
    precision = PRECISIONS[name]
    with computing(size.networks, precision) as (networks, predict, denoise):
      bound, key = (denoise, networks.schedule), jax.random.key(1)
      settings = {"num_candidates": size.candidates, "step": _STEP}
      flops = query_flops(size, networks, predict, denoise)
      peak = measuring.matmul_peak(jnp.dtype(precision.dtype), rounds=size.rounds)

      def entry(way, num, evaluations, run, name=name, flops=flops, peak=peak):
        run()
        seconds = [measuring.timed(run) / num for _ in range(size.rounds)]
        return _timing({"precision": name, "way": way, "images": num}, seconds) | {
          "evaluations": evaluations,
          "floor_ms": 1e3 * flops(min(evaluations, size.candidates)) / peak,
        }

      protected = dj.protect(predict, *bound, **settings)
      for num in size.images:
        if clock.allows(f"{num} queries in {name}", 40 if size.rounds > 1 else 0):
          images = draw_images(num, networks.image_shape, 0.0)
          run = functools.partial(protected, key, images)
          yield entry("all candidates drawn", num, size.candidates, run)
      ways = list(ACCEPTANCE.items()) if size.rounds > 1 else list(ACCEPTANCE.items())[:1]
      for way, acceptance in ways:
        if not clock.allows(f"{way} in {name}", 60 if size.rounds > 1 else 0):
          continue
        num = size.early_images
        images = draw_images(num, networks.image_shape, acceptance.never)
        accept = accepting(predict, acceptance)
        select = make_early_selection(accept, *bound, **settings)
        drawn = select(key, images, np.arange(num), accept(key, images)).evaluations / num
        early = dj.protect(accept, *bound, constant_time=False, **settings)
        yield entry(way, num, drawn, functools.partial(early, key, images))
  for name in size.precisions:
    if not clock.allows(f"PyTorch in {name}", 60 if size.rounds > 1 else 0):
      continue
    theirs, pair = torch_networks_of(size.networks)
    num = size.images[0]
    ask = theirs.published_procedure(
      *pair,
      np.asarray(size.networks.schedule.alpha_bar),
      num_candidates=size.candidates,
      step=_STEP,
      batch_size=num,
      dtype=PRECISIONS[name].dtype,
    )
    run = functools.partial(ask, draw_images(num, size.networks.image_shape, 0.0))
    with torch_products(theirs.torch, PRECISIONS[name].products):
      run()
      seconds = [measuring.timed(run) / num for _ in range(size.rounds)]
    yield _timing(
      {"precision": name, "way": "PyTorch, as published", "images": num}, seconds
    ) | {"evaluations": 2 * size.candidates}


def training(size: Size, clock: Clock) -> Iterator[dict[str, Any]]:
  """Steps of the classifier, of the diffusion model and of several classifiers at once."""
  classifier, denoiser, _, shape = size.networks
  draw, batch = np.random.default_rng(0), size.batch
  images = draw.integers(0, 256, (8 * batch, *shape), np.uint8)
  labels = draw.integers(0, 10, len(images)).astype(np.int32)
  members, mesh = {"images": images, "labels": labels}, parallel.batch_mesh()
  recipe = baselines.undefended(classifier, TrainSettings(len(images), batch_size=batch))
  step, start = denoiser_training(denoiser, size.config.diffusion, shape)
  (kind,) = recipe.kinds.values()

  def make(what, at_once, per_call):
    if what == "ensemble":
      return ensemble_steps(recipe, members, batch, mesh, at_once, per_call)
    if what == "classifier":
      state = recipe.init(jax.random.key(0), shape)
      return single_steps(kind.step, state, {"members": members}, batch, mesh, per_call)
    state = start(models.init(denoiser, jax.random.key(0), shape))
    return single_steps(step, state, {"images": {"images": images}}, batch, mesh, per_call)

  cases = [(what, 1, n) for n in size.steps_per_call for what in ("diffusion", "classifier")]
  cases += [("ensemble", n, size.steps_per_call[-1]) for n in size.at_once]
  for what, at_once, per_call in cases:
    way = {"way": what, "at_once": at_once, "steps_per_call": per_call}
    if clock.allows(str(way), 30 if size.rounds > 1 else 0):
      yield _step_timing(way, make(what, at_once, per_call), size)
  if not clock.allows("PyTorch's training", 90 if size.rounds > 1 else 0):
    return
  import torch
  import torch_training

  wrap = functools.partial(as_compiled, torch, device=torch_training.DEVICE)
  size.config.classifier.batch_size = size.config.diffusion.batch_size = batch
  for dtype in dict.fromkeys(PRECISIONS[name].dtype for name in size.precisions):
    how = {"wrap": wrap, "dtype": dtype}
    runs = {
      "diffusion": torch_training.denoiser_steps(
        denoiser, size.config.diffusion, images, **how
      ),
      "classifier": torch_training.classifier_steps(
        classifier, size.config.classifier, images, labels, **how
      ),
    }
    for what, run in runs.items():
      with torch_products(torch, "default"):
        timing = _step_timing({"way": f"{what}, PyTorch, {dtype}", "at_once": 1}, run, size)
      yield timing


def audit(size: Size, clock: Clock, folder: Path) -> Iterator[dict[str, Any]]:
  """The digits' audit from nothing, as the command runs it."""
  config = f"{_ROOT / 'configs/digits.py'}:{size.audit}"
  workdir = tempfile.mkdtemp(prefix="digits-", dir=folder)  # nothing of an earlier call in it
  command = ["diffence_jax.cli.main", f"--config={config}", f"--workdir={workdir}"]
  start = time.monotonic()
  subprocess.run(
    [sys.executable, "-m", *command],
    cwd=_ROOT,
    check=True,
    timeout=max(clock.left(), 1.0),
    stdout=subprocess.DEVNULL,
  )
  yield {"config": f"digits.py:{size.audit}", "seconds": time.monotonic() - start}


def _timing(entry: dict[str, Any], seconds: Sequence[float]) -> dict[str, Any]:
  return entry | {"ms": measuring.summary([1e3 * s for s in seconds])}


def _step_timing(entry: dict[str, Any], run: Callable[[int], float], size: Size):
  run(size.steps)
  return _timing(entry, [run(size.steps) for _ in range(size.rounds)])


def run_parts(parts: Mapping[str, Callable[[], Iterator[dict]]], clock: Clock, write) -> bool:
  """Runs one part after another; `write(parts)` after each. Whether all went well."""
  done, well = {}, True
  for name, part in parts.items():
    start, clock.left_out = time.monotonic(), []
    told = done[name] = {"entries": []}
    try:
      for entry in part():
        told["entries"].append(entry)
        print(f"{name}: {entry}", flush=True)
    except ModuleNotFoundError as error:
      told["skipped"] = f"{error}: PyTorch's figures need `pip install torch`"
      if error.name != "torch":
        told["error"], well = repr(error), False
    except subprocess.TimeoutExpired:
      clock.left_out.append(f"the end of {name}")
    except Exception as error:
      told["error"], well = f"{type(error).__name__}: {error}", False
      told["traceback"] = traceback.format_exc()
    told |= {"left_out": clock.left_out, "seconds": time.monotonic() - start}
    print(f"{name}: {told.get('error', 'done')}, left out: {clock.left_out}", flush=True)
    write(done)
  return well


def as_markdown(parts: Mapping[str, Mapping[str, Any]], machine: Mapping[str, Any]) -> str:
  """Tables of all parts, and what failed or was left out."""
  lines = [f"{machine['device']}, {machine['date']}, jax {machine['jax']}"]
  for name, part in parts.items():
    lines += ["", f"### {name}", ""]
    columns = list(dict.fromkeys(key for entry in part["entries"] for key in entry))
    if columns:
      lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for entry in part["entries"]:
      lines.append(f"| {' | '.join(_cell(entry.get(key, '')) for key in columns)} |")
    for key in ("error", "skipped", "left_out"):
      if part.get(key):
        lines += ["", f"{key.replace('_', ' ')}: {part[key]}"]
  return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
  if isinstance(value, Mapping):
    return measuring.with_range(value, ".3g")
  return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str]) -> int:
  """Runs all that there is; the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--output", type=Path, required=True, help="a folder")
  parser.add_argument("--small", action="store_true", help="tiny networks")
  parser.add_argument("--seconds", type=float, default=_SECONDS, help="for all of it")
  parser.add_argument("--parts", nargs="+", help="some of the parts only")
  given = parser.parse_args(argv)
  size, machine = size_of(given.small), measuring.machine()
  audits = given.parts is None or "audit" in given.parts
  clock = Clock(given.seconds - (_FOR_THE_AUDIT if audits else 0.0))
  given.output.mkdir(parents=True, exist_ok=True)
  parts = {f.__name__: f for f in (fixtures, answers, queries, training)}
  parts = {name: functools.partial(part, size, clock) for name, part in parts.items()}
  parts["audit"] = functools.partial(audit, size, Clock(given.seconds), given.output)
  if unknown := set(given.parts or ()) - set(parts):
    parser.error(f"there is no part {sorted(unknown)[0]!r}; expected {', '.join(parts)}")

  def write(done):
    text = json.dumps({"machine": machine, "parts": done}, indent=2)
    (given.output / "accelerator.json").write_text(text + "\n")
    (given.output / "accelerator.md").write_text(as_markdown(done, machine))

  chosen = {name: part for name, part in parts.items() if name in (given.parts or parts)}
  # Optax raises floats to integer powers, which the tests' strict promotion refuses.
  with jax.numpy_dtype_promotion("standard"):
    return 0 if run_parts(chosen, clock, write) else 1


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
