"""Samples in four groups: members and others, whose membership is known and not."""

import numpy as np

from diffence_jax.attacks import View
from diffence_jax.audit.pool import Pool

GROUPS = ("known_members", "target_members", "known_nonmembers", "target_nonmembers")


def pool_of(groups):
  """The samples of four groups, each (..., labels i[n]), in the order of `GROUPS`."""
  at = np.repeat(range(4), [len(group[-1]) for group in groups])
  return Pool(
    ids=np.arange(len(at)),
    labels=np.concatenate([group[-1] for group in groups]),
    is_member=at < 2,
    is_known=at % 2 == 0,
    is_canary=np.zeros(len(at), bool),
  )


def view_of(groups, **more):
  """What an attacker sees of four groups, each (logits f[n,K], labels i[n])."""
  pool = pool_of(groups)
  logits = np.concatenate([logits for logits, _ in groups])
  return View(
    logits[:, None],
    pool.labels,
    is_known=pool.is_known,
    is_member=pool.is_member,
    ids=pool.ids,
    **more,
  )


def by_group(values, groups):
  """Values of all samples, group by group."""
  ends = np.cumsum([len(group[-1]) for group in groups])
  return dict(zip(GROUPS, np.split(values, ends[:-1]), strict=True))
