"""Runs an experiment, stage by stage, and leaves a report."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from diffence_jax import parallel
from diffence_jax.compiling import compiled_quickly
from diffence_jax.disk import private_files, write_atomically
from diffence_jax.experiment import partners
from diffence_jax.experiment.claims import Alone, Claims, alone_at, clear_claims
from diffence_jax.experiment.collect import results_of
from diffence_jax.experiment.config import as_json
from diffence_jax.experiment.in_step import train_in_step
from diffence_jax.experiment.plan import Experiment, plan
from diffence_jax.experiment.reports import write_reports
from diffence_jax.experiment.sharing import compute_stage
from diffence_jax.experiment.stage import Compute, Stage
from diffence_jax.experiment.stages.network import TrainedNetwork
from diffence_jax.experiment.store import Store, locked
from diffence_jax.report import Results, Timing
from diffence_jax.report.versions import package_versions

# Whose versions are recorded beside what they computed.
_PACKAGES = ("diffence_jax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy")
_ALONE = Alone()


def run(config: ConfigDict | Mapping[str, Any], workdir: str | os.PathLike) -> Results:
  """Runs an experiment and writes its report; what is there already is not computed again.

  Args:
    config: as a file in `configs/` makes it, or a mapping of what differs from
      `config.base_config()`.
    workdir: artifacts, `results.json`, `results.csv`, `scores.csv`, `report.html`,
      `private.html` and, with shadow models, `scores_in_turn.npz` go there; a killed run goes
      on from there. Those of other configs that were run there stay in `reports/`.

  Returns:
    The content of `results.json`.

  Raises:
    ValueError: a setting or the data are not right.
    FileNotFoundError: the data are not there.
    ArtifactError: the workdir is in use, or something in it is damaged.
  """
  return carry_out(plan(config), workdir)


def carry_out(
  experiment: Experiment, workdir: str | os.PathLike, *, share: bool = False
) -> Results:
  """`run` of an experiment that is planned.

  Args:
    experiment: as `plan` makes it.
    workdir: as `run` takes it.
    share: whether other processes work in the workdir at the same time: each computes what
      nobody else does, waits for the rest, and writes the same report.
  """
  store = open_store(workdir)
  if parallel.is_pod():
    parallel.check_alike(
      {
        "version": json.dumps(store.record["versions"]),
        "workdir": str(store.workdir.resolve()),
        "config": json.dumps(as_json(experiment.settings)),
      }
    )
  workdir, claims = store.workdir, Claims() if share else Alone()
  with private_files(), locked(workdir, shared=share), _watched(workdir):
    with alone_at(claims, workdir / "reports" / "start"):
      store.prepare()
      started = {"settings": as_json(experiment.settings), **store.record}
      write_atomically(workdir / "run.json", json.dumps(started, indent=2))
    _say(_data_line(experiment))
    if not share:
      clear_claims(workdir)
    timings = compute(experiment, store, claims=claims)
    results = results_of(experiment, store)
    with alone_at(claims, workdir / "reports" / "report"):
      write_reports(experiment, store, results, timings)
  return results


def _watched(workdir: Path) -> contextlib.AbstractContextManager[None]:
  return partners.watched(workdir) if parallel.is_pod() else contextlib.nullcontext()


def open_store(workdir: str | os.PathLike) -> Store:
  """The store of artifacts in a workdir; they record this process's versions and device."""
  return Store(workdir, {"versions": package_versions(*_PACKAGES), "device": _device()})


@contextlib.contextmanager
def usual_jax() -> Iterator[None]:
  """JAX's settings that change figures as they are by default, whatever the process has set.

  What they would change is in no fingerprint.
  """
  with contextlib.ExitStack() as stack:
    for setting in (
      jax.enable_x64(False),
      jax.threefry_partitionable(True),
      jax.default_prng_impl("threefry2x32"),
      jax.numpy_dtype_promotion("standard"),
      jax.numpy_rank_promotion("allow"),
    ):
      stack.enter_context(setting)
    yield


def compute(
  experiment: Experiment,
  store: Store,
  names: Sequence[str] | None = None,
  claims: Alone | Claims = _ALONE,
) -> list[Timing]:
  """Computes stages that are not in the store yet, and verifies those that are.

  Args:
    experiment: as `plan` makes it.
    store: as `open_store` makes it; the workdir is to be locked.
    names: of the stages; None for all.
    claims: of this process, where it shares the workdir.

  Returns:
    What every stage took, in order.
  """
  stages = {n: s for n, s in experiment.stages.items() if names is None or n in names}
  return compute_stages(stages, store, experiment.settings.compute, claims)


@usual_jax()
def compute_stages(
  stages: Mapping[str, Stage],
  store: Store,
  settings: Compute,
  claims: Alone | Claims = _ALONE,
) -> list[Timing]:
  """Computes stages that are not in the store yet, and verifies those that are.

  Args:
    stages: name to stage, in the order they run.
    store: as `compute` takes it.
    settings: how they are computed.
    claims: as `compute` takes them.

  Returns:
    What every stage took, in order.
  """
  timings = []
  with contextlib.nullcontext() if settings.optimize else compiled_quickly():
    for name, stage in stages.items():
      cached = store.is_done(stage)
      _say(f"{name:<15} {stage.fingerprint}  {'cached' if cached else 'running'}")
      if parallel.is_pod() and isinstance(stage, TrainedNetwork):
        train_in_step(name, stage, store, settings, claims)
      compute_stage(name, stage, store, settings, claims)
      seconds = store.manifest(stage)["seconds"]
      timings.append(Timing(name, stage.fingerprint, seconds, cached))
  return timings


def describe(experiment: Experiment, workdir: str | os.PathLike) -> str:
  """The data, the stages, which of them are cached, and what the rest will cost in steps.

  Args:
    experiment: as `plan` makes it.
    workdir: where the artifacts are.

  Returns:
    A table, a line for the data and a line a stage.
  """
  store, lines = Store(workdir), [_data_line(experiment)]
  for name, stage in experiment.stages.items():
    state = "cached" if store.is_done(stage) else "to do "
    items = () if store.is_done(stage) else stage.items(experiment.settings.compute)
    done = sum(map(store.is_done, items))
    there = f"; {done} of {len(items)} cached" if items else ""
    lines.append(f"{name:<15} {stage.fingerprint}  {state}  {stage.cost()}{there}")
  return "\n".join(lines)


def _data_line(experiment: Experiment) -> str:
  """What the data were understood to be, for people to see where that is wrong."""
  return f"{'data':<15} {experiment.dataset.describe()}"


def _device():
  devices = jax.devices()  # of all hosts
  return f"{devices[0].device_kind} x{len(devices)}"


def _say(message):
  print(message, file=sys.stderr, flush=True)
