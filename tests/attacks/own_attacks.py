"""Attacks as a user writes them."""

import numpy as np

from diffence_jax.attacks import View, attack


def surest(view, *, power: float = 1.0):
  """A plain function, without a declaration."""
  return np.max(view.logits, axis=(1, 2)) ** power


def one_too_many(view):
  return np.zeros(len(view.labels) + 1)


def a_column(view):
  return np.zeros((len(view.labels), 1))


def words(view):
  return np.array(["member"] * len(view.labels))


def not_a_number(view):
  return np.where(view.labels > 0, 0.0, np.nan)


def reads_membership(view):
  return view.is_member + 0.0


@attack("Reads images", needs=("known",))
def reads_images(view: View):
  return view.images.mean(axis=(1, 2, 3))


@attack("Reads what there is not")
def reads_nothing(view: View):
  return view.gradients
