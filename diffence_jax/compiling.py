"""How hard XLA works on a program before it runs, and how many share one."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

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


def shared(maxsize: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Decorates what makes a function to compile: for equal arguments it is one and the same.

  So another seed's networks are no other program. What is compiled quickly is one of its own.
  For arguments without a hash, as a module with an array among its fields, each call makes one.

  Args:
    maxsize: how many are kept. What they hold lives as long, so a few where users give it.
  """

  def decorate(make):
    kept = functools.lru_cache(maxsize)(lambda is_quick, *args: make(*args))

    @functools.wraps(make)
    def get(*args):
      try:
        hash(args)
      except TypeError:
        return make(*args)
      return kept(jax.config.values[_FLAG], *args)

    return get

  return decorate
