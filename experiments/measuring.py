"""Measuring: ways of doing the same in turn, the hardware's limit, and what it ran on."""

import datetime
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


def in_turn(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
  """Times ways of doing the same, one after the other in several rounds.

  Whatever else slows the machine slows all of them so.

  Args:
    ways: by name, what runs one and returns its seconds; compiled and warmed up before.
    rounds: at least 1.

  Returns:
    The seconds of every round, by name.
  """
  seconds = {name: [] for name in ways}
  for _, (name, run) in itertools.product(range(rounds), ways.items()):
    seconds[name].append(run())
  return seconds


def timed(function: Callable[[], Any], times: int = 1) -> float:
  """Seconds that a call takes, its result awaited; the mean of so many."""
  start = time.perf_counter()
  for _ in range(times):
    jax.block_until_ready(function())
  return (time.perf_counter() - start) / times


def summary(values: Sequence[float]) -> dict[str, float]:
  """Median, least and most of the values."""
  return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def matmul_peak(dtype: Any = jnp.float32, rounds: int = 10, size: int | None = None) -> float:
  """FLOP/s of the fastest of several products of square matrices: what can be reached here."""
  on_cpu = jax.default_backend() == "cpu"
  # On accelerators large and many, so that calling them is none of it.
  usual, times = (2048, 1) if on_cpu else (8192, 20)
  size = size or usual
  a, b = (jax.random.normal(jax.random.key(seed), (size, size), dtype) for seed in (0, 1))
  product = jax.jit(jnp.matmul)
  several = lambda: [product(a, b) for _ in range(times)]
  jax.block_until_ready(several())
  return times * 2 * size**3 / min(timed(several) for _ in range(rounds))


def compiled_flops(function: Callable[..., Any], *args: Any) -> float:
  """FLOPs of `function`, to be jitted, by XLA; of one device where it is sharded.

  The body of a loop counts once, however often it runs.
  """
  return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


def flops(function: Callable[..., Any], *args: Any) -> float:
  """FLOPs of `function`, to be jitted, by XLA before it optimises; so nothing is compiled."""
  return jax.jit(function).lower(*args).cost_analysis()["flops"]


def peak_memory() -> int:
  """The most bytes this process has had: on an accelerator, or resident, on Linux."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    return stats["peak_bytes_in_use"]
  # Not getrusage: a process begins with what its parent had.
  (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s)
  return 1024 * int(line.split()[1])


def in_own_process(script: str, argument: Mapping[str, Any], **environment: str) -> Any:
  """What `python script --alone=ARGUMENT` prints last, as JSON.

  Args:
    script: `__file__` of the experiment, which has a flag `alone` for it.
    argument: passed on as JSON.
    **environment: variables beside those of this process.

  Returns:
    The parsed line.

  Raises:
    subprocess.CalledProcessError: it failed; its messages are shown.
  """
  done = subprocess.run(
    [sys.executable, script, f"--alone={json.dumps(argument)}"],
    env={**os.environ, **environment},
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
  """What the figures were measured on and with, and when."""
  versions = {}
  for name in ("jax", "jaxlib", "flax", "torch"):
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      versions[name] = None
  info = Path("/proc/cpuinfo")
  lines = info.read_text().splitlines() if info.exists() else []
  names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
  return {
    "date": datetime.date.today().isoformat(),
    "cpu": names[0] if names else platform.processor(),
    "cores": os.cpu_count(),
    "device": jax.devices()[0].device_kind,
    "devices": jax.device_count(),
    "load_before": os.getloadavg()[0],
    "python": platform.python_version(),
    **versions,
  }


def show_table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
  """Prints a table in Markdown."""
  header = list(header)
  print(f"| {' | '.join(header)} |")
  print("|---" * len(header) + "|")
  for row in rows:
    print(f"| {' | '.join(map(str, row))} |")


def with_range(values: Mapping[str, float], form: str = ".2f", scale: float = 1.0) -> str:
  """A `summary`, times `scale`, as "median (least to most)"."""
  middle, least, most = (f"{scale * values[name]:{form}}" for name in ("median", "min", "max"))
  return f"{middle} ({least} to {most})"


def write_figures(path: str | None, figures: Mapping[str, Any]) -> None:
  """Writes the figures and the machine's description as JSON, unless there is no path."""
  if path:
    Path(path).write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
