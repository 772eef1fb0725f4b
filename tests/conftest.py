"""Strict numerics for every test: no silent rank or dtype promotion."""

import atexit
import fcntl
import gc
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time would be compilation of what runs for milliseconds.
if "XLA_FLAGS" not in os.environ:
  _flags = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
  ]
  if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 12):
    # Emitting what is fused takes half of the time; later ones know no other way, nor the flag.
    _flags.append("--xla_cpu_use_fusion_emitters=false")
  os.environ["XLA_FLAGS"] = " ".join(_flags)
# Where in the code an operation was traced is for profiles and errors of the compiler; finding
# it takes a tenth of the time of all that traces.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# Test processes share few cores, which threads that wait for one another take away.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  # Commands that tests run compile the same functions; the first one does it for all.
  _cache = tempfile.mkdtemp(prefix="compiled")
  atexit.register(shutil.rmtree, _cache, ignore_errors=True)
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest

# Tracing makes many objects; all that was imported need not be looked through each time.
gc.set_threshold(100_000, 50, 100)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


# Files that take longest, the longest first.
_LONG = (
  "test_parallel.py",
  "test_shadow_run.py",
  "test_main.py",
  "test_defenses_run.py",
  "test_defenses.py",
  "test_dpsgd.py",
  "test_interrupts.py",
  "test_pod_ends.py",
  "test_advreg.py",
  "test_contract.py",
  "test_compiled.py",
  "test_saved_models.py",
  "test_adm_unet.py",
  "test_ddpm_unet.py",
  "test_from_torch.py",
  "test_tune.py",
)


def pytest_collection_modifyitems(items):
  """Long files come first, so that no test process waits for the last one of another."""
  items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else 99)


class CommandRun(NamedTuple):
  """A finished run of the command: its workdir, and what it printed."""

  workdir: Path
  printed: str


@pytest.fixture(scope="session")
def audit_smoke(tmp_path_factory, worker_id):
  """`configs/digits.py:audit_smoke`, run once for all test processes; only to be read."""
  from cli.command import AUDIT, diffence

  base = tmp_path_factory.getbasetemp()
  # Each of several test processes has a folder in one that is theirs together.
  folder = (base if worker_id == "master" else base.parent) / "audit_smoke"
  folder.mkdir(exist_ok=True)
  printed = folder / "printed.txt"
  with open(folder / "lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not printed.exists():
      text = diffence(AUDIT, f"--workdir={folder / 'workdir'}", check=0).stdout
      printed.write_text(text)
  return CommandRun(folder / "workdir", printed.read_text())
