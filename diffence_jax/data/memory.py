"""Sizes of data against the memory there is, looked at before anything is read."""

import os
from pathlib import Path

# Where a container's bound stands: cgroups, version 2 and 1.
_BOUNDS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_size() -> int:
  """Bytes of memory that this machine, or the container it is, has in all."""
  sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
  for path in _BOUNDS:
    try:
      sizes.append(int(Path(path).read_text()))
    except (OSError, ValueError):  # it is not there, or says "max"
      continue
  return min(sizes)


def check_memory(what: str, num_bytes: int, remedy: str) -> None:
  """Raises ValueError where something cannot fit into memory.

  Args:
    what: that is to be read or made, for the error.
    num_bytes: that it takes.
    remedy: what to do then.
  """
  most = memory_size()
  if num_bytes > most:
    raise ValueError(
      f"{what} take {num_bytes / 1e9:,.1f} GB, and there are {most / 1e9:,.1f} GB of memory; "
      f"{remedy}."
    )
