"""How hard XLA works on a program before it runs."""

import contextlib
from collections.abc import Iterator

import jax

_FLAG = "jax_disable_most_optimizations"


@contextlib.contextmanager
def compiled_quickly() -> Iterator[None]:
  """Within it programs are compiled in a third of the time, and run slower.

  For what runs once or for milliseconds, as a network's first draw or all of a smoke test. It
  holds for the process, not the thread; programs that are compiled already stay as they are.
  """
  before = jax.config.values[_FLAG]
  jax.config.update(_FLAG, True)
  try:
    yield
  finally:
    jax.config.update(_FLAG, before)
