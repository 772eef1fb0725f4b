"""Optax's Adam raises a float to an integer power, which strict promotion refuses."""

import jax
import pytest


@pytest.fixture(autouse=True)
def standard_dtype_promotion():
  """Lifts the suite's strict dtype promotion for code that takes optimizer steps."""
  with jax.numpy_dtype_promotion("standard"):
    yield
