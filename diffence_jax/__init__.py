"""Membership privacy for image classifiers in JAX."""
