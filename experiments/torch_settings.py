"""How PyTorch computes beside ours: compiled on a GPU, in which precision, on which cores."""

import contextlib
from collections.abc import Iterator

import torch
from torch_networks import DEVICE

# On a CPU it takes minutes, and a C++ compiler.
COMPILES = DEVICE == "cuda"


def compiled(network: torch.nn.Module) -> torch.nn.Module:
  """A network, channels last, and compiled on a GPU."""
  network = network.to(DEVICE, memory_format=torch.channels_last)
  return torch.compile(network) if COMPILES else network


@contextlib.contextmanager
def products(kind: str) -> Iterator[None]:
  """Products of float32 as ours; else convolutions are in TF32, and others not.

  Args:
    kind: a `jax.default_matmul_precision`; "highest" is float32's, all others are TF32.
  """
  backends = torch.backends.cuda.matmul, torch.backends.cudnn
  before = [backend.allow_tf32 for backend in backends]
  try:
    for backend in backends:
      backend.allow_tf32 = kind != "highest"
    yield
  finally:
    for backend, allowed in zip(backends, before, strict=True):
      backend.allow_tf32 = allowed


@contextlib.contextmanager
def one_thread(alone: bool) -> Iterator[None]:
  """On busy cores threads that wait for one another make a tiny network take seconds.

  Args:
    alone: False for as many threads as there are.
  """
  before = torch.get_num_threads()
  try:
    torch.set_num_threads(1 if alone else before)
    yield
  finally:
    torch.set_num_threads(before)
