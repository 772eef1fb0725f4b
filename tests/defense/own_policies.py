"""Policies as a user writes them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffence_jax.defense import AggregatePolicy, RankPolicy


def least_sure(members, nonmembers, *, tolerance: float = 0.0):
  """The least sure of all options; the first that is less sure than members are on average."""
  del nonmembers
  least = float(np.mean(np.max(jax.nn.softmax(members.raw), axis=-1))) - tolerance
  return RankPolicy(Partial(_surer_than, least))


def half_way(members, nonmembers, *, weight: float = 0.5):
  """Half way between the raw prediction and its mean."""
  del members, nonmembers
  return AggregatePolicy(Partial(_flattened, weight), keeps_labels=True, draws=False)


def no_policy(members, nonmembers):
  return lambda candidates, raw: raw


def _surer_than(least, logits):
  p = jnp.max(jax.nn.softmax(logits), axis=-1)
  return jnp.where(p <= least, -1.0, p)


def _flattened(weight, candidates, raw):
  del candidates
  return jnp.asarray(1.0 - weight, raw.dtype) * raw
