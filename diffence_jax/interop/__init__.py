"""Published PyTorch weights in, programs out."""

from diffence_jax.interop.diffusers import read_schedule
from diffence_jax.interop.export import export
from diffence_jax.interop.from_torch import from_torch

__all__ = ["export", "from_torch", "read_schedule"]
