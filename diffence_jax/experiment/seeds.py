"""One experiment at several seeds, in one workdir."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from diffence_jax import data
from diffence_jax.data import SOURCES
from diffence_jax.disk import private_files
from diffence_jax.experiment.claims import Alone, Claims, alone_at
from diffence_jax.experiment.config import validate
from diffence_jax.experiment.plan import Experiment, plan
from diffence_jax.experiment.reports import report_folder
from diffence_jax.experiment.run import carry_out
from diffence_jax.experiment.stage import fingerprint
from diffence_jax.report.curves import FILE, read_curves
from diffence_jax.tables.runs import Run
from diffence_jax.tables.seeds import write_seeds


def plan_seeds(config: ConfigDict, seeds: Sequence[int]) -> list[Experiment]:
  """The experiments, all checked before anything is computed.

  Args:
    config: of one of them; its seed is replaced.
    seeds: at least two, all different.

  Raises:
    ValueError: a setting, a seed or the data are not right.
  """
  if len(seeds) < 2 or len(set(seeds)) < len(seeds):
    raise ValueError(
      f"The seeds are {', '.join(map(str, seeds)) or 'none'}; expected at least two different "
      "ones, such as 0,1,2."
    )
  configs = []
  for seed in seeds:
    of_seed = config.copy_and_resolve_references()
    of_seed.seed = seed
    configs.append(of_seed)
  chosen = validate(configs[0]).data
  dataset = data.load(SOURCES.choose(chosen.source, chosen.options))
  return [plan(of_seed, dataset) for of_seed in configs]


def run_seeds(
  experiments: Sequence[Experiment], workdir: str | os.PathLike, *, share: bool = False
) -> tuple[list[Run], Path]:
  """Runs all that is not there yet; each seed has its report, and all together one more.

  Args:
    experiments: as `plan_seeds` makes them.
    workdir: of all; what does not depend on the seed is computed once.
    share: whether other processes work in it at the same time.

  Returns:
    The runs, and the folder of the report over seeds: `reports/<name>-seeds-<fingerprint>`.

  Raises:
    ArtifactError: the workdir is in use, or something in it is damaged.
  """
  workdir, runs = Path(workdir), []
  folders = [report_folder(experiment, workdir) for experiment in experiments]
  for experiment, folder in zip(experiments, folders, strict=True):
    seed = experiment.settings.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    results = carry_out(experiment, workdir, share=share)
    runs.append(Run(f"seed {seed}", results, read_curves(folder / FILE)))
  name, _, _ = folders[0].name.rpartition("-")
  all_of_them = fingerprint({"reports": [folder.name for folder in folders]})
  together = folders[0].with_name(f"{name}-seeds-{all_of_them}")
  with private_files(), alone_at(Claims() if share else Alone(), together):
    write_seeds(runs, together)
  return runs, together
