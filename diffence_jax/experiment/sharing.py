"""How processes compute a stage between them: its items, then the stage itself, once."""

import contextlib
import functools
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from diffence_jax import parallel
from diffence_jax.disk import ArtifactError, remove_folder
from diffence_jax.experiment.claims import PATIENCE, Alone, Claims
from diffence_jax.experiment.parts import parts_folder
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.store import Store
from diffence_jax.progress import progress_bar


def compute_stage(
  name: str, stage: Stage, store: Store, settings: Compute, claims: Alone | Claims
) -> None:
  """Computes a stage whose inputs are there, or as much of it as others leave; verifies it.

  Args:
    name: for people.
    stage: the stage.
    store: where artifacts are; the workdir is to be locked.
    settings: how it is computed.
    claims: of this process.
  """
  if not store.is_done(stage):
    compute_items(name, stage, store, settings, claims)
    _compute_whole(stage, store, settings, claims)
  store.verify(stage)
  _discard_parts(stage, store, claims)


def compute_items(
  name: str, stage: Stage, store: Store, settings: Compute, claims: Alone | Claims
) -> None:
  """Computes what nobody else does of a stage's items, and waits for the rest.

  Args:
    name: as above, like the others.
    stage: whose own artifact may be there: then its items are not missed.
    store: where artifacts are.
    settings: how they are computed.
    claims: of this process.
  """
  items = {store.path(item): item for item in stage.items(settings)}
  # Who comes when all is joined finds no parts, and is to make none.
  wanted = lambda: () if store.is_done(stage) else _missing(items, store)
  missing, by_this, work = wanted(), 0, None
  at_once = stage.items_at_once(settings)
  num = len(missing)
  with contextlib.ExitStack() as stack:
    bar = None
    if missing and not stage.items_together:  # those that are have a bar of their own
      bar = stack.enter_context(progress_bar(len(items), name, "part", len(items) - num))
    while missing:
      at_most = claims.share(len(missing), at_once) if stage.items_together else 1
      with claims.claimed(missing, at_most) as mine:
        # Another may have finished one, or all, between the look and the claim.
        left = set(wanted())
        share = [items[path] for path in mine if path in left]
        if share:
          work = work or stage.item_worker(store, settings)
          try:
            work(share)
          except (FileNotFoundError, ArtifactError):
            if not store.is_done(stage):  # it was joined of parts of another size
              raise
          by_this += len(share)
        elif not mine:
          time.sleep(PATIENCE)
      before, missing = len(missing), wanted()
      if bar is not None:
        bar.update(before - len(missing))
  if by_this < num:
    print(f"{name:<15} {by_this} of {num} by this process", file=sys.stderr, flush=True)


def _missing(items: Mapping[Path, Stage], store: Store) -> list[Path]:
  return [path for path, item in items.items() if not store.is_done(item)]


def _compute_whole(
  stage: Stage, store: Store, settings: Compute, claims: Alone | Claims
) -> None:
  """Computes a stage whose items are there, or waits for who does."""
  items = stage.items(settings)
  given = {"store": store.for_inputs_of(stage, items), "compute": settings}
  write = functools.partial(stage.compute, **given)
  # Of processes that JAX has started together only the first one can write checkpoints.
  wanted = [store.path(stage)] if parallel.is_first() else []
  while not store.is_done(stage):
    with claims.claimed(wanted) as mine:
      if mine and not store.is_done(stage):
        for item in items:
          store.verify(item)
        parts = items if stage.items_are_parts else ()
        store.compute(stage, write, parts)
      elif not mine:
        time.sleep(PATIENCE)


def _discard_parts(stage: Stage, store: Store, claims: Alone | Claims) -> None:
  """Removes the parts that a stage was joined of, where they are left, half removed too."""
  folder = store.workdir / parts_folder(stage)
  is_left = lambda: any(folder.parent.glob(f"{folder.name}*"))
  if is_left():
    with claims.claimed([store.path(stage)]) as mine:
      if mine and is_left():  # another may have removed them between the look and the claim
        remove_folder(folder)
