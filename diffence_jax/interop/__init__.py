"""Published PyTorch weights in."""

from diffence_jax.interop.from_torch import from_torch

__all__ = ["from_torch"]
