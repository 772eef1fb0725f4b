"""All that is to be known of an accelerator, in one command and under nine minutes on an H100.

    pip install torch && python experiments/accelerator.py --output=accelerator
    python experiments/accelerator.py --output=accelerator_small --small     # anywhere, tiny

* Do the networks agree with the published code's (`tests/fixtures`), are labels kept, and does
  early exit answer as drawing all candidates does, in float32 and bfloat16?
* How fast are protected queries and training steps, beside PyTorch (compiled, channels last,
  autocast), and beside the floor: FLOPs that XLA counts, over those a second of a product of
  large matrices?
* Does `configs/digits.py:audit` run from nothing?

Writes `accelerator.json` after every part, and `accelerator.md`. A part that fails is told with
its reason, the rest goes on, and the exit code is 1; what the time does not allow is left out,
and told. Weights are random, and candidates are accepted at measured rates (`accepted.py`).
"""

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# The audit, a process of its own, needs memory too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import measuring
from accelerator_checks import answers, fixtures
from accelerator_size import ROOT, Clock, Size, size_of
from accelerator_speeds import queries, training

from diffence_jax.compiling import compiled_quickly

_SECONDS, _FOR_THE_AUDIT = 530.0, 180.0


def audit(size: Size, clock: Clock, folder: Path) -> Iterator[dict[str, Any]]:
  """The digits' audit from nothing, as the command runs it."""
  config = f"{ROOT / 'configs/digits.py'}:{size.audit}"
  workdir = tempfile.mkdtemp(prefix="digits-", dir=folder)  # nothing of an earlier call in it
  command = ["diffence_jax.cli.main", f"--config={config}", f"--workdir={workdir}"]
  start = time.monotonic()
  subprocess.run(
    [sys.executable, "-m", *command],
    cwd=ROOT,
    check=True,
    timeout=max(clock.left(), 1.0),
    stdout=subprocess.DEVNULL,
  )
  yield {"config": f"digits.py:{size.audit}", "seconds": time.monotonic() - start}


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
  parser.add_argument("--seconds", type=float, help=f"for all of it, {_SECONDS:.0f}")
  parser.add_argument("--parts", nargs="+", help="some of the parts only")
  given = parser.parse_args(argv)
  size, machine = size_of(given.small), measuring.machine()
  audits = given.parts is None or "audit" in given.parts
  scale = 0.0 if given.small else 1.0
  if given.seconds is None:  # tiny networks are for machines that are busy with something else
    given.seconds = 86_400.0 if given.small else _SECONDS
  clock = Clock(given.seconds - (_FOR_THE_AUDIT if audits else 0.0), scale)
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
  quickly = compiled_quickly() if given.small else contextlib.nullcontext()
  # Optax raises floats to integer powers, which the tests' strict promotion refuses.
  with quickly, jax.numpy_dtype_promotion("standard"):
    return 0 if run_parts(chosen, clock, write) else 1


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
