"""Compiled programs, kept from run to run."""

import os
import platform
from pathlib import Path

import jax

# Programs that take less long to compile are not worth the file.
_SECONDS = 0.5


def keep_in(workdir: str | os.PathLike) -> None:
  """Has JAX keep what this process compiles, and find what earlier ones did.

  In `compiled/<host>/`, as programs for a CPU are for that very processor, and hosts may share
  the workdir. A process that has a cache already (`JAX_COMPILATION_CACHE_DIR`; empty for none)
  keeps it. What cannot be read or written is a warning of JAX's, no more.

  Args:
    workdir: the folder; nothing is created before something is compiled.
  """
  if jax.config.jax_compilation_cache_dir is not None:
    return
  folder = Path(workdir).expanduser().absolute() / "compiled" / (platform.node() or "host")
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)
